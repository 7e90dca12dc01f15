"""Rows by period of a time column, and rows dealt to folds: the main figures of each part."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import t as student

from compress.errors import DataError
from compress.evaluate.answers import Answers
from compress.evaluate.groups import MISSING, Groups
from compress.evaluate.segments import members_of
from compress.review import Figure, Interval, Period

PeriodOf = Literal["value", "month", "quarter", "year"]
# More periods than this are no table that anybody reads.
PERIODS_MAX = 120
_FREQUENCY = {"month": "M", "quarter": "Q", "year": "Y"}


def period_groups(column: str, values: NDArray[np.generic], by: PeriodOf, *, where: str = "evaluate.time") -> Groups:
    """Returns the periods that a time column makes, oldest first.

    Args:
        column: The column's name.
        values: `[rows]` dates, as text (ISO 8601) or numpy dates; with `value` any numbers or texts in their order.
        by: What a period is.
        where: What asked for it, for the message.

    Raises:
        DataError: If a value is no date, or there are more than 120 periods.
    """
    if by == "value":
        distinct, codes = np.unique(values, return_inverse=True)
        names = [str(value) or MISSING for value in distinct.tolist()]
    else:
        if values.dtype.kind not in "USM":
            raise DataError(
                f"{where}: {column!r} holds numbers, from which no {by} can be read; the first is {values[0]!r}",
                'write dates as text (2026-03-31), or set evaluate.period = "value".',
            )
        try:
            dates = pd.to_datetime(pd.Series(values), format=None if values.dtype.kind == "M" else "ISO8601")
        except (ValueError, TypeError) as error:
            raise DataError(
                f"{where}: {column!r}: not every value is a date: {error}",
                'write dates as 2026-03-31, or set evaluate.period = "value".',
            ) from error
        periods = dates.dt.tz_localize(None).dt.to_period(_FREQUENCY[by]).astype(str).to_numpy().astype(str)
        distinct, codes = np.unique(np.where(dates.isna(), MISSING, periods), return_inverse=True)
        names = [str(value) for value in distinct]
    if len(names) > PERIODS_MAX:
        raise DataError(
            f"{where}: {column!r} makes {len(names):,} periods",
            f"choose a longer period; at most {PERIODS_MAX} are shown.",
        )
    return Groups(column, tuple(names), codes.reshape(-1).astype(np.int64))


def compare_periods(answers: Answers, periods: Groups) -> tuple[Period, ...]:
    """Returns the figures of a segment for every period that has rows, oldest first."""
    found = []
    for name, members in zip(periods.names, members_of(periods), strict=True):
        if members.size:
            part = answers.of(members)
            found.append(Period(name, int(members.size), part.positives, part.figures()))
    return tuple(found)


def compare_folds(answers: Answers, folds: int, seed: int) -> tuple[Figure, ...]:
    """Returns the main figure as the mean over folds of the rows, and the mean difference with Student's interval.

    Rows are dealt at random within each label, so that each fold has its share of positives. The folds share no row, so
    their figures are independent; with few folds the interval is wide, which is what few folds are worth.

    Args:
        answers: All rows.
        folds: Number of parts, 2 or more.
        seed: Of the dealing.
    """
    rows = answers.strata.size
    if answers.folds_max < folds:
        of = f"{answers.positives:,} positive of {rows:,} rows" if answers.positives is not None else f"{rows:,} rows"
        name = "auc" if answers.positives is not None else "main figure"
        return (Figure(name, None, note=f"undefined: {of} do not fill {folds} folds"),)
    generator = np.random.default_rng(seed)
    fold = np.empty(rows, dtype=np.int64)
    # Dealt on from stratum to stratum: of many small ones, each fold gets as many rows as the others.
    shuffled = generator.permutation(rows)
    fold[shuffled[np.argsort(answers.strata[shuffled], kind="stable")]] = np.arange(rows) % folds
    parts = [answers.of(np.flatnonzero(fold == index)).main() for index in range(folds)]
    name = parts[0][0]
    before, after = np.array([part[1] for part in parts]), np.array([part[2] for part in parts])
    shifts = after - before
    if not np.isfinite(shifts).all():
        return (Figure(name, None, note="undefined: in a fold all labels are equal"),)
    half = float(student.ppf((1 + answers.level) / 2, folds - 1) * shifts.std(ddof=1) / np.sqrt(folds))
    mean = float(shifts.mean())
    interval = Interval(mean - half, mean + half, answers.level, f"Student over {folds} folds")
    note = f"differences by fold: {', '.join(f'{shift:+.4f}' for shift in shifts)}"
    return (Figure(name, float(after.mean()), float(before.mean()), mean, interval, note),)

"""Quality of a regression task beside its baseline, on the same rows: differences are paired and have intervals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from compress.evaluate.discrimination import effective_rows, midranks
from compress.evaluate.paired import CENTRED_PLAIN, centred_percentile, draws
from compress.evaluate.scores import numbers, same_rows
from compress.evidence import Interval, Metric

Floats = NDArray[np.float64]

PRIMARY = "r2"
# With fewer rows the intervals are too short; tests/evaluate/test_evaluate_regression.py shows by how much.
ROWS_MIN = 20
# An interval that rests on fewer rows than this misses rare large errors; it is given, with a note.
INFORMATIVE_ROWS_MIN = 10
# Labels whose variance is a smaller share of their mean square do not vary but for rounding.
_CONSTANT = 1e-12
_HIGHER_IS_BETTER = {"r2": True, "mae": False, "rmse": False}


@dataclass(frozen=True)
class _Pair:
    """Checked rows: labels less their mean, and the errors before and after, `[rows]` each."""

    labels: Floats
    before: Floats
    after: Floats
    resamples: int
    seed: int
    level: float

    @property
    def rows(self) -> int:
        return int(self.labels.size)

    @property
    def identical(self) -> bool:
        return bool(np.array_equal(self.before, self.after))

    def figures(self, errors: Floats, weights: Floats) -> Floats:
        """Returns R², MAE and RMSE on weighted rows, `[resamples, 3]`; R² is NaN where all labels are equal.

        Args:
            errors: `before` or `after`.
            weights: How often each row counts, `[resamples, rows]`, adding up to the number of rows.
        """
        columns = np.stack([self.labels, np.square(self.labels), np.abs(errors), np.square(errors)], axis=1)
        mean, square, absolute, squared = (weights @ columns / self.rows).T
        variance = square - np.square(mean)
        variance[variance <= _CONSTANT * square] = np.nan
        with np.errstate(over="ignore"):
            return np.stack([1 - squared / variance, absolute, np.sqrt(squared)], axis=1)

    def influence(self, name: str) -> Floats:
        """How much each row moves the difference, to first order, but for a factor and a constant."""
        if name == "mae":
            return np.abs(self.after) - np.abs(self.before)
        before, after = np.square(self.before), np.square(self.after)
        if name == "rmse":
            # Each mean square under its own root; a root of zero has no errors to divide.
            before, after = (squares / (np.sqrt(squares.mean()) or 1.0) for squares in (before, after))
        shifts: Floats = after - before
        if name == "rmse":
            return shifts
        shifts -= shifts.mean() * np.square(self.labels / (self.labels.std() or 1.0))
        return shifts


def compare_regression(
    labels: ArrayLike,
    baseline_outputs: ArrayLike,
    candidate_outputs: ArrayLike,
    *,
    resamples: int,
    seed: int,
    level: float = 0.95,
    where: str = "output",
) -> tuple[Metric, ...]:
    """Returns `r2, mae, rmse, rank_correlation` of a candidate beside its baseline; `r2` is primary.

    1. `r2` is 1 - (sum of squared errors) / (sum of squared deviations of the labels from their mean); None with a
       note where all labels are equal. `mae` and `rmse` have the labels' unit.
    2. Their intervals are the percentiles of a paired bootstrap over rows, centred on the estimate. With fewer than 20
       rows there is a difference and no interval.
    3. `rank_correlation` is Spearman's, between the baseline's outputs and the candidate's: whether the order of the
       rows is kept. It has no baseline; None with a note where one of them gives every row the same number.
    4. Equal outputs give differences and intervals of exactly 0.

    Args:
        labels: What is to be predicted, `[rows]`.
        baseline_outputs: Outputs of the baseline, `[rows]` or `[rows, 1]`, in the labels' unit.
        candidate_outputs: The same of the candidate, for the same rows in the same order.
        resamples: Number of bootstrap draws.
        seed: Seed of the draws; equal seeds give equal intervals.
        level: Level of every interval.
        where: Names the output in an error message.

    Raises:
        DataError: If there are no rows, lengths differ, or a number is not finite.
    """
    true = numbers(labels, f"{where}: labels")
    before, after = numbers(baseline_outputs, f"{where} of the baseline"), numbers(candidate_outputs, where)
    same_rows(true.size, before.size, after.size)
    pair = _Pair(
        labels=true - true.mean() if np.ptp(true) else np.zeros_like(true),
        before=before - true,
        after=after - true,
        resamples=resamples,
        seed=seed,
        level=level,
    )
    return (*_differences(pair), _rank_correlation(before, after))


def _differences(pair: _Pair) -> Iterator[Metric]:
    once = np.ones((1, pair.rows))
    before = pair.figures(pair.before, once)[0]
    after = before if pair.identical else pair.figures(pair.after, once)[0]
    replicates = _replicates(pair)
    for column, (name, higher_is_better) in enumerate(_HIGHER_IS_BETTER.items()):
        found = Metric(
            name=name,
            value=float(after[column]),
            baseline=float(before[column]),
            difference=float(after[column] - before[column]),
            interval=Interval(0.0, 0.0, pair.level, "equal scores") if pair.identical else None,
            higher_is_better=higher_is_better,
            rows=pair.rows,
            primary=name == PRIMARY,
        )
        if not np.isfinite([before[column], after[column]]).all():
            note = "undefined: the labels of all rows are equal"
            yield replace(found, value=None, baseline=None, difference=None, interval=None, note=note)
        elif pair.identical:
            yield found
        elif replicates is None:
            yield replace(found, note=f"no interval: {pair.rows:,} rows, at least {ROWS_MIN} are needed")
        else:
            yield _with_interval(found, replicates[:, column], pair)


def _replicates(pair: _Pair) -> Floats | None:
    """Bootstrap differences of R², MAE and RMSE, `[resamples, 3]`; None where there can be no interval."""
    if pair.identical or pair.rows < ROWS_MIN:
        return None
    one_stratum = np.zeros(pair.rows)
    return np.concatenate(
        [
            pair.figures(pair.after, weights) - pair.figures(pair.before, weights)
            for weights in draws(one_stratum, pair.resamples, pair.seed)
        ]
    )


def _with_interval(found: Metric, replicates: Floats, pair: _Pair) -> Metric:
    if not np.isfinite(replicates).all():
        return replace(found, note="no interval: too few rows have a label that differs from the others")
    interval = centred_percentile(found.difference or 0.0, replicates, pair.level, CENTRED_PLAIN)
    influence = pair.influence(found.name)
    informative = effective_rows(influence - influence.mean())
    note = ""
    if 0 < informative < INFORMATIVE_ROWS_MIN:
        note = f"the interval rests on about {informative:.0f} rows; a rare large error may have been missed"
    return replace(found, interval=interval, note=note)


def _rank_correlation(before: Floats, after: Floats) -> Metric:
    """Spearman's correlation of two scores of the same rows: Pearson's of their midranks."""
    name, note = "rank_correlation", "order of the rows by the baseline and by the candidate"
    ranks = [midranks(scores) - (scores.size + 1) / 2 for scores in (before, after)]
    spread = float(np.sqrt(np.square(ranks[0]).sum() * np.square(ranks[1]).sum()))
    if not spread:
        note = "undefined: one of the two gives every row the same number"
        return Metric(name, None, None, None, None, True, before.size, note)
    value = min(1.0, max(-1.0, float(ranks[0] @ ranks[1]) / spread))
    return Metric(name, value, None, None, None, True, before.size, note)

"""Gaps between groups of one column, by baseline and candidate, and how much they changed.

The figures are fairlearn's (Weerts et al. 2023, JMLR 24:257), with the favourable decision as the one selected, and the
label that deserves it as the positive one: for credit the approval, and the customer who pays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from compress.evaluate.binary_counts import centred, draw, few_changed
from compress.evaluate.groups import Groups
from compress.evaluate.segments import Rows
from compress.evaluate.widening import widest_increase
from compress.review import Fairness, Figure, Interval

Floats = NDArray[np.float64]

METHOD = "paired multinomial bootstrap of the counts within segments, percentile, centred on the estimate"
SPREAD_METHOD = f"{METHOD}; its upper end at least by how far segments moved apart"


def compare_fairness(
    rows: Rows, columns: Sequence[Groups], *, rows_min: int, resamples: int, seed: int
) -> tuple[Fairness, ...]:
    """Returns the gaps of every column with two groups or more that are not small.

    `demographic_parity_difference` and `_ratio`: of the share selected. `equal_opportunity_difference`: of the share
    selected among those who deserve it. `equalized_odds_difference`: the larger of that and of the share selected among
    those who do not. A group that lacks a label makes the figures that need it None, with a note.

    Args:
        rows: All rows of the task.
        columns: How they fall into groups.
        rows_min: Groups of fewer rows are left out.
        resamples: Number of draws.
        seed: Of the draws.
    """
    return tuple(_of_column(rows, groups, rows_min, resamples, seed) for groups in columns)


def _of_column(rows: Rows, groups: Groups, rows_min: int, resamples: int, seed: int) -> Fairness:
    sizes = np.bincount(groups.codes, minlength=len(groups.names))
    judged = np.flatnonzero(sizes >= rows_min)
    names = tuple(groups.names[index] for index in judged)
    left_out = [groups.names[index] for index in np.flatnonzero((sizes > 0) & (sizes < rows_min))]
    note = f"left out with fewer than {rows_min} rows: {', '.join(left_out)}" if left_out else ""
    if judged.size < 2:
        said = f"undefined: {judged.size} segment of {rows_min} rows or more"
        return Fairness(groups.column, names, (), f"{said}; {note}" if note else said)
    tables = _tables(rows, groups)[judged]
    figures = []
    changed = int(tables[:, :, 0, 1].sum() + tables[:, :, 1, 0].sum())
    drawn = _draw_within(tables, resamples, seed)
    shares = [_shares(tables[None].astype(np.float64), axis) for axis in (3, 4)]
    drawn_shares = [_shares(drawn, axis) for axis in (3, 4)]
    for name, figure in FIGURES.items():
        before, after = (float(figure(each)[0]) for each in shares)
        if not np.isfinite([before, after]).all():
            figures.append(Figure(name, None, note="undefined: a segment has no rows of one label, or none selected"))
            continue
        replicates = figure(drawn_shares[1]) - figure(drawn_shares[0])
        interval = centred(after - before, replicates, rows.level, METHOD)
        if interval is not None and name in SPREADS:
            which = SPREADS[name]
            high = widest_increase(
                (shares[0][0][:, which], shares[1][0][:, which]),
                (drawn_shares[0][:, :, which], drawn_shares[1][:, :, which]),
                rows.level,
            )
            interval = replace(interval, high=max(interval.high, high), method=SPREAD_METHOD)
        if not changed:
            interval = Interval(0.0, 0.0, rows.level, "equal decisions")
        figures.append(Figure(name, after, before, after - before, interval, few_changed(changed) if changed else ""))
    return Fairness(groups.column, names, tuple(figures), note)


def _tables(rows: Rows, groups: Groups) -> NDArray[np.int64]:
    """Rows by group, deserving, and selected by baseline and candidate: `[groups, 2, 2, 2]`."""
    favourable = bool(rows.favourable)
    deserving = rows.labels == favourable
    selected = [decided == favourable for decided in rows.decided]
    place = groups.codes * 8 + deserving * 4 + selected[0] * 2 + selected[1]
    size = len(groups.names)
    return np.bincount(place, minlength=8 * size).reshape(size, 2, 2, 2)


def _draw_within(tables: NDArray[np.int64], resamples: int, seed: int) -> Floats:
    """Every group's counts drawn again, its rows fixed: `[resamples, groups, 2, 2, 2]`."""
    return np.stack([draw(table, resamples, seed + index) for index, table in enumerate(tables)], axis=1)


def _shares(tables: Floats, axis: int) -> Floats:
    """Selected shares by group of all rows, of the deserving, of the others: `[draws, groups, 3]`.

    Args:
        tables: `[draws, groups, deserving, by baseline, by candidate]`.
        axis: Whose selection counts: 3 of the baseline, 4 of the candidate.
    """
    by = tables.sum(axis=7 - axis)
    columns = [by.sum(axis=2), by[:, :, 1], by[:, :, 0]]
    shares = []
    for counts in columns:
        total = counts.sum(axis=2)
        shares.append(np.divide(counts[:, :, 1], total, out=np.full_like(total, np.nan), where=total > 0))
    return np.stack(shares, axis=2)


def _spread(shares: Floats, column: int) -> Floats:
    gap: Floats = shares[:, :, column].max(axis=1) - shares[:, :, column].min(axis=1)
    return gap


def _ratio(shares: Floats) -> Floats:
    largest = shares[:, :, 0].max(axis=1)
    empty = np.full_like(largest, np.nan)
    ratio: Floats = np.divide(shares[:, :, 0].min(axis=1), largest, out=empty, where=largest > 0)
    return ratio


# Figures that are a spread, or the largest of several: the columns of `_shares`.
SPREADS: dict[str, list[int]] = {
    "demographic_parity_difference": [0],
    "equal_opportunity_difference": [1],
    "equalized_odds_difference": [1, 2],
}
FIGURES: dict[str, Callable[[Floats], Floats]] = {
    "demographic_parity_difference": lambda shares: _spread(shares, 0),
    "demographic_parity_ratio": _ratio,
    "equal_opportunity_difference": lambda shares: _spread(shares, 1),
    "equalized_odds_difference": lambda shares: np.maximum(_spread(shares, 1), _spread(shares, 2)),
}

"""Figures at a cut-off, from eight counts: the label, the baseline's decision and the candidate's decision of each row.

Whatever the number of rows, the eight counts say all that there is to say about decisions, and drawing them again from
a multinomial distribution is drawing the rows again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compress.evaluate.shares import exact_interval, tango_interval, weighted_sum_interval
from compress.review import Figure, Interval, Share

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

# Axes of the counts: label, baseline, candidate. 1 is positive.
MULTINOMIAL = "paired multinomial bootstrap of the counts, percentile, centred on the estimate"
# Figures whose bootstrap rests on fewer changed rows than this get a note.
CHANGED_ROWS_MIN = 10


@dataclass(frozen=True)
class Costs:
    """What each outcome of a decision costs a row, in any unit."""

    false_positive: float
    false_negative: float
    true_positive: float = 0.0
    true_negative: float = 0.0


@dataclass(frozen=True)
class Counts:
    """`table[label, baseline, candidate]` rows, `[2, 2, 2]`."""

    table: NDArray[np.int64]

    @property
    def rows(self) -> int:
        """All rows."""
        return int(self.table.sum())

    @property
    def positives(self) -> int:
        """Rows whose label is 1."""
        return int(self.table[1].sum())

    @property
    def to_positive(self) -> int:
        """Rows that only the candidate calls positive."""
        return int(self.table[:, 0, 1].sum())

    @property
    def to_negative(self) -> int:
        """Rows that only the baseline calls positive."""
        return int(self.table[:, 1, 0].sum())

    @property
    def flipped(self) -> int:
        """Rows whose decision changed."""
        return self.to_positive + self.to_negative


def count(labels: Bools, baseline: Bools, candidate: Bools) -> Counts:
    """Counts rows `[rows]` of labels and both decisions."""
    place = labels.astype(np.int64) * 4 + baseline.astype(np.int64) * 2 + candidate
    return Counts(np.bincount(place, minlength=8).reshape(2, 2, 2))


def share(changed: int, rows: int, level: float) -> Share:
    """Returns a count of rows as a share with its exact interval."""
    return Share(changed, rows, exact_interval(changed, rows, level) if rows else None)


def selection_rate(counts: Counts, selected: int, level: float, name: str = "approval_rate") -> Figure:
    """Returns the share of rows decided as `selected` (0 or 1), the change with Tango's interval."""
    return _paired_share(name, counts.table.sum(axis=0), selected, level)


def rate_of_label(counts: Counts, label: int, decided: int, name: str, level: float) -> Figure:
    """Returns the share of the rows of a label that are decided in one way: 1, 1 gives the true positive rate."""
    return _paired_share(name, counts.table[label], decided, level)


def agreement(counts: Counts, level: float) -> Figure:
    """Returns the share of rows decided alike, with its exact interval."""
    if not counts.rows:
        return Figure("agreement", None, note="undefined: no rows")
    same = counts.rows - counts.flipped
    return Figure("agreement", same / counts.rows, interval=exact_interval(same, counts.rows, level))


def expected_cost(counts: Counts, costs: Costs, level: float) -> Figure:
    """Returns the mean cost of a row and its change.

    The change is a sum of two differences of shares, one a label, each with Tango's interval; MOVER puts them together.
    """
    if not counts.rows:
        return Figure("expected_cost", None, note="undefined: no rows")
    of = np.array(
        [[costs.true_negative, costs.false_positive], [costs.false_negative, costs.true_positive]], dtype=np.float64
    )
    by_label = counts.table
    before = float((by_label.sum(axis=2) * of).sum()) / counts.rows
    after = float((by_label.sum(axis=1) * of).sum()) / counts.rows
    parts = []
    for label in (0, 1):
        gained, lost = int(by_label[label, 0, 1]), int(by_label[label, 1, 0])
        found = tango_interval(gained, lost, counts.rows, level)
        parts.append((float(of[label, 1] - of[label, 0]), (gained - lost) / counts.rows, found))
    interval = weighted_sum_interval(parts, level)
    return Figure("expected_cost", after, before, after - before, interval)


def precision_recall_f1(counts: Counts, *, resamples: int, seed: int, level: float) -> tuple[Figure, ...]:
    """Returns `precision`, `recall` and `f1` at the cut-off; recall carries Tango's interval."""
    recall = rate_of_label(counts, 1, 1, "recall", level)
    return (
        _ratio("precision", counts, _precision, resamples, seed, level),
        recall,
        _ratio("f1", counts, _f1, resamples, seed, level),
    )


def draw(table: NDArray[np.int64], resamples: int, seed: int) -> Floats:
    """Returns the counts drawn again from their multinomial distribution, `[resamples, *table.shape]`."""
    rows = int(table.sum())
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(rows, table.ravel() / max(1, rows), size=resamples)
    return drawn.reshape(resamples, *table.shape).astype(np.float64)


def centred(estimate: float, replicates: Floats, level: float, method: str = MULTINOMIAL) -> Interval | None:
    """Returns the percentile interval of the replicates, moved onto the estimate; None where a replicate is undefined.

    Args:
        estimate: The figure on the rows as they are.
        replicates: The figure on each draw, `[resamples]`; NaN where it is undefined.
        level: The confidence level.
        method: What the interval says of itself.
    """
    defined = replicates[np.isfinite(replicates)]
    # A figure that one draw in a hundred cannot define has no interval that could be trusted.
    if defined.size < 0.99 * replicates.size:
        return None
    low, high = np.quantile(defined + (estimate - defined.mean()), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level, method)


def few_changed(changed: int) -> str:
    """Returns what must be said of a bootstrap that rests on few changed rows, or nothing."""
    if changed >= CHANGED_ROWS_MIN:
        return ""
    return f"the interval rests on {changed} rows whose decision changed; a rare change may have been missed"


def _paired_share(name: str, decisions: NDArray[np.int64], chosen: int, level: float) -> Figure:
    """The share of rows decided as `chosen`, from `decisions[baseline, candidate]`."""
    rows = int(decisions.sum())
    if not rows:
        return Figure(name, None, note="undefined: no rows of this label")
    other = 1 - chosen
    before, after = int(decisions[chosen].sum()), int(decisions[:, chosen].sum())
    gained, lost = int(decisions[other, chosen]), int(decisions[chosen, other])
    interval = tango_interval(gained, lost, rows, level)
    return Figure(name, after / rows, before / rows, (after - before) / rows, interval)


def _ratio(
    name: str,
    counts: Counts,
    figure: Callable[[Floats, int], Floats],
    resamples: int,
    seed: int,
    level: float,
) -> Figure:
    whole = counts.table[None].astype(np.float64)
    before, after = float(figure(whole, 1)[0]), float(figure(whole, 2)[0])
    if not np.isfinite([before, after]).all():
        value, baseline = (number if np.isfinite(number) else None for number in (after, before))
        return Figure(name, value, baseline, note="undefined: no row is decided positive")
    difference = after - before
    drawn = draw(counts.table, resamples, seed)
    interval = centred(difference, figure(drawn, 2) - figure(drawn, 1), level)
    note = few_changed(counts.flipped) if interval else "no interval: too few rows are decided positive"
    return Figure(name, after, before, difference, interval, note)


def _decided(tables: Floats, axis: int) -> tuple[Floats, Floats, Floats]:
    """True positives, false positives and false negatives of the decisions on axis 1 (baseline) or 2 (candidate)."""
    by = tables.sum(axis=3 if axis == 1 else 2)
    return by[:, 1, 1], by[:, 0, 1], by[:, 1, 0]


def _precision(tables: Floats, axis: int) -> Floats:
    right, wrong, _ = _decided(tables, axis)
    return _divided(right, right + wrong)


def _f1(tables: Floats, axis: int) -> Floats:
    right, wrong, missed = _decided(tables, axis)
    return _divided(2 * right, 2 * right + wrong + missed)


def _divided(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)

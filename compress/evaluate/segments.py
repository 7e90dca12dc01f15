"""Who is treated differently: the figures of every group of rows, whether decisions changed there, the gaps between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc
from scipy.stats import binom

from compress.evaluate.answers import Answers
from compress.evaluate.binary_counts import Counts, agreement, count, rate_of_label, selection_rate
from compress.evaluate.discrimination import auc, delong_paired
from compress.evaluate.groups import Groups
from compress.evaluate.means import mean_figure
from compress.evaluate.quality import CLASS_ROWS_MIN
from compress.review import Figure, Interval, Segment

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

# From so many flipped rows on the chi-squared distribution holds; below, the exact one takes its place.
CHI_SQUARED_MIN = 25


@dataclass(frozen=True)
class Rows:
    """Checked rows of a binary task, and how they are decided: labels, both probabilities, `[rows]` each.

    `favourable` is the decision that a person hopes for: 0 where positive means the bad event.
    """

    labels: Bools
    baseline: Floats
    candidate: Floats
    cutoff: float
    favourable: int
    level: float

    @property
    def decided(self) -> tuple[Bools, Bools]:
        """The decisions of both at the cut-off."""
        return self.baseline >= self.cutoff, self.candidate >= self.cutoff

    @property
    def strata(self) -> NDArray[np.generic]:
        """The labels."""
        return self.labels

    @property
    def positives(self) -> int | None:
        """Number of positive rows."""
        return int(np.count_nonzero(self.labels))

    @property
    def folds_max(self) -> int:
        """AUC needs a row of each class."""
        positives = int(np.count_nonzero(self.labels))
        return min(positives, self.labels.size - positives)

    def figures(self) -> tuple[Figure, ...]:
        """Returns the figures that `Segment` names."""
        return binary_figures(self)

    def main(self) -> tuple[str, float, float]:
        """Returns the AUC."""
        return "auc", auc(self.labels, self.baseline), auc(self.labels, self.candidate)

    def of(self, members: NDArray[np.int64]) -> Rows:
        """Returns some of the rows."""
        return replace(
            self, labels=self.labels[members], baseline=self.baseline[members], candidate=self.candidate[members]
        )


def compare_segments(rows: Rows, columns: Sequence[Groups], *, rows_min: int) -> tuple[Segment, ...]:
    """Returns every segment of every column, with the figures that `Segment` names.

    1. AUC carries DeLong's interval, shares Tango's paired one (agreement the exact one), means a paired normal one.
    2. A segment of one class has an AUC of None, and a rate of the class that it lacks of None, with a note.
    3. `p_value`: within each label, flips in both directions are equally likely if the pattern has not changed;
       McNemar's chi-squared of the labels added, or its exact distribution below 25 flips. None without flips.
    4. `adjusted_p_value` is Holm's (1979, Scand. J. Statistics 6:65) over the segments that are not small.

    Args:
        rows: All rows.
        columns: How they fall into groups.
        rows_min: Segments of fewer rows are marked small.
    """
    found = [
        _segment(rows.of(members), groups, name, rows_min)
        for groups in columns
        for name, members in zip(groups.names, members_of(groups), strict=True)
        if members.size
    ]
    return with_holm(found)


def members_of(groups: Groups) -> list[NDArray[np.int64]]:
    """Returns the ascending row positions of every group, in the order of its names."""
    order = np.argsort(groups.codes, kind="stable")
    ends = np.cumsum(np.bincount(groups.codes, minlength=len(groups.names)))
    return np.split(order, ends[:-1])


def binary_figures(rows: Rows) -> tuple[Figure, ...]:
    """Returns the figures of a group of rows of a binary task, those that `Segment` names."""
    before, after = rows.decided
    counts = count(rows.labels, before, after)
    return (
        auc_figure(rows),
        selection_rate(counts, rows.favourable, rows.level),
        agreement(counts, rows.level),
        mean_figure("mean_score", rows.baseline, rows.candidate, rows.level),
        rate_of_label(counts, 1, 1, "true_positive_rate", rows.level),
        rate_of_label(counts, 0, 1, "false_positive_rate", rows.level),
        mean_figure("calibration_gap", rows.baseline - rows.labels, rows.candidate - rows.labels, rows.level),
    )


def auc_figure(rows: Rows) -> Figure:
    """Returns the AUC with DeLong's interval; None of one class, no interval with fewer than 10 rows of a class."""
    positives = int(np.count_nonzero(rows.labels))
    sizes = (positives, rows.labels.size - positives)
    if not min(sizes):
        return Figure("auc", None, note=f"undefined: all {rows.labels.size:,} rows are of one class")
    found = delong_paired(rows.labels, rows.baseline, rows.candidate)
    if np.array_equal(rows.baseline, rows.candidate):
        interval: Interval | None = Interval(0.0, 0.0, rows.level, "equal scores")
        return Figure("auc", found.auc_b, found.auc_a, 0.0, interval)
    if min(sizes) < CLASS_ROWS_MIN:
        note = f"no interval: {sizes[0]:,} positive and {sizes[1]:,} negative rows"
        return Figure("auc", found.auc_b, found.auc_a, found.difference, note=note)
    return Figure("auc", found.auc_b, found.auc_a, found.difference, found.interval(rows.level))


def pattern_p_value(counts: Counts) -> float | None:
    """Returns the p-value of unchanged predictive patterns; None where no decision changed. See `compare_segments`."""
    flips = [(int(counts.table[label, 0, 1]), int(counts.table[label, 1, 0])) for label in (0, 1)]
    flips = [pair for pair in flips if sum(pair)]
    if not flips:
        return None
    if sum(map(sum, flips)) >= CHI_SQUARED_MIN:
        statistic = sum((up - down) ** 2 / (up + down) for up, down in flips)
        return float(chdtrc(len(flips), statistic))
    chances = np.ones(1)
    seen = 1.0
    for up, down in flips:
        each = binom.pmf(np.arange(up + down + 1), up + down, 0.5)
        chances = np.outer(chances, each).ravel()
        seen *= float(each[up])
    # Outcomes as likely as the one seen, rounding aside, count too.
    return min(1.0, float(chances[chances <= seen * (1 + 1e-9)].sum()))


def with_holm(segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """Returns the segments with p-values adjusted for their number."""
    tested = [index for index, item in enumerate(segments) if item.p_value is not None and not item.small]
    adjusted = dict(zip(tested, holm([segments[index].p_value or 0.0 for index in tested]), strict=True))
    return tuple(replace(item, adjusted_p_value=adjusted.get(index)) for index, item in enumerate(segments))


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns Holm's step-down adjusted p-values, in the order given."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def worst_segment(segments: Sequence[Segment], name: str = "auc") -> str:
    """Returns the title of the segment that loses most of a figure, small ones left out; empty where none loses."""
    losses = {
        item.title: figure.difference
        for item in segments
        if not item.small and (figure := item.figure(name)) is not None and figure.difference is not None
    }
    worst = min(losses, key=losses.__getitem__, default="")
    return worst if worst and losses[worst] < 0 else ""


def _segment(rows: Rows, groups: Groups, name: str, rows_min: int) -> Segment:
    before, after = rows.decided
    small = rows.labels.size < rows_min
    notes = [groups.note, f"fewer than {rows_min} rows: no rule of the gate judges it" if small else ""]
    return Segment(
        column=groups.column,
        name=name,
        rows=rows.labels.size,
        positives=int(np.count_nonzero(rows.labels)),
        small=small,
        figures=binary_figures(rows),
        p_value=pattern_p_value(count(rows.labels, before, after)),
        note="; ".join(note for note in notes if note),
    )


def general_segments(answers: Answers, columns: Sequence[Groups], *, rows_min: int) -> tuple[Segment, ...]:
    """Returns the segments of a multi-class or regression task, with the figures of its answers.

    Args:
        answers: All rows.
        columns: How they fall into groups.
        rows_min: Segments of fewer rows are marked small.
    """
    found = []
    for groups in columns:
        for name, members in zip(groups.names, members_of(groups), strict=True):
            if members.size:
                small = members.size < rows_min
                note = f"fewer than {rows_min} rows: no rule of the gate judges it" if small else groups.note
                figures = answers.of(members).figures()
                found.append(Segment(groups.column, name, int(members.size), None, small, figures, note=note))
    return tuple(found)

"""How well scores order positive rows above negative ones: AUC, Gini, KS, and the paired comparison of two AUCs.

Labels are booleans, `[rows]`, with both classes present; scores are finite, `[rows]`, higher for positive.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from compress.errors import DataError
from compress.evidence import Interval

# An interval that rests on fewer rows than this misses rare large changes.
INFORMATIVE_ROWS_MIN = 10

Labels = NDArray[np.bool_]
Floats = NDArray[np.float64]


def midranks(values: Floats) -> Floats:
    """Returns ranks from 1, equal values sharing the mean of theirs; shape `[rows]`."""
    order = np.argsort(values)
    ordered = values[order]
    first = np.concatenate(([True], ordered[1:] != ordered[:-1]))
    starts = np.flatnonzero(first)
    ends = np.append(starts[1:], values.size)
    ranks = np.empty(values.size)
    ranks[order] = ((starts + 1 + ends) / 2)[np.cumsum(first) - 1]
    return ranks


def auc(labels: Labels, scores: Floats) -> float:
    """Returns the area under the ROC curve: P(positive above negative) + P(tie) / 2.

    The Mann-Whitney U statistic from midranks, over the number of pairs.

    Raises:
        DataError: If a class has no rows.
    """
    positives, negatives = _class_sizes(labels)
    rank_sum = float(midranks(scores)[labels].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def gini(labels: Labels, scores: Floats) -> float:
    """Returns the Gini coefficient (Somers' D, accuracy ratio): 2 AUC - 1.

    Raises:
        DataError: If a class has no rows.
    """
    return 2 * auc(labels, scores) - 1


def ks(labels: Labels, scores: Floats) -> float:
    """Returns the Kolmogorov-Smirnov statistic: the largest distance between the classes' score distributions.

    Raises:
        DataError: If a class has no rows.
    """
    return float(weighted_ks(labels, scores)(np.ones((1, labels.size)))[0])


def weighted_ks(labels: Labels, scores: Floats) -> Callable[[Floats], Floats]:
    """Returns a function from row weights `[resamples, rows]` to KS `[resamples]`; the rows are sorted only once.

    The weights must sum to the number of rows within each class, as those of a stratified resample do.

    Raises:
        DataError: If a class has no rows.
    """
    positives, negatives = _class_sizes(labels)
    order = np.argsort(scores)
    ordered = scores[order]
    # Whole numbers up to 2^53 are exact in float64, so equal inputs give equal statistics to the last bit.
    steps = np.where(labels[order], float(negatives), -float(positives))
    last_of_tie = np.append(ordered[1:] != ordered[:-1], True)
    columns = None if last_of_tie.all() else np.flatnonzero(last_of_tie)

    def statistic(weights: Floats) -> Floats:
        gap = weights.take(order, axis=1)
        gap *= steps
        np.cumsum(gap, axis=1, out=gap)
        if columns is not None:
            gap = gap.take(columns, axis=1)
        largest: Floats = np.maximum(gap.max(axis=1), -gap.min(axis=1)) / (positives * negatives)
        return largest

    return statistic


def ks_informative_rows(labels: Labels, a: Floats, b: Floats) -> float:
    """Returns how many rows the difference of two KS rests on: those that lie on the other side of the widest gap.

    The effective number, see `effective_rows`, each row counting as one of its class; 0 where no row changed sides.

    Raises:
        DataError: If a class has no rows.
    """
    positives, negatives = _class_sizes(labels)
    below = [scores <= _widest_gap(labels, scores) for scores in (a, b)]
    moved = below[1].astype(np.float64) - below[0]
    return effective_rows(moved / np.where(labels, positives, negatives))


def _widest_gap(labels: Labels, scores: Floats) -> float:
    """The score at which the distributions of the classes are farthest apart."""
    order = np.argsort(scores)
    ordered, positive = scores[order], labels[order]
    last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    hits, false = np.cumsum(positive)[last], np.cumsum(~positive)[last]
    return float(ordered[last[np.abs(hits / hits[-1] - false / false[-1]).argmax()]])


def drawn_ks(labels: Labels, scores: Floats) -> Callable[[Floats], Floats]:
    """Returns a function from any weights `[resamples, cells]` to KS `[resamples]`, each class as its own whole.

    Args:
        labels: `[cells]`.
        scores: `[cells]`.

    Raises:
        DataError: If a class has no rows.
    """
    _class_sizes(labels)
    order = np.argsort(scores)
    ordered, positive = scores[order], labels[order].astype(np.float64)
    last_of_tie = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))

    def statistic(weights: Floats) -> Floats:
        drawn = weights.take(order, axis=1)
        of_positives = drawn @ positive
        of_negatives = drawn.sum(axis=1) - of_positives
        drawn *= positive / of_positives[:, None] - (1 - positive) / of_negatives[:, None]
        np.cumsum(drawn, axis=1, out=drawn)
        largest: Floats = np.abs(drawn.take(last_of_tie, axis=1)).max(axis=1)
        return largest

    return statistic


@dataclass(frozen=True)
class PairedAuc:
    """Two AUCs on the same rows. `difference` is b - a; `variance` is None with fewer than two rows in a class.

    `informative_rows` is how many rows the variance rests on, the smaller class deciding: the effective number
    (sum d^2)^2 / sum d^4 of the rows' contributions d. Below about 10 the normal approximation is optimistic.
    """

    auc_a: float
    auc_b: float
    difference: float
    variance: float | None
    informative_rows: float

    @property
    def standard_error(self) -> float | None:
        """The standard error of the difference."""
        return None if self.variance is None else float(np.sqrt(self.variance))

    def interval(self, level: float) -> Interval | None:
        """Returns the interval of the difference within [-1, 1]; None where the variance is undefined.

        Student's with one degree of freedom less than there are informative rows, which is the normal one where there
        are many: a variance that hangs on few rare, large changes is itself a guess.
        """
        error = self.standard_error
        if error is None:
            return None
        method = "DeLong"
        if 0 < self.informative_rows < INFORMATIVE_ROWS_MIN:
            method = "DeLong, Student's t on few informative rows"
        half = float(stdtrit(max(1.0, self.informative_rows - 1), (1 + level) / 2)) * error
        return Interval(max(-1.0, self.difference - half), min(1.0, self.difference + half), level, method)


def delong_paired(labels: Labels, a: Floats, b: Floats) -> PairedAuc:
    """Compares the AUCs of two scores of the same rows.

    DeLong, DeLong & Clarke-Pearson (1988), Biometrics 44:837; the placement values come from midranks in
    O(rows log rows), Sun & Xu (2014), IEEE Signal Processing Letters 21:1389.

    Raises:
        DataError: If a class has no rows.
    """
    positives, negatives = _class_sizes(labels)
    of_positives_a, of_negatives_a = _placements(labels, a)
    of_positives_b, of_negatives_b = _placements(labels, b)
    # The difference of placements before the variance: equal scores then give exactly zero.
    shift_positives, shift_negatives = of_positives_b - of_positives_a, of_negatives_b - of_negatives_a
    variance = None
    if min(positives, negatives) > 1:
        variance = float(shift_positives.var(ddof=1)) / positives + float(shift_negatives.var(ddof=1)) / negatives
    auc_a, auc_b = auc(labels, a), auc(labels, b)
    informative = min(effective_rows(shift_positives), effective_rows(shift_negatives))
    return PairedAuc(auc_a, auc_b, auc_b - auc_a, variance, informative)


def effective_rows(contributions: Floats) -> float:
    """Returns (sum d^2)^2 / sum d^4: the rows' number if all contribute alike, 1 if a single one does, 0 if none."""
    largest = float(np.abs(contributions).max(initial=0.0))
    if largest == 0:
        return 0.0
    squares = np.square(contributions / largest)
    return float(squares.sum() ** 2 / np.square(squares).sum())


def _placements(labels: Labels, scores: Floats) -> tuple[Floats, Floats]:
    """The share of the other class that each positive beats, and by which each negative is beaten; ties half."""
    positives, negatives = _class_sizes(labels)
    ranks = midranks(scores)
    of_positives = (ranks[labels] - midranks(scores[labels])) / negatives
    of_negatives = 1 - (ranks[~labels] - midranks(scores[~labels])) / positives
    return of_positives, of_negatives


def _class_sizes(labels: Labels) -> tuple[int, int]:
    positives = int(np.count_nonzero(labels))
    negatives = labels.size - positives
    if not positives or not negatives:
        raise DataError(
            f"{positives:,} positive and {negatives:,} negative rows: a ranking metric needs both classes",
            "use a split that holds both.",
        )
    return positives, negatives

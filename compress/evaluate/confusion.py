"""Right and wrong classes: macro F1 as a figure, on weighted rows, and how much it hangs on few rows; recall a class.

Labels and decisions are the numbers of classes, `[rows]`, int64. Only classes that occur among the labels count: with
the others the average would depend on what is predicted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Classes = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RecallChange:
    """How many rows of one class are recognised only now, only before, and how many rows it has."""

    label: int
    rows: int
    right_before: int
    right_after: int
    gained: int
    lost: int

    @property
    def difference(self) -> float:
        """Recall after minus recall before."""
        return (self.gained - self.lost) / self.rows


def macro_f1(labels: Classes, decided: Classes, classes: int) -> float:
    """Returns the unweighted mean over classes of F1 = 2 TP / (2 TP + FP + FN)."""
    return float(weighted_macro_f1(labels, decided, classes)(np.ones((1, labels.size)))[0])


def weighted_macro_f1(labels: Classes, decided: Classes, classes: int) -> Callable[[Floats], Floats]:
    """Returns a function from row weights `[resamples, rows]` to macro F1 `[resamples]`.

    A class that a resample neither holds nor predicts has F1 of 0, as in scikit-learn.
    """
    occurring = np.bincount(labels, minlength=classes) > 0
    right = labels == decided
    # One matrix gives the denominators, labels + predictions, the other the hits; a row holds a class.
    either = (_members(labels, classes) + _members(decided, classes))[occurring]
    both = _members(np.where(right, labels, -1), classes)[occurring]

    def statistic(weights: Floats) -> Floats:
        counts = np.ascontiguousarray(weights.T)
        hits, total = 2 * (both @ counts), either @ counts
        scores: Floats = np.divide(hits, total, out=np.zeros_like(hits), where=total > 0).mean(axis=0)
        return scores

    return statistic


def recall_changes(labels: Classes, before: Classes, after: Classes, classes: int) -> tuple[RecallChange, ...]:
    """Returns what changed in every class that occurs among the labels, in the order of the classes."""
    was, now = before == labels, after == labels
    columns = (
        np.bincount(labels[chosen], minlength=classes)
        for chosen in (np.ones(labels.size, dtype=np.bool_), was, now, now & ~was, was & ~now)
    )
    return tuple(
        RecallChange(label, *(int(count) for count in counts))
        for label, counts in enumerate(zip(*columns, strict=True))
        if counts[0]
    )


def _members(of_rows: Classes, classes: int) -> sparse.csr_array:
    """The indicator matrix `[classes, rows]`; a row of class -1 belongs to none."""
    rows = np.flatnonzero(of_rows >= 0)
    return sparse.csr_array((np.ones(rows.size), (of_rows[rows], rows)), shape=(classes, of_rows.size))

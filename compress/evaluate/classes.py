"""Precision, recall and F1 of every class of a multi-class task, by baseline and candidate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from compress.evaluate.binary_counts import count, precision_recall_f1
from compress.review import ClassFigures

Classes = NDArray[np.int64]


def compare_classes(
    labels: Classes,
    before: Classes,
    after: Classes,
    names: Sequence[str],
    *,
    classes: int,
    resamples: int,
    seed: int,
    level: float,
) -> tuple[ClassFigures, ...]:
    """Returns the figures of every class that occurs among the labels: one class against all others.

    Args:
        labels: Numbers of classes, `[rows]`.
        before: The classes that the baseline decides for, `[rows]`.
        after: The same by the candidate.
        names: Of the classes, in their order; may be empty.
        classes: Number of classes.
        resamples: Number of bootstrap draws.
        seed: Of the draws.
        level: The confidence level.
    """
    found = []
    for label in range(classes):
        rows = int(np.count_nonzero(labels == label))
        if rows:
            counts = count(labels == label, before == label, after == label)
            figures = precision_recall_f1(counts, resamples=resamples, seed=seed, level=level)
            found.append(ClassFigures(label, names[label] if label < len(names) else "", rows, figures))
    return tuple(found)

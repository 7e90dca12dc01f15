"""The interval of a change of expected calibration error, of two models on the same rows.

The error is a sum of absolute values over bins, and what it is made of is noisy: where a model is well calibrated it is
overstated, by more than a candidate's shift may be. A bootstrap repeats that, and lets a shift of the very size of the
bound pass. But both models face the same labels. In a bin let `rho` be the baseline's true gap, known
but for the labels' noise, and `delta` what the candidate takes from it, known nearly exactly. The change is
`|rho - delta| - |rho|`, at most `|delta|`, and the bad end of the interval is its largest value over all `rho` that the
labels allow. A candidate with nearly the baseline's scores thus has a short interval, however few the labels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from compress.evaluate.discrimination import effective_rows
from compress.review import Figure, Interval

Floats = NDArray[np.float64]
Places = NDArray[np.int64]

METHOD = "paired normal over bins, the bad end over all gaps of the baseline that the labels allow"


@dataclass(frozen=True, eq=False)
class Gaps:
    """Label minus score of every row by both models, and the bin that each puts it in, `[rows]` each."""

    before: Floats
    after: Floats
    bins_before: Places
    bins_after: Places


def gaps_of(
    labels: NDArray[np.bool_], before: Floats, after: Floats, bins: int, labels_after: NDArray[np.bool_] | None = None
) -> Gaps:
    """Returns the gaps of two scores of the same rows, `[rows]`.

    Args:
        labels: What is scored.
        before: Probabilities by the baseline.
        after: The same by the candidate.
        bins: At most so many bins of about equal numbers of rows, each model its own.
        labels_after: What the candidate scores, where that is something else: whether its own answer is right.
    """
    of_after = labels if labels_after is None else labels_after
    return Gaps(labels - before, of_after - after, bin_rows(before, bins), bin_rows(after, bins))


def bins_of(scores: Floats, bins: int) -> Floats:
    """Returns the inner edges of at most `bins` bins of about equal numbers of rows, ascending."""
    edges: Floats = np.unique(np.quantile(scores, np.arange(1, bins) / bins))
    inner: Floats = edges[edges > scores.min()]
    return inner


def bin_rows(scores: Floats, bins: int) -> Places:
    """Returns the bin of every row, `[rows]`; equal scores share one."""
    return np.searchsorted(bins_of(scores, bins), scores, side="right").astype(np.int64)


def ece_figure(name: str, classes: Iterable[Gaps], bins: int, level: float) -> Figure:
    """Returns the mean calibration error over classes (one, for a binary task) of both, and its change.

    Args:
        name: Of the figure.
        classes: One `Gaps` a class, over the same rows.
        bins: How many bins a model can have.
        level: The confidence level.
    """
    gaps = list(classes)
    tail = (1 - level) / 2
    # Every bin of every class must hold, with the tail's chance together.
    z = float(ndtri(1 - tail / (bins * len(gaps))))
    before, after, worst, best = (
        sum(parts) / len(gaps) for parts in zip(*(_adds(item, z) for item in gaps), strict=True)
    )
    difference = float((after - before).mean())
    low = max(difference - _half(after - before, tail), float(best.mean()) - _half(best, tail))
    high = float(worst.mean()) + _half(worst, tail)
    interval = Interval(min(low, difference), max(high, difference), level, METHOD)
    return Figure(name, float(after.mean()), float(before.mean()), difference, interval)


def _adds(gaps: Gaps, z: float) -> tuple[Floats, Floats, Floats, Floats]:
    """What each row adds, `[rows]`: to the baseline's error, to the candidate's, to the change at worst and at best."""
    size = int(max(gaps.bins_before.max(), gaps.bins_after.max())) + 1
    rho, of_after, squares = (
        np.bincount(bins, weights=values, minlength=size)
        for bins, values in (
            (gaps.bins_before, gaps.before),
            (gaps.bins_after, gaps.after),
            (gaps.bins_before, np.square(gaps.before)),
        )
    )
    delta = rho - of_after
    noise = np.sqrt(np.maximum(squares - np.square(rho) / gaps.before.size, 0.0))

    def change(true: Floats) -> Floats:
        # Spread over the rows by what each adds to delta: a row that stays in its bin adds next to nothing.
        of_bins = np.abs(true - delta) - np.abs(true)
        side = np.divide(of_bins, delta, out=np.zeros_like(delta), where=delta != 0)
        rows: Floats = side[gaps.bins_before] * gaps.before - side[gaps.bins_after] * gaps.after
        return rows

    was = np.sign(rho)[gaps.bins_before] * gaps.before
    now = np.sign(of_after)[gaps.bins_after] * gaps.after
    away = np.sign(delta) * z * noise
    return was, now, change(rho - away), change(rho + away)


def _half(values: Floats, tail: float) -> float:
    """Half the length of the interval of a mean: Student's, with as many degrees as there are rows that matter."""
    freedom = max(1.0, effective_rows(values - values.mean()) - 1)
    return float(stdtrit(freedom, 1 - tail) * values.std() / np.sqrt(values.size))

"""Calibration by bins: expected calibration error, the parts of the Brier score, reliability curves.

Bins hold about equal numbers of rows: they are cut at the quantiles of the scores that they sort, so each model has its
own. A score that occurs often may leave fewer bins.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from compress.evaluate.binary_counts import centred
from compress.evaluate.cells import Cells, gather
from compress.evaluate.ece_change import bins_of, ece_figure, gaps_of
from compress.evaluate.shares import wilson_interval
from compress.review import Calibration, Figure, Interval, ReliabilityPoint

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

# Parts of the Brier score, and the error itself, in the order in which they are computed together.
NAMES = ("ece", "reliability", "resolution", "uncertainty", "calibration_gap")


def compare_calibration(
    labels: Bools, baseline: Floats, candidate: Floats, *, bins: int, resamples: int, seed: int, level: float
) -> Calibration:
    """Returns how well two models' probabilities of the same rows are calibrated.

    1. `ece` is the mean over rows of |share of positives - mean score| of the row's bin (Naeini et al. 2015, AAAI).
    2. `reliability`, `resolution`, `uncertainty` are Murphy's (1973, J. Applied Meteorology 12:595) parts of the Brier
       score: Brier = reliability - resolution + uncertainty but for the spread of scores within bins.
    3. `calibration_gap` is the mean score minus the share of positives.
    4. The interval of the change of `ece` is that of `ece_figure`; the others come from a paired bootstrap with fixed
       bins, centred on the estimate.

    Args:
        labels: `[rows]`.
        baseline: Probabilities by the baseline, `[rows]`.
        candidate: The same by the candidate.
        bins: Number of bins, 2 or more.
        resamples: Number of draws.
        seed: Of the draws.
        level: The confidence level.
    """
    of_before, of_after = (_estimate(labels, scores, bins) for scores in (baseline, candidate))
    identical = bool(np.array_equal(baseline, candidate))
    replicates = _replicates(gather(labels, baseline, candidate), bins, resamples, seed)
    figures = []
    for column, name in enumerate(NAMES):
        difference = float(of_after[column] - of_before[column])
        if identical:
            interval: Interval | None = Interval(0.0, 0.0, level, "equal scores")
        elif name == "ece":
            interval = ece_figure(name, [gaps_of(labels, baseline, candidate, bins)], bins, level).interval
        else:
            interval = centred(difference, replicates[1][:, column] - replicates[0][:, column], level, replicates[2])
        figures.append(Figure(name, float(of_after[column]), float(of_before[column]), difference, interval))
    own = [
        _not_negative(centred(float(figure[0]), found[:, 0], level, replicates[2]))
        for figure, found in ((of_before, replicates[0]), (of_after, replicates[1]))
    ]
    return Calibration(
        figures=tuple(figures),
        baseline_ece_interval=own[0],
        candidate_ece_interval=own[1],
        baseline_curve=curve(labels, baseline, bins, level),
        candidate_curve=curve(labels, candidate, bins, level),
    )


def ece_interval(
    labels: Bools, scores: Floats, *, bins: int, resamples: int, seed: int, level: float
) -> Interval | None:
    """Returns the interval of one model's own calibration error; None where it is not defined."""
    found, _, method = _replicates(gather(labels, scores, scores), bins, resamples, seed)
    return _not_negative(centred(ece(labels, scores, bins), found[:, 0], level, method))


def ece(labels: Bools, scores: Floats, bins: int) -> float:
    """Returns the expected calibration error over bins of about equal numbers of rows."""
    return float(_estimate(labels, scores, bins)[0])


def curve(labels: Bools, scores: Floats, bins: int, level: float) -> tuple[ReliabilityPoint, ...]:
    """Returns the reliability curve, with Wilson's interval of each bin's share of positives."""
    edges = bins_of(scores, bins)
    place = np.searchsorted(edges, scores, side="right")
    ends = [float(scores.min()), *edges.tolist(), float(scores.max())]
    rows = np.bincount(place, minlength=edges.size + 1)
    positives = np.bincount(place[labels], minlength=edges.size + 1)
    sums = np.bincount(place, weights=scores, minlength=edges.size + 1)
    return tuple(
        ReliabilityPoint(
            low=ends[index],
            high=ends[index + 1],
            rows=int(rows[index]),
            mean_score=float(sums[index] / rows[index]),
            positive_rate=float(positives[index] / rows[index]),
            interval=wilson_interval(int(positives[index]), int(rows[index]), level),
        )
        for index in range(edges.size + 1)
        if rows[index]
    )


def _replicates(cells: Cells, bins: int, resamples: int, seed: int) -> tuple[Floats, Floats, str]:
    """All figures of both on every draw, `[resamples, len(NAMES)]` each, and the method's name."""
    both = [
        _figures(cells.labels, scores, _edges_of_cells(scores, cells.rows, bins))
        for scores in (cells.baseline, cells.candidate)
    ]
    found: tuple[list[Floats], list[Floats]] = ([], [])
    for weights in cells.draws(resamples, seed):
        for figures, kept in zip(both, found, strict=True):
            kept.append(figures(weights))
    return np.concatenate(found[0]), np.concatenate(found[1]), cells.method


def _edges_of_cells(scores: Floats, rows: Floats, bins: int) -> Floats:
    if rows.max() == 1:
        return bins_of(scores, bins)
    order = np.argsort(scores)
    reached = np.cumsum(rows[order]) / rows.sum()
    at = np.searchsorted(reached, np.arange(1, bins) / bins)
    edges: Floats = np.unique(scores[order][np.minimum(at, scores.size - 1)])
    inner: Floats = edges[edges > scores.min()]
    return inner


def _estimate(labels: Bools, scores: Floats, bins: int) -> Floats:
    """The figures of `NAMES` on the rows as they are."""
    edges = bins_of(scores, bins)
    place, size = np.searchsorted(edges, scores, side="right"), edges.size + 1
    rows = np.bincount(place, minlength=size).astype(np.float64)
    positives = np.bincount(place[labels], minlength=size).astype(np.float64)
    sums: Floats = np.bincount(place, weights=scores, minlength=size).astype(np.float64)
    figures: Floats = _of_sums(rows[None], positives[None], sums[None])[0]
    return figures


def _figures(labels: Bools, scores: Floats, edges: Floats) -> Callable[[Floats], Floats]:
    """A function from weights `[draws, cells]` to the figures of `NAMES`, `[draws, 5]`, over fixed bins."""
    size = edges.size + 1
    members = np.zeros((labels.size, size))
    members[np.arange(labels.size), np.searchsorted(edges, scores, side="right")] = 1.0
    columns = np.concatenate([members, members * labels[:, None], members * scores[:, None]], axis=1)

    def figures(weights: Floats) -> Floats:
        summed = weights @ columns
        return _of_sums(summed[:, :size], summed[:, size : 2 * size], summed[:, 2 * size :])

    return figures


def _of_sums(rows: Floats, positives: Floats, scores: Floats) -> Floats:
    """The figures of `NAMES` from the rows, the positive rows and the summed scores of each bin, `[draws, bins]`."""
    total = rows.sum(axis=1, keepdims=True)
    share = np.divide(positives, rows, out=np.zeros_like(rows), where=rows > 0)
    mean = np.divide(scores, rows, out=np.zeros_like(rows), where=rows > 0)
    base, weight, gap = positives.sum(axis=1, keepdims=True) / total, rows / total, share - mean
    return np.stack(
        [
            (weight * np.abs(gap)).sum(axis=1),
            (weight * np.square(gap)).sum(axis=1),
            (weight * np.square(share - base)).sum(axis=1),
            (base * (1 - base))[:, 0],
            (scores.sum(axis=1) - positives.sum(axis=1)) / total[:, 0],
        ],
        axis=1,
    )


def _not_negative(interval: Interval | None) -> Interval | None:
    return interval and Interval(max(0.0, interval.low), interval.high, interval.level, interval.method)

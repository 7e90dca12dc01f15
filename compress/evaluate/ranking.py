"""How scores order rows, beyond one figure: average precision, the ROC curve, lift by decile."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from compress.evaluate.binary_counts import centred
from compress.evaluate.cells import gather
from compress.review import Figure, Interval, Lift, Ranking, RocPoint

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

# Points of a curve that is kept: enough for a plot.
ROC_POINTS = 100
DECILES = 10


def compare_ranking(
    labels: Bools, baseline: Floats, candidate: Floats, *, resamples: int, seed: int, level: float
) -> Ranking:
    """Returns `average_precision` of both with the interval of the change, their ROC curves, and lift by decile.

    Args:
        labels: `[rows]`, with both classes.
        baseline: Scores by the baseline, `[rows]`, higher for positive.
        candidate: The same by the candidate.
        resamples: Number of bootstrap draws.
        seed: Of the draws.
        level: The confidence level.
    """
    before, after = average_precision(labels, baseline), average_precision(labels, candidate)
    if np.array_equal(baseline, candidate):
        interval: Interval | None = Interval(0.0, 0.0, level, "equal scores")
    else:
        cells = gather(labels, baseline, candidate)
        of = [weighted_average_precision(cells.labels, scores) for scores in (cells.baseline, cells.candidate)]
        replicates = np.concatenate([of[1](weights) - of[0](weights) for weights in cells.draws(resamples, seed)])
        interval = centred(after - before, replicates, level, cells.method)
    return Ranking(
        figures=(Figure("average_precision", after, before, after - before, interval),),
        baseline_roc=roc(labels, baseline),
        candidate_roc=roc(labels, candidate),
        lift=lift(labels, baseline, candidate),
    )


def average_precision(labels: Bools, scores: Floats) -> float:
    """Returns the average precision: the sum over thresholds of precision times the gain in recall, ties together."""
    return float(weighted_average_precision(labels, scores)(np.ones((1, labels.size)))[0])


def weighted_average_precision(labels: Bools, scores: Floats) -> Callable[[Floats], Floats]:
    """Returns a function from row weights `[resamples, rows]` to average precision `[resamples]`.

    The rows are sorted only once. A draw without positive rows gives NaN.
    """
    order = np.argsort(-scores, kind="stable")
    ordered, positive = scores[order], labels[order].astype(np.float64)
    last_of_tie = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))

    def statistic(weights: Floats) -> Floats:
        drawn = weights.take(order, axis=1)
        above = np.cumsum(drawn, axis=1).take(last_of_tie, axis=1)
        drawn *= positive
        hits = np.cumsum(drawn, axis=1).take(last_of_tie, axis=1)
        precision = np.divide(hits, above, out=np.zeros_like(hits), where=above > 0)
        summed = (precision * np.diff(hits, axis=1, prepend=0.0)).sum(axis=1)
        found: Floats = np.divide(summed, hits[:, -1], out=np.full_like(summed, np.nan), where=hits[:, -1] > 0)
        return found

    return statistic


def roc(labels: Bools, scores: Floats, points: int = ROC_POINTS) -> tuple[RocPoint, ...]:
    """Returns the ROC curve from (0, 0) to (1, 1), thinned to about `points` points of even length along it.

    The point of the largest distance, KS, is always kept. The first threshold is that of the highest score: no row lies
    above it, so it stands for "none".
    """
    order = np.argsort(-scores, kind="stable")
    ordered, positive = scores[order], labels[order]
    last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    hits, false = np.cumsum(positive)[last], np.cumsum(~positive)[last]
    true_rate, false_rate = hits / hits[-1], false / false[-1]
    # Even steps along the curve, not along the rows: its steep beginning is what a reader looks at.
    along = (true_rate + false_rate) / 2
    kept = np.searchsorted(along, np.linspace(0, 1, points))
    kept = np.unique([*np.minimum(kept, last.size - 1), int(np.argmax(true_rate - false_rate)), last.size - 1])
    start = RocPoint(float(ordered[0]), 0.0, 0.0)
    return (
        start,
        *(RocPoint(float(ordered[last[at]]), float(false_rate[at]), float(true_rate[at])) for at in kept.tolist()),
    )


def lift(labels: Bools, baseline: Floats, candidate: Floats) -> tuple[Lift, ...]:
    """Returns the lift of each tenth of the rows, the highest scores first; of equal scores the earlier row."""
    base = labels.mean()
    ranked = [labels[np.argsort(-scores, kind="stable")] for scores in (baseline, candidate)]
    ends = np.linspace(0, labels.size, DECILES + 1).astype(np.int64)
    return tuple(
        Lift(
            decile=index + 1,
            rows=stop - start,
            baseline=float(ranked[0][start:stop].mean() / base),
            candidate=float(ranked[1][start:stop].mean() / base),
        )
        for index, (start, stop) in enumerate(itertools.pairwise(ends.tolist()))
        if stop > start
    )

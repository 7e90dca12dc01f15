"""The paired bootstrap: rows drawn again with replacement, baseline and candidate scored on the same draw.

Draws are stratified: each keeps the number of rows of every class (Davison & Hinkley 1997, Bootstrap Methods, 3.2).
A draw is a row of counts, so any statistic of weighted rows can be added, and one draw serves all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtrit

from compress.evaluate.discrimination import weighted_ks
from compress.evidence import Interval

Floats = NDArray[np.float64]
# From counts [resamples, rows] to figures [resamples, figures].
Statistic = Callable[[Floats], Floats]

# Counts held at a time, 8 bytes each; a statistic may hold two copies beside them.
CELLS = 1 << 20

BCA = "paired bootstrap stratified by label, BCa"
CENTRED = "paired bootstrap stratified by label, percentile, centred on the estimate"
NORMAL = "paired normal"
CENTRED_PLAIN = "paired bootstrap, percentile, centred on the estimate"


def draws(strata: NDArray[np.generic], resamples: int, seed: int) -> Iterator[Floats]:
    """Yields how often each row was drawn, `[some resamples, rows]`, until `resamples` were drawn.

    Args:
        strata: The class of each row, `[rows]`; each draw keeps its number of rows in every class.
        resamples: Number of draws.
        seed: Equal seeds give equal draws.
    """
    generator = np.random.default_rng(seed)
    members = [np.flatnonzero(strata == value) for value in np.unique(strata)]
    together = max(1, CELLS // strata.size)
    for start in range(0, resamples, together):
        count = min(together, resamples - start)
        weights = np.empty((count, strata.size))
        for rows in members:
            drawn = generator.integers(0, rows.size, size=(count, rows.size), dtype=np.int64)
            drawn += np.arange(count)[:, None] * rows.size
            weights[:, rows] = np.bincount(drawn.ravel(), minlength=count * rows.size).reshape(count, rows.size)
        yield weights


def replicate(strata: NDArray[np.generic], statistics: Sequence[Statistic], *, resamples: int, seed: int) -> Floats:
    """Returns every statistic on every draw, `[resamples, figures]`, the figures of all statistics side by side."""
    chunks = [
        np.concatenate([statistic(weights) for statistic in statistics], axis=1)
        for weights in draws(strata, resamples, seed)
    ]
    return np.concatenate(chunks)


def mean_of(values: Floats) -> Statistic:
    """Returns the statistic "weighted mean over rows" of per-row values `[rows, figures]`."""
    return lambda weights: weights @ values / values.shape[0]


def ks_difference(labels: NDArray[np.bool_], baseline: Floats, candidate: Floats) -> Statistic:
    """Returns the statistic "KS of the candidate minus KS of the baseline", one figure."""
    before, after = weighted_ks(labels, baseline), weighted_ks(labels, candidate)
    return lambda weights: (after(weights) - before(weights))[:, None]


def bca_of_mean(strata: NDArray[np.generic], values: Floats, replicates: Floats, level: float) -> Interval:
    """Returns the bias-corrected and accelerated interval of the mean of per-row values.

    Efron (1987), JASA 82:171. Rare large losses skew a mean; the plain percentile interval then ends too early on
    the bad side. The acceleration comes from the rows' deviations from their stratum's mean.

    Args:
        strata: The class of each row, `[rows]`.
        values: Per-row values, `[rows]`.
        replicates: Their mean on every draw, `[resamples]`.
        level: The confidence level.
    """
    estimate = float(values.mean())
    # Half of the equal replicates count as below: few rows that differ give few distinct replicates.
    below = float((replicates < estimate).mean() + (replicates <= estimate).mean()) / 2
    bias = float(ndtri(np.clip(below, 0.5 / replicates.size, 1 - 0.5 / replicates.size)))
    acceleration = _acceleration(strata, values)
    ends = np.array([-1.0, 1.0]) * ndtri((1 + level) / 2) + bias
    # At the pole the adjusted share is 0 or 1; the clip keeps an extreme skew on the right side of it.
    shares = ndtr(bias + ends / np.maximum(1 - acceleration * ends, 1e-6))
    low, high = np.quantile(replicates, shares)
    return Interval(float(low), float(high), level, BCA)


def centred_percentile(estimate: float, replicates: Floats, level: float, method: str = CENTRED) -> Interval:
    """Returns the percentile interval of the replicates, moved so that their mean lies on the estimate.

    For figures that are biased under resampling, such as KS: a maximum grows, more so for one score than for the other,
    and that bias is no loss.
    """
    moved = replicates + (estimate - replicates.mean())
    low, high = np.quantile(moved, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level, method)


def widened(interval: Interval, estimate: float, informative_rows: float) -> Interval:
    """Returns an interval as much wider as Student's is than the normal one, with a degree less than rows that matter.

    Draws of few rows that matter repeat these; how many there might have been they do not know.
    """
    if informative_rows <= 0:
        return interval
    tail = (1 + interval.level) / 2
    factor = float(stdtrit(max(1.0, informative_rows - 1), tail) / ndtri(tail))
    low, high = (estimate + factor * (end - estimate) for end in (interval.low, interval.high))
    return Interval(low, high, interval.level, interval.method)


def normal_of_mean(values: Floats, level: float) -> Interval:
    """Returns the normal interval of the mean of per-row values: with very many rows the bootstrap finds the same.

    Args:
        values: Per-row differences, `[rows]`, at least two.
        level: The confidence level.
    """
    mean = float(values.mean())
    half = float(ndtri((1 + level) / 2) * values.std(ddof=1) / np.sqrt(values.size))
    return Interval(mean - half, mean + half, level, NORMAL)


def _acceleration(strata: NDArray[np.generic], values: Floats) -> float:
    deviations = np.empty_like(values)
    for value in np.unique(strata):
        rows = strata == value
        deviations[rows] = values[rows] - values[rows].mean()
    largest = float(np.abs(deviations).max())
    if largest == 0:
        return 0.0
    scaled = deviations / largest
    return float((scaled**3).sum() / (6 * np.square(scaled).sum() ** 1.5))

"""From a histogram to the range that integers should hold: what lies outside is clipped for a finer step inside."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compress.calibrate.histogram import Histogram

Bounds = tuple[float, float]
Floats = NDArray[np.float64]

# What 8 bits count.
LEVELS = 256
# Thresholds that entropy tries: the largest magnitude, and down in steps of 2^(-1/16) to a 64th of it.
_RATIOS = 2.0 ** (-np.arange(97) / 16)
# Ends that the squared error tries on each side, as shares of what was seen.
_SHARES = np.linspace(1 / 64, 1, 64)
# What a bin without numbers counts for, as a share of all: a logarithm needs something.
_NOTHING = 1e-9


def largest_step(bits: int) -> int:
    """Returns the largest integer of a symmetric signed weight; 7 bits are ONNX Runtime's reduced range, -64 to 64."""
    return 64 if bits == 7 else 2 ** (bits - 1) - 1


def percentile(histogram: Histogram, share: float) -> Bounds:
    """Returns the range that holds the central `share` of all numbers, `(1 - share) / 2` being cut on each side.

    Numbers lie evenly within a bin as far as is known, so each end is within a bin's width of the exact quantile.
    """
    tail = (1 - share) / 2
    below = np.cumsum(histogram.counts)
    return _quantile(histogram, below, tail), _quantile(histogram, below, 1 - tail)


def entropy(histogram: Histogram) -> Bounds:
    """Returns the range whose 8-bit histogram differs least from the whole one, by Kullback-Leibler divergence.

    After Migacz, "8-bit inference with TensorRT" (GTC 2017), for ranges that need not be symmetric: a threshold `t`
    stands for `[max(low, -t), min(high, t)]`. The reference has what lies outside in its outermost bins; the
    candidate spreads the numbers of each of the 256 levels evenly over those of the level's bins that hold any.
    Zero is exact in integers whatever the range, so its bin counts as much as its neighbour (as in TensorRT's own).
    """
    counts = histogram.counts.astype(np.float64)
    edges, centres = histogram.edges, histogram.centres
    zero = np.flatnonzero(edges == 0)
    if len(zero) and len(counts) > 1:
        at = int(zero[0])
        counts[at] = counts[at + 1] if at + 1 < len(counts) else counts[at - 1]
    peak = max(abs(histogram.low), abs(histogram.high))
    best, result = np.inf, (histogram.low, histogram.high)
    for threshold in peak * _RATIOS:
        low, high = max(histogram.low, -threshold), min(histogram.high, threshold)
        divergence = _divergence(counts, centres, low, high)
        # The wider of two that are as good: nothing is clipped without a gain.
        if divergence < best - 1e-12:
            best, result = divergence, (float(low), float(high))
    return result


def squared_error(histogram: Histogram) -> Bounds:
    """Returns the range with the least squared error of 8-bit rounding and clipping, over all numbers.

    Each end is looked for in turn among 64 shares of what was seen, the other one held, until neither moves. Zero
    lies on the grid, as it does in integer arithmetic.
    """
    centres, counts = histogram.centres, histogram.counts.astype(np.float64)
    held = counts > 0
    centres, counts = centres[held], counts[held]
    least, most = min(histogram.low, 0.0), max(histogram.high, 0.0)
    low, high = least, most
    for _ in range(8):
        before = low, high
        if most > 0:
            ends = most * _SHARES
            high = float(ends[_least([_error(counts, centres, low, end) for end in ends])])
        if least < 0:
            ends = least * _SHARES
            low = float(ends[_least([_error(counts, centres, end, high) for end in ends])])
        if (low, high) == before:
            break
    return max(low, histogram.low), min(high, histogram.high)


def _quantile(histogram: Histogram, below: NDArray[np.int64], share: float) -> float:
    wanted = share * below[-1]
    at = int(np.searchsorted(below, wanted, side="left"))
    at = min(at, len(below) - 1)
    inside = (wanted - (below[at] - histogram.counts[at])) / histogram.counts[at] if histogram.counts[at] else 0.0
    value = float(histogram.edges[at]) + float(inside) * histogram.width
    return min(max(value, histogram.low), histogram.high)


def _divergence(counts: Floats, centres: Floats, low: float, high: float) -> float:
    inside = (centres >= low) & (centres <= high)
    within = counts[inside]
    if not within.size or high <= low:
        return np.inf
    reference = within.copy()
    reference[0] += counts[centres < low].sum()
    reference[-1] += counts[centres > high].sum()
    level = np.minimum((centres[inside] - low) / (high - low) * LEVELS, LEVELS - 1).astype(np.int64)
    filled = within > 0
    sums = np.bincount(level, weights=within, minlength=LEVELS)
    holders = np.bincount(level, weights=filled, minlength=LEVELS)
    spread = np.divide(sums, holders, out=np.zeros(LEVELS), where=holders > 0)
    candidate = np.where(filled, spread[level], 0.0)
    p = np.maximum(reference / reference.sum(), _NOTHING)
    q = np.maximum(candidate / max(candidate.sum(), 1.0), _NOTHING)
    return float((p * np.log(p / q)).sum())


def _error(counts: Floats, centres: Floats, low: float, high: float) -> float:
    step = (high - low) / (LEVELS - 1)
    if step <= 0:
        return float((counts * centres**2).sum())
    zero = np.rint(-low / step)
    rounded = (np.clip(np.rint(centres / step) + zero, 0, LEVELS - 1) - zero) * step
    return float((counts * (centres - rounded) ** 2).sum())


def _least(errors: list[float]) -> int:
    """Of ends that are as good, the outermost."""
    backwards = np.asarray(errors)[::-1]
    return len(errors) - 1 - int(np.argmin(backwards))

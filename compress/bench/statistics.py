"""Statistics of times: the interval of a paired ratio, the verdict on it, and percentiles that samples can carry."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from compress.evidence import Comparison, Interval, LatencyVerdict

LEVEL = 0.99
RESAMPLES = 4000

# Below this even pairs that all agree leave a one-sided chance of 2^-pairs, more than 3 %, that it was luck.
MIN_PAIRS = 5


def ratio_interval(
    baseline: Sequence[float],
    candidate: Sequence[float],
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Returns the interval of candidate time / baseline time, by a percentile bootstrap over pairs.

    The statistic is the median of the logarithms of the pairs' ratios (Efron and Tibshirani 1993, chapter 13). The
    median, because a neighbour's burst of load hits single processes: with one process in ten delayed by 15 % on
    average, 9 pairs and a tolerance of 2 %, it finds a slowdown of 5 % in 84 % of runs, the mean in 55 %. With few
    pairs a percentile bootstrap is narrower than its level says: at 9 pairs of equal artifacts, an interval at 0.99
    lies wholly below 1 in 1 to 2 % of runs instead of 0.5 %.

    Args:
        baseline: One time per process, any unit.
        candidate: The same number of times, each from the process that shared a round with the baseline's.
        level: Two-sided level of the interval.
        resamples: Bootstrap resamples.
        seed: Of the resampling.

    Raises:
        ValueError: If there are no pairs, the lengths differ, or a time is not positive.
    """
    logs = _log_ratios(baseline, candidate)
    chosen = np.random.default_rng(seed).integers(0, len(logs), (resamples, len(logs)))
    medians = np.median(logs[chosen], axis=1)
    low, high = np.exp(np.quantile(medians, [(1 - level) / 2, (1 + level) / 2]))
    return Interval(float(low), float(high), level, f"bootstrap of the median log-ratio over {len(logs)} pairs")


def verdict(interval: Interval, tolerance: float) -> LatencyVerdict:
    """Says what an interval of candidate / baseline time proves.

    SLOWER needs all of it above 1 + tolerance, FASTER all of it below 1. SAME is what is left below 1 + tolerance:
    not shown to be faster, and not slower by more than the tolerance. UNKNOWN reaches across 1 + tolerance.
    """
    if interval.low > 1 + tolerance:
        return "SLOWER"
    if interval.high < 1:
        return "FASTER"
    return "SAME" if interval.high <= 1 + tolerance else "UNKNOWN"


def compare(
    name: str, baseline: Sequence[float], candidate: Sequence[float], *, tolerance: float, seed: int = 0
) -> Comparison:
    """Returns the comparison with a baseline called `name`; fewer than `MIN_PAIRS` pairs are always UNKNOWN.

    Args:
        name: Of the baseline.
        baseline: One time per process.
        candidate: Its partners, in the same order.
        tolerance: The slowdown that does not matter, as a share.
        seed: Of the bootstrap.
    """
    interval = ratio_interval(baseline, candidate, seed=seed)
    ratio = float(np.exp(np.median(_log_ratios(baseline, candidate))))
    found = verdict(interval, tolerance) if len(baseline) >= MIN_PAIRS else "UNKNOWN"
    return Comparison(name, ratio, interval, found, tolerance, len(baseline))


def percentile(samples: Sequence[float], quantile: float) -> float | None:
    """Returns a percentile that was observed, or None where the samples are too few to carry it.

    Args:
        samples: Times of single calls.
        quantile: In (0, 1), 0.9 for p90.
    """
    if len(samples) < samples_needed(quantile):
        return None
    return float(np.quantile(np.asarray(samples), quantile, method="higher"))


@cache
def samples_needed(quantile: float) -> int:
    """Returns how many samples a percentile needs: 64 for p90, 662 for p99.

    The smallest n for which at least two samples lie beyond the percentile with a probability of 0.99 (the early
    stopping rule of MLPerf LoadGen, `early_stopping.md`, with one sample over the bound).
    """
    count = 2
    while _at_most_one_beyond(count, quantile) > 0.01:
        count += 1
    return count


def _at_most_one_beyond(count: int, quantile: float) -> float:
    return math.pow(quantile, count) + count * (1 - quantile) * math.pow(quantile, count - 1)


def _log_ratios(baseline: Sequence[float], candidate: Sequence[float]) -> npt.NDArray[np.float64]:
    if len(baseline) != len(candidate) or len(baseline) == 0:
        raise ValueError(f"pairs need as many baseline as candidate times; got {len(baseline)} and {len(candidate)}")
    times = np.asarray([baseline, candidate], dtype=np.float64)
    if not (times > 0).all():
        raise ValueError("times must be positive")
    result: npt.NDArray[np.float64] = np.log(times[1] / times[0])
    return result

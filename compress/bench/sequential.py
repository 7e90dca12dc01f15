"""A verdict that may be asked for after every pair: an always-valid sign test, its interval, and Holm over rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from compress.bench.statistics import verdict
from compress.evidence import Interval, LatencyVerdict

ALPHA = 0.01
"""The chance that a check of equal artifacts says SLOWER or FASTER anywhere: half of it for each word."""


@dataclass(frozen=True)
class Judgement:
    """What the pairs of one row prove so far. `interval` is None while they are too few for any interval."""

    ratio: float
    interval: Interval | None
    verdict: LatencyVerdict
    pairs: int


@cache
def e_value(agreeing: int, count: int) -> float:
    """Returns the evidence against "each pair agrees with a chance of at most one half".

    The likelihood ratio of `agreeing` successes in `count` fair trials, averaged over every chance p in (1/2, 1):
    sum of C(count + 1, j) for j up to `agreeing`, over (count + 1) C(count, agreeing). Under the null its expectation
    is at most 1 at any stopping time, so it exceeds 1/a with a chance of at most a, however often one looks (Ville's
    inequality; Ramdas et al. 2023, "Game-theoretic statistics and safe anytime-valid inference").

    Args:
        agreeing: Pairs on one side of the bound.
        count: Pairs in all.
    """
    if not 0 <= agreeing <= count:
        raise ValueError(f"agreeing must be between 0 and {count}; got {agreeing}")
    below = sum(math.comb(count + 1, index) for index in range(agreeing + 1))
    return below / ((count + 1) * math.comb(count, agreeing))


def p_value(logs: Sequence[float], bound: float) -> float:
    """Returns the always-valid p of "the median of the logarithms is at most `bound`"."""
    above = sum(value > bound for value in logs)
    return min(1.0, 1 / e_value(above, len(logs))) if logs else 1.0


def interval_at(logs: Sequence[float], level: float) -> Interval | None:
    """Returns the interval of the median ratio that holds at every number of pairs at once.

    It inverts the sign test: its ends are the outermost pairs that the test cannot exclude. No distribution is
    assumed, so that one burst of load moves it no further than the next pair.

    Args:
        logs: Logarithms of candidate / baseline time, one a process.
        level: Two-sided.

    Returns:
        The interval, or None where even pairs that all agree could not exclude anything.
    """
    needed = _needed(len(logs), (1 - level) / 2)
    if needed is None:
        return None
    ordered = np.sort(np.asarray(logs))
    low, high = np.exp([ordered[len(ordered) - needed], ordered[needed - 1]])
    return Interval(float(low), float(high), level, f"always-valid sign test over {len(logs)} processes")


def judge_row(logs: Sequence[float], tolerance: float, alpha: float) -> Judgement:
    """Judges one row at a two-sided level of `1 - alpha`."""
    return _judgement(logs, tolerance, interval_at(logs, 1 - alpha) if logs else None)


def judge_family(rows: Sequence[Sequence[float]], tolerances: Sequence[float], alpha: float) -> list[Judgement]:
    """Judges all rows of a check so that the chance of any false SLOWER is at most `alpha / 2`; so is FASTER's.

    SLOWER by Holm (1979): the row with the least p is tested at `alpha / 2 / rows`, the next at `alpha / 2 /
    (rows - 1)`, until one is not SLOWER. Upper ends, which FASTER and SAME rest on, are at `alpha / 2 / rows`.

    Args:
        rows: Logarithms of candidate / baseline time of each row.
        tolerances: The slowdown of each row that does not matter, as a share.
        alpha: Of the whole check.
    """
    values = [p_value(logs, math.log1p(tolerance)) for logs, tolerance in zip(rows, tolerances, strict=True)]
    shares = _holm_levels(values, alpha / 2)
    found = []
    for logs, tolerance, share in zip(rows, tolerances, shares, strict=True):
        outer, inner = (interval_at(logs, 1 - 2 * each) if logs else None for each in (alpha / 2 / len(rows), share))
        both = inner if outer is None or inner is None else _joined(inner, outer)
        # A row that only Holm's level can judge has no upper end at the level of the family: it is SLOWER or UNKNOWN.
        judged = _judgement(logs, tolerance, both)
        if outer is None and judged.verdict != "SLOWER":
            judged = _judgement(logs, tolerance, None)
        found.append(judged)
    return found


def _holm_levels(values: Sequence[float], alpha: float) -> list[float]:
    """The level at which Holm tests each row; rows behind the first that is not rejected share its level."""
    levels = [0.0] * len(values)
    stopped: float | None = None
    for place, index in enumerate(sorted(range(len(values)), key=lambda at: values[at])):
        levels[index] = alpha / (len(values) - place) if stopped is None else stopped
        if stopped is None and values[index] > levels[index]:
            stopped = levels[index]
    return levels


def _joined(lower: Interval, upper: Interval) -> Interval:
    return Interval(lower.low, max(upper.high, lower.low), upper.level, upper.method)


def _judgement(logs: Sequence[float], tolerance: float, interval: Interval | None) -> Judgement:
    ratio = math.exp(float(np.median(logs))) if len(logs) else 1.0
    return Judgement(ratio, interval, verdict(interval, tolerance) if interval else "UNKNOWN", len(logs))


@cache
def _needed(count: int, alpha: float) -> int | None:
    """The least number of agreeing pairs whose evidence reaches `1 / alpha`, None where none does."""
    return next((k for k in range(count // 2 + 1, count + 1) if e_value(k, count) >= 1 / alpha), None)

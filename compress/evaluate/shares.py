"""Intervals of shares of rows: of one share, and of the difference between two shares of the same rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy.special import betaincinv, ndtri

from compress.evidence import Interval

# A harm that hits one row in so many is missed by as many rows one time in twenty: (1 - x)^n = 0.05.
_UNSEEN = math.log(20)
# Halvings of [-1, 1]: far below the last digit of any difference of shares.
_HALVINGS = 60


def wilson_interval(successes: int, trials: int, level: float) -> Interval:
    """Returns the score interval of a share (Wilson 1927, JASA 22:209), which also holds near 0 and 1.

    Args:
        successes: 0 to `trials`.
        trials: At least 1.
        level: The confidence level.
    """
    z = float(ndtri((1 + level) / 2))
    share = successes / trials
    scale = 1 + z * z / trials
    centre = (share + z * z / (2 * trials)) / scale
    half = z / scale * float(np.sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2))
    # At 0 and n the bound is exactly 0 and 1; rounding must not move it off them.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == trials else min(1.0, centre + half)
    return Interval(low, high, level, "Wilson")


def exact_interval(successes: int, trials: int, level: float) -> Interval:
    """Returns the exact interval of a share (Clopper & Pearson 1934, Biometrika 26:404), from beta quantiles.

    Args:
        successes: 0 to `trials`.
        trials: At least 1.
        level: The confidence level, which is reached or exceeded for every true share.
    """
    tail = (1 - level) / 2
    low = 0.0 if successes == 0 else float(betaincinv(successes, trials - successes + 1, tail))
    high = 1.0 if successes == trials else float(betaincinv(successes + 1, trials - successes, 1 - tail))
    return Interval(low, high, level, "Clopper-Pearson")


def unseen_loss(rows: int, largest: float = 1.0) -> float:
    """Returns the mean loss that could hide on rows so rare that none is seen, with a chance of one in twenty.

    The rule of three (Hanley & Lippman-Hand 1983, JAMA 249:1743): no interval from the rows that were seen knows it.

    Args:
        rows: How many were seen, of the kind that would be hit.
        largest: The most that one of them can lose.
    """
    return largest * min(1.0, _UNSEEN / rows)


def weighted_sum_interval(parts: Sequence[tuple[float, float, Interval]], level: float) -> Interval:
    """Returns the interval of a weighted sum of estimates from the interval of each.

    The method of variance estimates recovery (MOVER; Zou & Donner 2008, Statistics in Medicine 27:1693), which takes
    the parts as independent. Unlike the bootstrap it does not shrink to a point where few rows changed.

    Args:
        parts: (weight, estimate, interval of the estimate at `level`).
        level: The confidence level.
    """
    total = sum(weight * estimate for weight, estimate, _ in parts)
    below = above = 0.0
    for weight, estimate, interval in parts:
        ends = sorted((weight * interval.low, weight * interval.high))
        below += (weight * estimate - ends[0]) ** 2
        above += (weight * estimate - ends[1]) ** 2
    methods = "; ".join(dict.fromkeys(interval.method for _, _, interval in parts))
    return Interval(total - math.sqrt(below), total + math.sqrt(above), level, f"{methods}, MOVER")


def tango_interval(gained: int, lost: int, rows: int, level: float) -> Interval:
    """Returns the score interval of the difference of two shares of the same rows, (gained - lost) / rows.

    Tango (1998), Statistics in Medicine 17:891: all differences that a score test does not reject. Unlike the bootstrap
    it does not shrink to a point where no row, or few, changed, and it depends on those rows alone.

    Args:
        gained: Rows that count only now.
        lost: Rows that counted only before.
        rows: All rows, at least 1.
        level: The confidence level.
    """
    z = float(ndtri((1 + level) / 2))
    low, high = -_upper_end(lost, gained, rows, z), _upper_end(gained, lost, rows, z)
    return Interval(low, high, level, "Tango score")


def _upper_end(gained: int, lost: int, rows: int, z: float) -> float:
    """The largest difference whose score is not below -z."""
    score = _score(gained, lost, rows)
    inside, outside = (gained - lost) / rows, 1.0
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        if score(middle) < -z:
            outside = middle
        else:
            inside = middle
    return inside


def _score(gained: int, lost: int, rows: int) -> Callable[[float], float]:
    """The standardized distance of the estimate from a difference, its variance estimated as if that one were true."""

    def score(difference: float) -> float:
        linear = -gained - lost + (2 * rows - gained + lost) * difference
        constant = -lost * difference * (1 - difference)
        share_lost = (np.sqrt(max(0.0, linear * linear - 8 * rows * constant)) - linear) / (4 * rows)
        variance = rows * (2 * share_lost + difference * (1 - difference))
        distance = gained - lost - rows * difference
        if not distance:
            return 0.0
        # At the ends of [-1, 1] nothing varies: any distance is then too far.
        return float(distance / np.sqrt(variance)) if variance > 0 else math.copysign(math.inf, distance)

    return score

"""What changes for the person scored: decisions at the cut-off, their agreement, and flips in each direction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from compress.evidence import Interval


@dataclass(frozen=True)
class Flips:
    """Rows whose decision differs from the baseline's: positive only now, and negative only now."""

    rows: int
    to_positive: int
    to_negative: int

    @property
    def agreeing(self) -> int:
        """Number of rows with the same decision."""
        return self.rows - self.to_positive - self.to_negative

    @property
    def agreement(self) -> float:
        """Share of rows with the same decision."""
        return self.agreeing / self.rows


def decide(probability: NDArray[np.float64], cutoff: float) -> NDArray[np.bool_]:
    """Returns True where a row counts as positive: its probability is the cut-off or more."""
    positive: NDArray[np.bool_] = probability >= cutoff
    return positive


def hits(labels: NDArray[np.bool_], probability: NDArray[np.float64], cutoff: float) -> NDArray[np.float64]:
    """Returns 1 for every row decided as its label says and 0 for the others; the mean is the accuracy."""
    right: NDArray[np.bool_] = decide(probability, cutoff) == labels
    return right.astype(np.float64)


def accuracy(labels: NDArray[np.bool_], probability: NDArray[np.float64], cutoff: float) -> float:
    """Returns the share of rows that are decided as their label says."""
    return float(hits(labels, probability, cutoff).mean())


def flips(baseline: NDArray[np.bool_], candidate: NDArray[np.bool_]) -> Flips:
    """Counts the decisions that differ, shape `[rows]` each."""
    return Flips(
        rows=baseline.size,
        to_positive=int(np.count_nonzero(candidate & ~baseline)),
        to_negative=int(np.count_nonzero(baseline & ~candidate)),
    )


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

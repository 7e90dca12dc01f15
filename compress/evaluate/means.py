"""A mean over rows by both models, and how it changed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from compress.review import Figure, Interval

Floats = NDArray[np.float64]

# Means of fewer rows have no normal interval.
MEAN_ROWS_MIN = 30


def mean_figure(name: str, baseline: Floats, candidate: Floats, level: float) -> Figure:
    """Returns a mean over rows, the change with the normal interval of the mean of the rows' differences."""
    if not baseline.size:
        return Figure(name, None, note="undefined: no rows")
    shifts = candidate - baseline
    difference = float(shifts.mean())
    interval, note = None, f"no interval: {baseline.size:,} rows, at least {MEAN_ROWS_MIN} are needed"
    if baseline.size >= MEAN_ROWS_MIN:
        half = float(ndtri((1 + level) / 2) * shifts.std(ddof=1) / np.sqrt(shifts.size))
        interval, note = Interval(difference - half, difference + half, level, "paired normal"), ""
    return Figure(name, float(candidate.mean()), float(baseline.mean()), difference, interval, note)

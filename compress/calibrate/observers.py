"""What is kept of a value while rows pass: a few numbers or a histogram, whatever the number of rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

from numpy.typing import NDArray

from compress.calibrate.histogram import Histogram

Bounds = tuple[float, float]


class Observer(Protocol):
    """Watches one value of a graph.

    1. Its state is bounded, however many rows pass.
    2. A number that is not finite is never forgotten: `finite` stays False.
    """

    def update(self, value: NDArray[Any], rows: int) -> None:
        """Takes in a value of a batch of `rows` rows, any shape, at least one element."""

    @property
    def finite(self) -> bool:
        """Whether everything seen was finite."""

    def bounds(self) -> Bounds:
        """Returns the range; what was seen must be finite."""


class MinMax:
    """Running minimum and maximum; NaN once seen stays."""

    def __init__(self) -> None:
        self.low = math.inf
        self.high = -math.inf

    def update(self, value: NDArray[Any], rows: int = 1) -> None:
        """Takes in one batch of a value."""
        low, high = float(value.min()), float(value.max())
        # Python's min and max drop a NaN or keep it depending on the order of their arguments.
        self.low = math.nan if math.isnan(low) or math.isnan(self.low) else min(self.low, low)
        self.high = math.nan if math.isnan(high) or math.isnan(self.high) else max(self.high, high)

    @property
    def finite(self) -> bool:
        """Whether everything seen was finite."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    def bounds(self) -> Bounds:
        """Returns the smallest and the largest number."""
        return self.low, self.high


class MovingAverage:
    """Averages of each row's minimum and maximum, later rows replacing earlier ones by and by.

    The weight of row t is `max(averaging, 1 / t)`: the plain mean until there are `1 / averaging` rows, so that the
    first row does not count more than the others. Rows are the leading dimension; a value whose leading dimension is
    no multiple of the rows is averaged by batch instead, and then alone depends on the size of the batches.
    """

    def __init__(self, averaging: float) -> None:
        self.averaging = averaging
        self.seen = 0
        self.low = self.high = 0.0

    def update(self, value: NDArray[Any], rows: int) -> None:
        """Takes in one batch of a value."""
        groups = rows if value.ndim and rows and value.shape[0] % rows == 0 else 1
        flat = value.reshape(groups, -1)
        for low, high in zip(flat.min(axis=1).tolist(), flat.max(axis=1).tolist(), strict=True):
            self.seen += 1
            weight = max(self.averaging, 1 / self.seen)
            self.low += weight * (low - self.low)
            self.high += weight * (high - self.high)

    @property
    def finite(self) -> bool:
        """Whether everything seen was finite."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    def bounds(self) -> Bounds:
        """Returns the averages."""
        return self.low, self.high


class Clipped:
    """A histogram, and how a range is cut from it."""

    def __init__(self, histogram: Histogram, cut: Callable[[Histogram], Bounds]) -> None:
        self.histogram = histogram
        self._cut = cut

    def update(self, value: NDArray[Any], rows: int) -> None:
        """Takes in one batch of a value."""
        self.histogram.add(value)

    @property
    def finite(self) -> bool:
        """Whether everything seen was finite."""
        return self.histogram.finite

    def bounds(self) -> Bounds:
        """Returns the range that the method cuts."""
        return self._cut(self.histogram)

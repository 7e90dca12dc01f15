"""How a range is found from the numbers that passed: the methods by name, and what each keeps meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from compress.calibrate.histogram import Histogram
from compress.calibrate.observers import Clipped, MinMax, MovingAverage, Observer
from compress.calibrate.thresholds import entropy, percentile, squared_error
from compress.recipe import CalibrationConfig, CalibrationMethod

METHODS: tuple[CalibrationMethod, ...] = get_args(CalibrationMethod)


@dataclass(frozen=True)
class Method:
    """A method and its settings.

    Attributes:
        name: `min-max`: all that was seen. `moving-average`: the mean of each row's extremes, new rows with weight
            `averaging`. `percentile`: the central `percentile` of the numbers. `entropy`: the range whose 8-bit
            histogram is closest to the whole one (Kullback-Leibler). `mse`: the range with the least squared error.
        percentile: In percent, e.g. 99.99.
        averaging: Weight of a new row, in (0, 1].
    """

    name: CalibrationMethod = "min-max"
    percentile: float = 99.99
    averaging: float = 0.01

    @classmethod
    def of(cls, config: CalibrationConfig) -> Method:
        """Returns the method that a recipe asks for."""
        return cls(config.method, config.percentile, config.averaging)

    def observer(self) -> Observer:
        """Returns what watches one value; its state does not grow with the number of rows."""
        if self.name == "min-max":
            return MinMax()
        if self.name == "moving-average":
            return MovingAverage(self.averaging)
        if self.name == "percentile":
            return Clipped(Histogram(), lambda histogram: percentile(histogram, self.percentile / 100))
        return Clipped(Histogram(), entropy if self.name == "entropy" else squared_error)

    def __str__(self) -> str:
        """The method and the setting that it reads: `percentile 99.99`."""
        if self.name == "percentile":
            return f"percentile {self.percentile:g}"
        return f"moving-average {self.averaging:g}" if self.name == "moving-average" else self.name

"""Calibration: which range every value of a graph has on real rows. One streaming calibrator for every runtime."""

from compress.calibrate.method import Method
from compress.calibrate.ranges import Ranges
from compress.calibrate.stream import calibrate

__all__ = ["Method", "Ranges", "calibrate"]

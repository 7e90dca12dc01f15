"""A histogram whose range grows with what it sees, and that is the same however the numbers came."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Numbers that are put into bins at a time: what is computed of them stays in a processor's second cache.
_CHUNK = 1 << 16
# Bins are no narrower than this power of two below the largest number: a float32 has no digits there.
_DIGITS = 22
# Nothing but zeros leaves the width open: less than any number asks for.
_ZEROS = -1000


class Histogram:
    """Counts of numbers in at most `size` bins of one width, a power of two.

    Bin `i` holds `[i w, (i + 1) w)`. Where the range outgrows the bins, the width doubles and two neighbours become
    one, which is exact: `floor(floor(x / w) / 2) = floor(x / 2w)`. The width is the least power of two with which
    everything seen fits, so counts depend neither on the order of the numbers nor on how they are dealt to batches.

    Attributes:
        size: The most bins; more than half of them are in use where the numbers differ enough.
        low: The smallest number, exactly.
        high: The largest number, exactly.
        finite: Whether every number was finite; if not, the counts mean nothing.
        counts: `[bins]`, int64.
    """

    def __init__(self, size: int = 8192) -> None:
        self.size = size
        self.low = math.inf
        self.high = -math.inf
        self.finite = True
        self.counts: NDArray[np.int64] = np.zeros(0, np.int64)
        self._exponent = _ZEROS
        self._first = 0

    def add(self, value: NDArray[Any]) -> None:
        """Counts every element of a value, any shape, at least one element."""
        flat = value.reshape(-1)
        low, high = float(flat.min()), float(flat.max())
        self.finite = self.finite and math.isfinite(low) and math.isfinite(high)
        if not self.finite:
            return
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._widen()
        # A tiny negative number must not become zero, and change its bin, where it is scaled down; scaling up is exact.
        exact = flat.dtype == np.float32 and -126 < self._exponent <= 0
        scale = (np.float32 if exact else np.float64)(math.ldexp(1.0, -self._exponent))
        for start in range(0, flat.size, _CHUNK):
            part = flat[start : start + _CHUNK] * scale
            index = np.floor(part, out=part).astype(np.int64) - self._first
            self.counts += np.bincount(index, minlength=len(self.counts))

    @property
    def width(self) -> float:
        """Width of a bin."""
        return math.ldexp(1.0, self._exponent)

    @property
    def total(self) -> int:
        """How many numbers were counted."""
        return int(self.counts.sum())

    @property
    def edges(self) -> NDArray[np.float64]:
        """`[bins]`, the lower edge of each bin."""
        return (self._first + np.arange(len(self.counts), dtype=np.float64)) * self.width

    @property
    def centres(self) -> NDArray[np.float64]:
        """`[bins]`, the middle of each bin, moved to within what was seen."""
        return np.clip(self.edges + self.width / 2, self.low, self.high)

    def _widen(self) -> None:
        exponent = max(self._exponent, _exponent(self.low, self.high, self.size))
        doublings = min(exponent - self._exponent, 62)
        if doublings and len(self.counts):
            index = np.arange(self._first, self._first + len(self.counts)) >> doublings
            starts = np.flatnonzero(np.diff(index, prepend=index[0] - 1))
            self.counts, self._first = np.add.reduceat(self.counts, starts), int(index[0])
        self._exponent = exponent
        first, last = _bin(self.low, exponent), _bin(self.high, exponent)
        if not len(self.counts):
            self._first = first
        before, behind = self._first - first, last + 1 - self._first - len(self.counts)
        if before or behind:
            self.counts = np.pad(self.counts, (before, behind))
            self._first = first


def _bin(value: float, exponent: int) -> int:
    return math.floor(math.ldexp(value, -exponent))


def _exponent(low: float, high: float, size: int) -> int:
    """The least exponent with which `[low, high]` needs no more than `size` bins."""
    peak = max(abs(low), abs(high))
    exponent = math.frexp(peak)[1] - _DIGITS if peak else _ZEROS
    if high > low:
        exponent = max(exponent, math.floor(math.log2((high - low) / size)) - 1)
    while _bin(high, exponent) - _bin(low, exponent) >= size:
        exponent += 1
    return exponent

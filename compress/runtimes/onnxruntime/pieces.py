"""Large weights in pieces: what is computed beside one never takes more memory than a piece."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

# Numbers a piece.
_SIZE = 1 << 22


def pieces(shape: tuple[int, ...], axis: int) -> Iterator[tuple[slice, ...]]:
    """Yields the index of each piece of an array, cut along an axis."""
    others = max(1, int(np.prod(shape, dtype=np.int64)) // max(1, shape[axis]))
    step = max(1, _SIZE // others)
    for start in range(0, max(1, shape[axis]), step):
        yield tuple(slice(start, start + step) if place == axis else slice(None) for place in range(len(shape)))


def largest(array: NDArray[np.floating]) -> float:
    """Returns the largest magnitude; NaN where there is one."""
    return float(np.max([np.abs(array[piece]).max() for piece in pieces(array.shape, 0)]))


def rounded(array: NDArray[np.float32], axis: int | None, top: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Returns a weight as whole steps and what a step is worth, symmetric about zero.

    Args:
        array: The weight.
        axis: The dimension whose every index has a scale of its own; None for one scale.
        top: The most steps, 127 for 8 bits.

    Returns:
        Steps of the weight's shape, and scales that broadcast to it.
    """
    cut = list(pieces(array.shape, 0 if axis is None else axis))
    others = tuple(place for place in range(array.ndim) if place != axis)
    peaks = [np.abs(array[piece]).max(axis=others, keepdims=True) for piece in cut]
    peak = np.max(peaks, axis=0) if axis is None else np.concatenate(peaks, axis=axis)
    scale = np.where(peak > 0, peak / np.float32(top), 1).astype(np.float32)
    steps = np.empty(array.shape, np.int8)
    for piece in cut:
        by = (
            scale
            if axis is None
            else scale[tuple(part if at == axis else slice(None) for at, part in enumerate(piece))]
        )
        steps[piece] = np.clip(np.rint(array[piece] / by), -top, top)
    return steps, scale

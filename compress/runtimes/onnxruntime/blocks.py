"""4-bit weights in blocks, in the layout of ONNX Runtime's `MatMulNBits`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.runtimes.onnxruntime.pieces import pieces

_BITS = 4
_ZERO = 8


def pack(rows: NDArray[np.float32], size: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Returns a matrix as 4-bit steps and scales.

    A block's number of largest magnitude becomes -8 steps, the end that a signed integer has one more of; so the other
    numbers have the finest step that holds it. Steps are stored above 8, the zero point that is meant where none is
    given, two a byte, the lower half first (ContribOperators.md, `com.microsoft.MatMulNBits`).

    Args:
        rows: `[outputs, inputs]`; inputs are filled up with zeros to whole blocks.
        size: Numbers that share a scale, a power of two from 16.

    Returns:
        `[outputs, blocks, size / 2]` and `[outputs, blocks]`.
    """
    packed = [_pack(np.ascontiguousarray(rows[piece]), size) for piece in pieces(rows.shape, 0)]
    return np.concatenate([steps for steps, _ in packed]), np.concatenate([scales for _, scales in packed])


def unpack(packed: NDArray[np.uint8], scales: NDArray[Any], inputs: int) -> NDArray[np.float32]:
    """Returns the matrix `[outputs, inputs]` that packed steps and scales stand for."""
    steps = np.stack([packed & 15, packed >> _BITS], axis=-1).reshape(*packed.shape[:2], -1).astype(np.float32)
    whole: NDArray[np.float32] = ((steps - _ZERO) * scales.reshape(*packed.shape[:2], 1)).reshape(len(packed), -1)
    return whole[:, :inputs]


def _pack(rows: NDArray[np.float32], size: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    outputs, inputs = rows.shape
    blocks = -(-inputs // size)
    padded = np.zeros((outputs, blocks * size), np.float32)
    padded[:, :inputs] = rows
    grouped = padded.reshape(outputs, blocks, size)
    at = np.abs(grouped).argmax(axis=2, keepdims=True)
    extreme = np.take_along_axis(grouped, at, axis=2)
    scales = np.where(extreme != 0, extreme / -_ZERO, 1).astype(np.float32)
    steps = (np.clip(np.rint(grouped / scales), -8, 7) + _ZERO).astype(np.uint8)
    packed = (steps[..., 0::2] | (steps[..., 1::2] << _BITS)).astype(np.uint8)
    return packed, scales[..., 0]

"""Sliding windows along spatial axes: convolutions and pools share how padding is written.

Source: ONNX Operators.md, Conv and MaxPool (`auto_pad`, `pads`, `ceil_mode`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from compress.model.onnx_import.call import Call
from compress.model.onnx_import.errors import NotImportable

# Larger ones are damage; their windows would be counted one by one.
MAX_SIZE = 1 << 16
AUTO_PADS = ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")


@dataclass(frozen=True)
class Windows:
    """One number an axis; `pads` are (before, after)."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]

    @property
    def symmetric(self) -> bool:
        """Whether torch's own padding can say it."""
        return all(before == after >= 0 for before, after in self.pads)

    @property
    def before(self) -> tuple[int, ...]:
        """Padding in front of each axis."""
        return tuple(before for before, _ in self.pads)

    @property
    def extents(self) -> tuple[int, ...]:
        """How far a dilated kernel reaches."""
        return tuple((size - 1) * step + 1 for size, step in zip(self.kernel, self.dilations, strict=True))


def windows_of(call: Call, spatial: Sequence[int], kernel: Sequence[int]) -> Windows:
    """Returns the windows of a convolution or a pool.

    Args:
        call: With the attributes.
        spatial: Sizes of the spatial axes.
        kernel: Likewise.
    """
    rank = len(kernel)
    if len(spatial) != rank:
        raise NotImportable(f"a kernel of {rank} dimensions over {len(spatial)} axes")
    strides = tuple(call.attribute("strides", (1,) * rank))
    dilations = tuple(call.attribute("dilations", (1,) * rank))
    mode = call.attribute("auto_pad", "NOTSET")
    if mode not in AUTO_PADS:
        raise NotImportable(f"auto_pad {mode!r}")
    flat = tuple(call.attribute("pads", (0,) * (2 * rank)))
    if min(*strides, *dilations, *kernel) < 1 or max(*kernel, *strides, *dilations, *map(abs, flat)) > MAX_SIZE:
        raise NotImportable(f"kernel {tuple(kernel)}, strides {strides}, dilations {dilations}, pads {flat}")
    pads = tuple(zip(flat[:rank], flat[rank:], strict=True))
    if mode == "VALID":
        pads = ((0, 0),) * rank
    elif mode != "NOTSET":
        extents = [(size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True)]
        pads = tuple(
            _same(size, stride, extent, mode) for size, stride, extent in zip(spatial, strides, extents, strict=True)
        )
    return Windows(tuple(kernel), strides, dilations, pads)


def padded(value: torch.Tensor, pads: Sequence[tuple[int, int]], fill: float = 0.0) -> torch.Tensor:
    """Returns a value with its last axes padded or, by negative amounts, cut."""
    flat = [amount for pair in reversed(list(pads)) for amount in pair]
    return functional.pad(value, flat, value=fill) if any(flat) else value


def _same(size: int, stride: int, extent: int, mode: str) -> tuple[int, int]:
    total = max(0, (-(-size // stride) - 1) * stride + extent - size)
    less, more = total // 2, total - total // 2
    return (less, more) if mode == "SAME_UPPER" else (more, less)

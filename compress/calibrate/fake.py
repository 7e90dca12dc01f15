"""What integers make of floats, computed in floats: a hint for passes and searches, never a result."""

from __future__ import annotations

import torch

from compress.calibrate.thresholds import LEVELS, largest_step
from compress.model.layers import Layer


def fake_weight(weight: torch.Tensor, bits: int, axis: int | None) -> torch.Tensor:
    """Returns a weight rounded to symmetric signed integers and back.

    Args:
        weight: Any shape.
        bits: Of the integers; the most negative one is not used. 7 are the reduced range of ONNX Runtime, -64 to 64.
        axis: The dimension with a scale an entry; None for one scale.
    """
    others = [place for place in range(weight.dim()) if place != axis]
    peak = weight.abs().amax(dim=others, keepdim=True) if others else weight.abs()
    return rounded(weight, peak, bits)


def rounded(weight: torch.Tensor, peak: torch.Tensor, bits: int) -> torch.Tensor:
    """Returns a weight rounded to symmetric signed integers, the largest of which stands for `peak` (it broadcasts)."""
    largest = largest_step(bits)
    step = torch.where(peak > 0, peak / largest, torch.ones_like(peak))
    return (weight / step).round().clamp(-largest, largest) * step


def fake_activation(value: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """Returns a value rounded to 8 bits that span `[low, high]`, with zero on the grid, and back."""
    step = (high - low) / (LEVELS - 1)
    zero = round(-low / step)
    return ((value / step).round() + zero).clamp(0, LEVELS - 1).sub(zero) * step


def output_axis(layer: Layer) -> int:
    """Returns the dimension of a layer's weight that is its output channel."""
    if layer.operator in ("addmm", "matmul") or layer.operator.startswith("conv_transpose"):
        return 1
    return 0


def channel_axis(layer: Layer) -> int:
    """Returns the dimension of a layer's output that is the channel."""
    return 1 if "conv" in layer.operator else -1

"""Integers simulated in float: what a value becomes when a runtime rounds it, with gradients as if it did not.

Rounding passes gradients on as it is (Bengio et al. 2013, arXiv:1308.3432); what is outside a range passes them on to
the range (Esser et al. 2020, arXiv:1902.08153; Bhalgat et al. 2020, arXiv:2004.09576 for asymmetric ranges).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_STEPS = 255
_LEAST = 1e-8


class FakeActivation(nn.Module):
    """A value in 256 steps between two bounds that learn; zero is one of the steps.

    Args:
        low, high: Bounds to begin with. What learns are factors of them, so that a rate means the same in all layers.
    """

    low: Tensor
    high: Tensor

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        # A range without width has no step to count in.
        low, high = min(low, 0.0), max(high, 0.0) if low or high else 1.0
        self.register_buffer("low", torch.tensor(low))
        self.register_buffer("high", torch.tensor(high))
        self.gain_low = nn.Parameter(torch.ones(()))
        self.gain_high = nn.Parameter(torch.ones(()))

    @property
    def bounds(self) -> tuple[Tensor, Tensor]:
        """Where the range ends; it contains zero."""
        return (self.low * self.gain_low).clamp(max=0), (self.high * self.gain_high).clamp(min=0)

    def forward(self, value: Tensor) -> Tensor:
        """Returns the value rounded, same shape."""
        low, high = self.bounds
        scale = ((high - low) / _STEPS).clamp(min=_LEAST)
        zero = _rounded(-low / scale)
        steps = (_rounded(value / scale) + zero).clamp(0, _STEPS)
        return ((steps - zero) * scale).to(value.dtype)


class FakeWeight(nn.Module):
    """A weight in symmetric steps whose size follows the largest weight, as a runtime's quantizer chooses it.

    Args:
        axis: The dimension with a scale an entry; None for one scale in all.
        limit: Steps on each side of zero: 127 for 8 bits, 64 for 7.
    """

    def __init__(self, axis: int | None, limit: int) -> None:
        super().__init__()
        self.axis = axis
        self.limit = limit

    def forward(self, weight: Tensor) -> Tensor:
        """Returns the weight rounded, same shape."""
        others = [place for place in range(weight.dim()) if place != self.axis]
        scale = weight.detach().abs().amax(dim=others, keepdim=True).clamp(min=_LEAST) / self.limit
        return _rounded(weight / scale).clamp(-self.limit, self.limit) * scale


def _rounded(value: Tensor) -> Tensor:
    return value + (value.round() - value).detach()

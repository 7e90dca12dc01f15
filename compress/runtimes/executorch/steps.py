"""The steps that integers count in: of values from their ranges, of weights from their numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from compress.calibrate import Ranges
from compress.runtimes.base import Placed

# Half of what an int32 holds: the other half is room for the sum of products.
_LARGEST = 2.0**30
# Steps of an accumulator in one of the output. The backend refuses a file above 256 and below 2**-32.
_COARSEST, _FINEST = 128.0, 2.0**-24
_SMALLEST = 1e-12


@dataclass(frozen=True)
class Step:
    """Size of a step, and the integer that stands for zero."""

    size: float
    zero: int


def value_steps(static: Sequence[Placed], others: Sequence[str], ranges: Ranges) -> dict[str, Step]:
    """Returns the step of each value, for 256 integers from -128 (Jacob et al. 2018, arXiv:1712.05877, equation 1).

    Values around several calls of one weight share a range: the backend packs equal weights once in a process,
    together with the steps before and behind the first of them.

    Args:
        static: Layers with static activations.
        others: Further values.
        ranges: Of the values of the graph.
    """
    around = [name for item in static for name in (item.layer.input, item.output)]
    bounds = {name: ranges.of(name) for name in (*around, *others)}
    alike: dict[tuple[str, str], set[str]] = {}
    for item in static:
        alike.setdefault(("in", item.layer.weight), set()).add(item.layer.input)
        alike.setdefault(("out", item.layer.weight), set()).add(item.output)
    before = None
    while before != bounds:
        before = dict(bounds)
        for names in alike.values():
            low, high = min(bounds[name][0] for name in names), max(bounds[name][1] for name in names)
            bounds |= dict.fromkeys(names, (low, high))
    found = {}
    for name, (low, high) in bounds.items():
        size = max((high - low) / 255, _SMALLEST)
        found[name] = Step(size, max(-128, min(127, round(-128 - low / size))))
    return found


def weight_steps(weight: Tensor, *, axis: int, shared: bool) -> Tensor:
    """Returns the step of each output channel, float64 `[channels]`, for integers from -127 to 127.

    Args:
        weight: In float.
        axis: Of the output channels.
        shared: Whether all channels have one step.
    """
    peaks = weight.detach().double().abs().amax([other for other in range(weight.ndim) if other != axis])
    if shared:
        peaks = peaks.amax().expand_as(peaks)
    return (peaks / 127).clamp(min=_SMALLEST)


def fit(
    item: Placed, tensors: Mapping[str, Tensor], steps: Tensor, values: dict[str, Step], given: str, made: str
) -> Tensor:
    """Returns weight steps with which a statically quantized layer can be computed.

    A bias is stored in steps of `input step * weight step`. In a channel whose weights are next to zero it would not
    fit, nor would the factor to the output's steps: there the weight's step grows, and its products were lost beside
    the bias anyway. An output whose range is a single step of these gets a coarser one, in `values`.

    Args:
        item: The layer.
        tensors: The graph's tensors by full name.
        steps: As `weight_steps` gives them.
        values: Steps of values.
        given: Name of the value that goes in.
        made: Name of the value that leaves.
    """
    size = values[given].size
    bias = tensors[item.layer.bias].detach().double().abs() if item.layer.bias else torch.zeros_like(steps)
    steps = torch.maximum(steps, bias / _LARGEST / size).clamp(min=values[made].size * _FINEST / size)
    coarsest = float(steps.max()) * size / _COARSEST
    if values[made].size < coarsest:
        low, high = -128 - values[made].zero, 127 - values[made].zero
        share = -low / (high - low)
        values[made] = Step(coarsest, round(-128 + 255 * share))
    return steps

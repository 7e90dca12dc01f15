"""Which widths a target's kernels like: found by timing, because no file of a runtime says it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from compress.model.core import Model, TensorInfo
from compress.model.factory import export_module
from compress.passes.base import Change, Meter
from compress.passes.prune.groups import Analysis

# Where nothing larger is found: what the narrowest vector units take at once.
LEAST = 4
_FROM = 64
_MULTIPLES = (8, 16, 32)
_OUTSIDE = 16
_SIDE = 24
PROCESSES = 3


def liked_multiple(analysis: Analysis, meter: Meter) -> tuple[int, Change]:
    """Returns the multiple that widths should keep to on a target, and how it was found.

    Kernels work on blocks of channels: within a block, a narrower layer takes as long as the whole block. A width of
    64 and half a block more is timed beside one of 64 and a whole block more, for blocks of 8, 16 and 32. A block is
    there where the ratio is nearer to 1 than to that of the multiply-adds.

    Args:
        analysis: Of the graph that is to be cut: its kind of layer is what is timed.
        meter: What times.

    Raises:
        LoweringError: If the target's runtime cannot take the probes.
        WorkerError: If a worker fails.
    """
    pictures = any("aten.conv2d." in str(node.target) for node in analysis.module.graph.nodes)
    pairs = [(_probe(_FROM + block, pictures), _probe(_FROM + block // 2, pictures)) for block in _MULTIPLES]
    timings = meter.race("widths between multiples of 8, 16 and 32", pairs, PROCESSES)
    ratios = [timing.ratio for timing in timings]
    found = _largest(ratios)
    said = ", ".join(
        f"{_FROM + block // 2} takes {ratio:.2f} of the time of {_FROM + block}"
        for block, ratio in zip(_MULTIPLES, ratios, strict=True)
    )
    return found, Change(f"round_to on {meter.target}", f"{found}, as measured: a width of {said}")


def _largest(ratios: Sequence[float]) -> int:
    """The largest block that is there, all smaller ones being there, too."""
    found = LEAST
    for block, ratio in zip(_MULTIPLES, ratios, strict=True):
        wide, narrow = (_multiply_adds(_FROM + more) for more in (block, block // 2))
        if ratio < (1 + narrow / wide) / 2:
            break
        found = block
    return found


def _multiply_adds(width: int) -> int:
    """Of a probe, for one position."""
    return 2 * _OUTSIDE * width + width * width


def _probe(width: int, pictures: bool) -> Model:
    """Three layers, the middle one square; what goes in and out has the same width in every probe."""
    if pictures:
        layers: list[nn.Module] = [nn.Conv2d(a, b, 1) for a, b in _shapes(width)]
        shape: tuple[int, ...] = (_OUTSIDE, _SIDE, _SIDE)
    else:
        layers = [nn.Linear(a, b) for a, b in _shapes(width)]
        shape = (_SIDE * _SIDE, _OUTSIDE)
    module = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
    for parameter in module.parameters():
        # Equal probes are one Model, whose times are kept.
        nn.init.constant_(parameter, 1 / width)
    return export_module(module.eval(), [TensorInfo("values", shape, "float32")], (), "probe")


def _shapes(width: int) -> tuple[tuple[int, int], ...]:
    return ((_OUTSIDE, width), (width, width), (width, _OUTSIDE))

"""Pools.

Source: ONNX Operators.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch.nn import functional

from compress.model.onnx_import.call import Call
from compress.model.onnx_import.errors import NotImportable
from compress.model.onnx_import.graph import Node
from compress.model.onnx_import.ops_math import Function
from compress.model.onnx_import.windows import Windows, padded, windows_of

_MAX_WINDOWS = 1 << 20
_MAX = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
_AVERAGE = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}


def _max_pool(call: Call) -> torch.Tensor:
    value = call.tensor(0)
    windows = _windows(call, value)
    function = _MAX[len(windows.kernel)]
    ceil = bool(call.attribute("ceil_mode", 0))
    if (
        not ceil
        and windows.symmetric
        and all(2 * pad <= size for pad, size in zip(windows.before, windows.kernel, strict=True))
    ):
        return function(value, windows.kernel, windows.strides, windows.before, windows.dilations)
    lowest = float("-inf") if value.is_floating_point() else torch.iinfo(value.dtype).min
    pads = [(before, after) for before, after, _ in _reaches(windows, value.shape[2:], ceil)]
    return function(padded(value, pads, lowest), windows.kernel, windows.strides, 0, windows.dilations)


def _average_pool(call: Call) -> torch.Tensor:
    value = call.tensor(0)
    windows = _windows(call, value)
    if set(windows.dilations) != {1}:
        return _dilated_average_pool(call, value, windows)
    function = _AVERAGE[len(windows.kernel)]
    ceil, counts_pads = bool(call.attribute("ceil_mode", 0)), bool(call.attribute("count_include_pad", 0))
    if (
        not ceil
        and windows.symmetric
        and all(2 * pad <= size for pad, size in zip(windows.before, windows.kernel, strict=True))
    ):
        return function(value, windows.kernel, windows.strides, windows.before, False, counts_pads)
    reaches = _reaches(windows, value.shape[2:], ceil)
    sums = function(
        padded(value, [(before, after) for before, after, _ in reaches]), windows.kernel, windows.strides, 0
    )
    return sums * _corrections(windows, value.shape[2:], reaches, counts_pads, value.dtype)


def _dilated_average_pool(call: Call, value: torch.Tensor, windows: Windows) -> torch.Tensor:
    if any(pad for pair in windows.pads for pad in pair) or call.attribute("ceil_mode", 0):
        raise NotImportable("dilated and padded")
    channels = value.shape[1]
    weight = torch.full((channels, 1, *windows.kernel), 1 / float(np.prod(windows.kernel)), dtype=value.dtype)
    convolution = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}[len(windows.kernel)]
    return convolution(value, weight, None, windows.strides, 0, windows.dilations, channels)


def _windows(call: Call, value: torch.Tensor) -> Windows:
    kernel = call.attribute("kernel_shape", ())
    if len(kernel) not in _MAX:
        raise NotImportable(f"over {len(kernel)} axes")
    return windows_of(call, value.shape[2:], kernel)


def _reaches(windows: Windows, spatial: Sequence[int], ceil: bool) -> list[tuple[int, int, int]]:
    """Returns (padding before, padding after so that the last window fits, number of windows) an axis.

    With `ceil_mode` a last window may reach over the padding; one that would start behind the input is left out.
    """
    result = []
    for size, extent, stride, (before, after) in zip(
        spatial, windows.extents, windows.strides, windows.pads, strict=True
    ):
        room = size + before + after - extent
        count = (-(-room // stride) if ceil else room // stride) + 1
        if ceil and (count - 1) * stride >= size + before:
            count -= 1
        result.append((before, (count - 1) * stride + extent - size - before, count))
    return result


def _corrections(
    windows: Windows,
    spatial: Sequence[int],
    reaches: Sequence[tuple[int, int, int]],
    counts_pads: bool,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Returns, for each window, the kernel's size over the number of elements that count."""
    if math.prod(count for _, _, count in reaches) > _MAX_WINDOWS:
        raise NotImportable("with unequal pads over so many windows")
    factors = np.ones(())
    for size, kernel, stride, (_, declared_after), (before, _, count) in zip(
        spatial, windows.kernel, windows.strides, windows.pads, reaches, strict=True
    ):
        starts = np.arange(count) * stride - before
        low, high = (-before, size + declared_after) if counts_pads else (0, size)
        inside = np.minimum(starts + kernel, high) - np.maximum(starts, low)
        factors = np.multiply.outer(factors, kernel / np.maximum(inside, 1))
    return torch.tensor(factors.tolist(), dtype=dtype)


def _global_average_pool(call: Call) -> torch.Tensor:
    value = call.tensor(0)
    return value.mean(list(range(2, value.dim())), keepdim=True)


def _global_max_pool(call: Call) -> torch.Tensor:
    value = call.tensor(0)
    return value.amax(list(range(2, value.dim())), keepdim=True)


def _refuse_places(node: Node) -> str:
    return "with the places of its maxima as an output" if any(node.outputs[1:]) else ""


TABLE: Mapping[str, Function] = {
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global_average_pool,
    "GlobalMaxPool": _global_max_pool,
}
REFUSALS: Mapping[str, Callable[[Node], str]] = {"MaxPool": _refuse_places}

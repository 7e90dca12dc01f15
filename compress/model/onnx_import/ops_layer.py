"""What multiplies with weights: linear layers, matrix products, convolutions.

Source: ONNX Operators.md.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.nn import functional

from compress.model.onnx_import.call import Call
from compress.model.onnx_import.errors import NotImportable
from compress.model.onnx_import.ops_math import Function
from compress.model.onnx_import.windows import padded, windows_of

_CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_TRANSPOSED = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d}


def _linear(call: Call) -> torch.Tensor:
    # The form that a product with a constant matrix is given in `layers.py`: weight [out, in].
    return functional.linear(call.tensor(0), call.tensor(1), call.optional(2))


def _matmul(call: Call) -> torch.Tensor:
    return torch.matmul(call.tensor(0), call.tensor(1))


def _gemm(call: Call) -> torch.Tensor:
    left, right, bias = call.tensor(0), call.tensor(1), call.optional(2)
    left = left.t() if call.attribute("transA", 0) else left
    right = right.t() if call.attribute("transB", 0) else right
    alpha, beta = call.attribute("alpha", 1.0), call.attribute("beta", 1.0)
    result = torch.matmul(left, right)
    result = result if alpha == 1 else result * alpha
    if bias is None or beta == 0:
        return result
    return result + (bias if beta == 1 else bias * beta)


def _conv(call: Call) -> torch.Tensor:
    value, weight = call.tensor(0), call.tensor(1)
    spatial = value.shape[2:]
    function = _CONVOLUTIONS.get(len(spatial))
    if function is None:
        raise NotImportable(f"over {len(spatial)} axes")
    windows = windows_of(call, spatial, weight.shape[2:])
    padding = windows.before if windows.symmetric else (0,) * len(spatial)
    value = value if windows.symmetric else padded(value, windows.pads)
    groups = call.attribute("group", 1)
    return function(value, weight, call.optional(2), windows.strides, padding, windows.dilations, groups)


def _conv_transpose(call: Call) -> torch.Tensor:
    value, weight = call.tensor(0), call.tensor(1)
    spatial = value.shape[2:]
    function = _TRANSPOSED.get(len(spatial))
    if function is None:
        raise NotImportable(f"over {len(spatial)} axes")
    windows = windows_of(call, spatial, weight.shape[2:])
    extra = tuple(call.attribute("output_padding", (0,) * len(spatial)))
    groups = call.attribute("group", 1)
    pads = _transposed_pads(call, tuple(spatial), windows.strides, windows.extents, windows.pads, extra)
    if all(before == after >= 0 for before, after in pads):
        padding = tuple(before for before, _ in pads)
        return function(value, weight, call.optional(2), windows.strides, padding, extra, groups, windows.dilations)
    if any(more > after for more, (_, after) in zip(extra, pads, strict=True)):
        raise NotImportable("output_padding beyond unequal pads")
    whole = function(value, weight, call.optional(2), windows.strides, 0, 0, groups, windows.dilations)
    return padded(whole, [(-before, more - after) for more, (before, after) in zip(extra, pads, strict=True)])


def _transposed_pads(
    call: Call,
    spatial: tuple[int, ...],
    strides: tuple[int, ...],
    extents: tuple[int, ...],
    pads: tuple[tuple[int, int], ...],
    extra: tuple[int, ...],
) -> list[tuple[int, int]]:
    """Returns the padding of a transposed convolution: given, or whatever gives the wanted output size."""
    mode = call.attribute("auto_pad", "NOTSET")
    wanted = call.attribute("output_shape")
    if wanted is None and mode in ("NOTSET", "VALID"):
        return list(pads)
    sizes = (
        list(wanted[-len(spatial) :]) if wanted else [size * step for size, step in zip(spatial, strides, strict=True)]
    )
    result = []
    for size, out, stride, extent, more in zip(spatial, sizes, strides, extents, extra, strict=True):
        total = stride * (size - 1) + more + extent - out
        less = total // 2
        result.append((less, total - less) if mode == "SAME_UPPER" else (total - less, less))
    return result


def _einsum(call: Call) -> torch.Tensor:
    return torch.einsum(call.attribute("equation", "").replace(" ", ""), *call.tensors())


TABLE: Mapping[str, Function] = {
    "Linear": _linear,
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Einsum": _einsum,
}

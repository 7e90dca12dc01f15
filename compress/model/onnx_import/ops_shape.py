"""Shapes: asked for, computed with, applied. The batch stays a symbol throughout.

Source: ONNX Operators.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from compress.model.onnx_import.batch import opened_expand, opened_parts, opened_reshape
from compress.model.onnx_import.call import Call
from compress.model.onnx_import.errors import MixesRows, NotImportable
from compress.model.onnx_import.ops_math import Function
from compress.model.onnx_import.values import (
    Host,
    Value,
    check_size,
    host,
    product,
    to_tensor,
)

MAX_CONSTANT_ELEMENTS = 1 << 26


def _shape(call: Call) -> Host:
    sizes = list(_sizes(call.value(0)))
    return host(sizes[slice(call.attribute("start"), call.attribute("end"))])


def _sizes(value: Value) -> Sequence[Any]:
    return value.array.shape if isinstance(value, Host) else value.shape


def _reshape(call: Call) -> Value:
    value, target = call.value(0), call.numbers(1)
    shape = _sizes(value)
    if not call.attribute("allowzero", 0):
        if any(size == 0 and axis >= len(shape) for axis, size in enumerate(target)):
            raise NotImportable(f"its shape {target} copies a dimension that the input has not")
        target = [shape[axis] if isinstance(size, int) and size == 0 else size for axis, size in enumerate(target)]
    if isinstance(value, Host):
        return Host(value.array.reshape([int(size) for size in target]), value.dtype)
    if call.batch.opens and all(isinstance(size, int) for size in target):
        target = opened_reshape(shape, target, call.batch)
    return value.reshape(target)


def _flatten(call: Call) -> torch.Tensor:
    value, axis = call.tensor(0), call.attribute("axis", 1)
    axis += value.dim() if axis < 0 else 0
    if axis == 1 and value.dim() > 1:
        return value.flatten(1)
    return value.reshape(product(value.shape[:axis]), product(value.shape[axis:]))


def _transpose(call: Call) -> Value:
    value = call.value(0)
    rank = len(_sizes(value))
    order = list(call.attribute("perm", tuple(reversed(range(rank)))))
    return Host(value.array.transpose(order), value.dtype) if isinstance(value, Host) else value.permute(order)


def _squeeze(call: Call) -> Value:
    value, axes = call.value(0), call.axes(1, since=13)
    shape = _sizes(value)
    if axes is None:
        axes = [axis for axis, size in enumerate(shape) if isinstance(size, int) and size == 1]
    axes = [axis % len(shape) for axis in axes]
    kept = [size for axis, size in enumerate(shape) if axis not in axes]
    if isinstance(value, Host):
        return Host(value.array.reshape(kept), value.dtype)
    for axis in axes:
        if not isinstance(shape[axis], int) or shape[axis] != 1:
            raise NotImportable(f"its axis {axis} has size {shape[axis]}, and only an axis of size 1 can be taken out")
    return value.squeeze(axes) if axes else value


def _unsqueeze(call: Call) -> Value:
    value, axes = call.value(0), call.axes(1, since=13) or []
    rank = len(_sizes(value)) + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        value = (
            Host(np.expand_dims(value.array, axis), value.dtype) if isinstance(value, Host) else value.unsqueeze(axis)
        )
    return value


def _concat(call: Call) -> Value:
    axis = call.attribute("axis", 0)
    values = [call.value(index) for index in range(call.count)]
    if any(isinstance(value, Host) for value in values):
        known = [call.known(index) for index in range(call.count)]
        arrays = [item.array for item in known if item is not None]
        if len(arrays) == len(values):
            check_size(sum(array.size for array in arrays))
            return Host(np.concatenate(arrays, axis), values[0].dtype)
    return torch.cat(opened_parts([to_tensor(value) for value in values], axis, call.batch), axis)


def _split(call: Call) -> tuple[Value, ...]:
    value = call.value(0)
    shape = _sizes(value)
    axis = call.attribute("axis", 0) % len(shape)
    sizes = list(call.attribute("split", ())) if call.opset < 13 else call.ints(1) if call.has(1) else []
    if not sizes:
        if not isinstance(shape[axis], int):
            raise MixesRows("it cuts the batch into parts")
        each = -(-shape[axis] // call.wanted)
        sizes = [min(each, shape[axis] - each * index) for index in range(call.wanted)]
    if isinstance(value, Host):
        parts = np.split(value.array, np.cumsum(sizes)[:-1].tolist(), axis)
        return tuple(Host(part, value.dtype) for part in parts)
    return tuple(torch.split(value, sizes, axis))


def _expand(call: Call) -> Value:
    value, target = call.value(0), call.numbers(1)
    if isinstance(value, Host) and all(isinstance(size, int) for size in target):
        shape = np.broadcast_shapes(value.array.shape, tuple(target))
        check_size(product(shape))
        return Host(np.broadcast_to(value.array, shape).copy(), value.dtype)
    if isinstance(value, Host) and value.array.size == 1 and value.array.ndim <= len(target):
        return torch.full(target, value.array.flat[0], dtype=value.dtype)
    tensor = to_tensor(value)
    if call.batch.opens:
        target = opened_expand(tensor.shape, target, call.batch)
    rank = max(tensor.dim(), len(target))
    shape_in = [1] * (rank - tensor.dim()) + list(tensor.shape)
    wanted = [1] * (rank - len(target)) + list(target)
    # A target of 1 leaves a dimension as it is.
    sizes = [old if isinstance(new, int) and new == 1 else new for old, new in zip(shape_in, wanted, strict=True)]
    return tensor.expand(sizes)


def _tile(call: Call) -> Value:
    value, repeats = call.value(0), call.numbers(1)
    if isinstance(value, Host):
        counts = call.ints(1)
        check_size(value.array.size * product(counts))
        return Host(np.tile(value.array, counts), value.dtype)
    return value.repeat(repeats)


def _constant_of_shape(call: Call) -> Value:
    shape = call.numbers(0)
    fill = call.attribute("value", host(0.0, torch.float32))
    number = fill.array.flat[0]
    static = all(isinstance(size, int) for size in shape)
    count = product(shape) if static else None
    if count is not None and (count == 1 or (not fill.dtype.is_floating_point and count <= 64)):
        return Host(np.full(shape, number, dtype=object), fill.dtype)
    if count is not None and count > MAX_CONSTANT_ELEMENTS:
        raise NotImportable(f"a constant of shape {shape}")
    return torch.full(shape, number, dtype=fill.dtype)


def _range(call: Call) -> Value:
    start, limit, step = (call.numbers(index)[0] for index in range(3))
    dtype = call.value(0).dtype
    if isinstance(start, int) and isinstance(limit, int) and isinstance(step, int) and step:
        count = max(0, -(-(limit - start) // step))
        if count <= 64:
            return host(list(range(start, limit, step)), dtype)
        if count > MAX_CONSTANT_ELEMENTS:
            raise NotImportable(f"a range of {count} numbers")
    return torch.arange(start, limit, step, dtype=dtype)


def _size(call: Call) -> Host:
    return host(product(_sizes(call.value(0))))


def _identity(call: Call) -> Value:
    return call.value(0)


def _dropout(call: Call) -> tuple[Value, ...]:
    if call.has(2) and call.number(2, False):
        raise NotImportable("in training form")
    value = call.tensor(0)
    return (value, torch.ones_like(value, dtype=torch.bool)) if call.wanted > 1 else (value,)


TABLE: Mapping[str, Function] = {
    "Shape": _shape,
    "Size": _size,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Concat": _concat,
    "Split": _split,
    "Expand": _expand,
    "Tile": _tile,
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
    "Identity": _identity,
    "Dropout": _dropout,
}

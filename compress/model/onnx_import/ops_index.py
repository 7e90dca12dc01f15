"""Parts of tensors: taken, gathered, scattered, padded, rearranged.

Source: ONNX Operators.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from compress.model.onnx_import.call import Call
from compress.model.onnx_import.errors import MixesRows, NotImportable
from compress.model.onnx_import.ops_math import Function
from compress.model.onnx_import.values import Host, Value, check_size, elementwise, to_tensor

_MODES = {"reflect": "reflect", "edge": "edge", "wrap": "wrap"}
_TORCH_MODES = {"reflect": "reflect", "edge": "replicate"}
# The most places that are written into the graph one by one.
MAX_PLACES = 1 << 16
# An end beyond any size: what exporters write for "all".
_ALL = 1 << 31


def select(value: torch.Tensor, axis: int, indices: Sequence[int]) -> torch.Tensor:
    """Returns the given places along an axis, in that order."""
    return value.index_select(axis, torch.tensor(list(indices), dtype=torch.int64))


def _slice(call: Call) -> Value:
    value = call.value(0)
    starts, ends = call.numbers(1), call.numbers(2)
    axes = call.ints(3) if call.has(3) else list(range(len(starts)))
    steps = call.ints(4) if call.has(4) else [1] * len(starts)
    rank = value.array.ndim if isinstance(value, Host) else value.dim()
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if isinstance(value, Host):
            cut = [slice(None)] * rank
            cut[axis % rank] = slice(start, end, step)
            value = Host(value.array[tuple(cut)], value.dtype)
        else:
            value = _slice_axis(value, axis % rank, start, end, step)
    return value


def _slice_axis(value: torch.Tensor, axis: int, start: Any, end: Any, step: int) -> torch.Tensor:
    size = value.shape[axis]
    if not isinstance(size, int):
        if (
            step == 1
            and isinstance(start, int)
            and start == 0
            and (end is size or (isinstance(end, int) and end >= _ALL))
        ):
            return value
        if step < 0:
            raise MixesRows("it turns the batch around")
        return torch.ops.aten.slice(value, axis, start, end, step)
    first, last, _ = slice(start, end, step).indices(size)
    if step < 0:
        if size > MAX_PLACES:
            raise NotImportable(f"backwards over {size} places")
        return select(value, axis, range(first, last, step))
    if (first, step) == (0, 1) and last >= size:
        return value
    result: torch.Tensor = torch.ops.aten.slice(value, axis, first, max(first, last), step)
    return result


def _gather(call: Call) -> Value:
    value, indices = call.value(0), call.value(1)
    axis = call.attribute("axis", 0)
    if isinstance(value, Host) and isinstance(indices, Host):
        places = np.array([int(place) for place in indices.array.flat], dtype=np.int64).reshape(indices.array.shape)
        taken = np.take(value.array, places, axis)
        array = np.empty(np.shape(taken), dtype=object)
        array[...] = taken
        check_size(array.size)
        return Host(array, value.dtype)
    tensor = to_tensor(value)
    axis %= tensor.dim()
    if isinstance(indices, Host) and indices.array.ndim == 0:
        return tensor.select(axis, indices.array.item())
    places_along = _wrapped(call, 1, tensor.shape[axis])
    if axis == 0 and tensor.dim() == 2 and tensor.is_floating_point() and call.is_constant(0):
        return functional.embedding(places_along, tensor)
    shape = [*tensor.shape[:axis], *places_along.shape, *tensor.shape[axis + 1 :]]
    return tensor.index_select(axis, places_along.reshape(-1)).reshape(shape)


def _wrapped(call: Call, index: int, size: Any) -> torch.Tensor:
    """Returns indices as a tensor, constant negative ones counted from the end; data must give no negative ones."""
    indices = call.value(index)
    if not isinstance(indices, Host) and call.is_constant(index):
        from_end = (call.constant(index) < 0).any()
        return torch.where(indices < 0, indices + size, indices) if from_end else _as_index(indices)
    if not isinstance(indices, Host):
        return _as_index(indices)
    wrap = elementwise(
        lambda number: number + size if isinstance(number, int) and number < 0 else number, [indices], torch.int64
    )
    return to_tensor(wrap)


def _as_index(tensor: torch.Tensor) -> torch.Tensor:
    # A conversion to what it is would stand in the graph.
    return tensor if tensor.dtype is torch.int64 else tensor.to(torch.int64)


def _gather_elements(call: Call) -> torch.Tensor:
    value = call.tensor(0)
    axis = call.attribute("axis", 0) % value.dim()
    return torch.gather(value, axis, _wrapped(call, 1, value.shape[axis]))


def _gather_nd(call: Call) -> torch.Tensor:
    value, indices = call.tensor(0), call.tensor(1)
    leading = call.attribute("batch_dims", 0)
    places = list(_as_index(indices).unbind(-1))
    if leading:
        # One more index for each leading axis that both share.
        rank = places[0].dim()
        own = [
            torch.arange(value.shape[axis]).reshape([-1 if at == axis else 1 for at in range(rank)])
            for axis in range(leading)
        ]
        places = [*own, *places]
    return value[tuple(places)]


def _scatter_elements(call: Call) -> torch.Tensor:
    value, updates = call.tensor(0), call.tensor(2)
    axis, reduction = call.attribute("axis", 0) % value.dim(), call.attribute("reduction", "none")
    indices = _wrapped(call, 1, value.shape[axis])
    if reduction == "none":
        return value.scatter(axis, indices, updates)
    names = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}
    if reduction not in names:
        raise NotImportable(f"reduction {reduction!r}")
    return value.scatter_reduce(axis, indices, updates, names[reduction])


def _scatter_nd(call: Call) -> torch.Tensor:
    value, indices, updates = call.tensor(0), call.tensor(1), call.tensor(2)
    reduction = call.attribute("reduction", "none")
    if reduction not in ("none", "add"):
        raise NotImportable(f"reduction {reduction!r}")
    places = tuple(_as_index(indices).unbind(-1))
    return value.index_put(places, updates, accumulate=reduction == "add")


def _pad(call: Call) -> torch.Tensor:
    value, pads = call.tensor(0), call.ints(1)
    axes = call.ints(3) if call.has(3) else list(range(value.dim()))
    mode = call.attribute("mode", "constant")
    amounts = {axis % value.dim(): (pads[at], pads[at + len(axes)]) for at, axis in enumerate(axes)}
    amounts = {axis: amount for axis, amount in sorted(amounts.items()) if amount != (0, 0)}
    if not amounts:
        return value
    if any(not isinstance(value.shape[axis], int) for axis in amounts):
        raise MixesRows("it pads the batch")
    if mode == "constant":
        return functional.pad(value, _flat(amounts, value.dim()), value=call.number(2, 0))
    if mode not in _MODES:
        raise NotImportable(f"mode {mode!r}")
    if any(abs(count) > MAX_PLACES or value.shape[axis] > MAX_PLACES for axis in amounts for count in amounts[axis]):
        raise NotImportable(f"mode {mode!r} by {list(amounts.values())}")
    padded_last = value.dim() - min(amounts)
    if mode in _TORCH_MODES and value.dim() == padded_last + 2 and min(min(amount) for amount in amounts.values()) >= 0:
        return functional.pad(value, _flat(amounts, value.dim())[: 2 * padded_last], mode=_TORCH_MODES[mode])
    for axis, (before, after) in amounts.items():
        places = np.arange(value.shape[axis])
        places = places[max(0, -before) : len(places) + min(0, after)]
        padded = np.pad(places, (max(0, before), max(0, after)), mode=mode)
        value = select(value, axis, padded.tolist())
    return value


def _flat(amounts: Mapping[int, tuple[int, int]], rank: int) -> list[int]:
    """Returns amounts as torch takes them: the last axis first, nothing in front of the first padded axis."""
    result: list[int] = []
    for axis in range(rank - 1, min(amounts) - 1, -1):
        result += amounts.get(axis, (0, 0))
    return result


def _triangle(call: Call) -> torch.Tensor:
    diagonal = int(call.number(1, 0))
    return torch.triu(call.tensor(0), diagonal) if call.attribute("upper", 1) else torch.tril(call.tensor(0), diagonal)


def _one_hot(call: Call) -> torch.Tensor:
    indices, depth, axis = call.tensor(0), int(call.number(1, 0)), call.attribute("axis", -1)
    values = call.tensor(2)
    axis %= indices.dim() + 1
    shape = [depth if at == axis else 1 for at in range(indices.dim() + 1)]
    places = torch.arange(depth).reshape(shape)
    indices = _as_index(torch.where(indices < 0, indices + depth, indices))
    return torch.where(indices.unsqueeze(axis) == places, values[1], values[0])


def _depth_to_space(call: Call) -> torch.Tensor:
    value, block = call.tensor(0), call.attribute("blocksize")
    if call.attribute("mode", "DCR") == "CRD":
        return functional.pixel_shuffle(value, block)
    batch, channels, height, width = value.shape
    value = value.reshape(batch, block, block, channels // block**2, height, width).permute(0, 3, 4, 1, 5, 2)
    return value.reshape(batch, channels // block**2, height * block, width * block)


def _space_to_depth(call: Call) -> torch.Tensor:
    value, block = call.tensor(0), call.attribute("blocksize")
    batch, channels, height, width = value.shape
    value = value.reshape(batch, channels, height // block, block, width // block, block).permute(0, 3, 5, 1, 2, 4)
    return value.reshape(batch, channels * block**2, height // block, width // block)


TABLE: Mapping[str, Function] = {
    "Slice": _slice,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "Pad": _pad,
    "Trilu": _triangle,
    "OneHot": _one_hot,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
}

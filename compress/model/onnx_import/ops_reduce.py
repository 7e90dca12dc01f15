"""Reductions over axes, and what orders elements.

Source: ONNX Operators.md.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch

from compress.model.onnx_import.call import Call
from compress.model.onnx_import.errors import NotImportable
from compress.model.onnx_import.ops_math import Function
from compress.model.onnx_import.values import Host, Value, host, largest, smallest, to_tensor

# Since which opset the axes are an input.
_AXES_INPUT = 18
_OnTensor = Callable[[torch.Tensor, list[int], bool], torch.Tensor]


def _reduction(
    on_tensor: _OnTensor, on_numbers: Callable[[Any, Any], Any] | None = None, since: int = _AXES_INPUT
) -> Function:
    def read(call: Call) -> Value:
        value, axes = call.value(0), call.axes(1, since)
        keep = bool(call.attribute("keepdims", 1))
        if not axes and call.attribute("noop_with_empty_axes", 0):
            return value
        if isinstance(value, Host) and value.array.ndim == 1 and value.array.size and on_numbers is not None:
            number = functools.reduce(on_numbers, value.array)
            return host([number] if keep else number, value.dtype)
        tensor = to_tensor(value)
        over = [axis % tensor.dim() for axis in axes] if axes else list(range(tensor.dim()))
        return on_tensor(tensor, over, keep) if over else tensor

    return read


def _product(value: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    for axis in sorted(axes, reverse=True):
        value = torch.prod(value, axis, keepdim=keep, dtype=value.dtype)
    return value


def _mean(value: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    if value.is_floating_point():
        return value.mean(axes, keepdim=keep)
    raise NotImportable("the mean of integers")


def _sum(value: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    return value.sum(axes, keepdim=keep, dtype=value.dtype)


def _norm(value: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    return torch.sqrt((value * value).sum(axes, keepdim=keep, dtype=value.dtype))


def _arg(on_tensor: Callable[..., torch.Tensor]) -> Function:
    def read(call: Call) -> torch.Tensor:
        value, axis = call.tensor(0), call.attribute("axis", 0)
        keep = bool(call.attribute("keepdims", 1))
        if not call.attribute("select_last_index", 0):
            return on_tensor(value, axis, keepdim=keep)
        from_end = on_tensor(value.flip(axis), axis, keepdim=keep)
        return torch.rsub(from_end, value.shape[axis] - 1)

    return read


def _top_k(call: Call) -> tuple[torch.Tensor, torch.Tensor]:
    count = call.ints(1)[0]
    largest, in_order = bool(call.attribute("largest", 1)), bool(call.attribute("sorted", 1))
    values, indices = torch.topk(call.tensor(0), count, call.attribute("axis", -1), largest, in_order)
    return values, indices


TABLE: Mapping[str, Function] = {
    "ReduceMean": _reduction(_mean),
    "ReduceSum": _reduction(_sum, operator.add, since=13),
    "ReduceMax": _reduction(lambda value, axes, keep: value.amax(axes, keepdim=keep), largest),
    "ReduceMin": _reduction(lambda value, axes, keep: value.amin(axes, keepdim=keep), smallest),
    "ReduceProd": _reduction(_product, operator.mul),
    "ReduceL1": _reduction(lambda value, axes, keep: value.abs().sum(axes, keepdim=keep, dtype=value.dtype)),
    "ReduceL2": _reduction(_norm),
    "ReduceSumSquare": _reduction(lambda value, axes, keep: (value * value).sum(axes, keepdim=keep, dtype=value.dtype)),
    "ReduceLogSum": _reduction(lambda value, axes, keep: value.sum(axes, keepdim=keep).log()),
    "ReduceLogSumExp": _reduction(lambda value, axes, keep: value.logsumexp(axes, keepdim=keep)),
    "ArgMax": _arg(torch.argmax),
    "ArgMin": _arg(torch.argmin),
    "TopK": _top_k,
}

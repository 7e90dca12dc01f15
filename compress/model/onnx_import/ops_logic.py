"""Comparisons, logic, choices and changes of type.

Source: ONNX Operators.md.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch

from compress.model.onnx_import.call import Call
from compress.model.onnx_import.errors import NotImportable
from compress.model.onnx_import.ops_math import Function, binary, unary
from compress.model.onnx_import.tensors import DTYPES
from compress.model.onnx_import.values import Host, Value, cast_number, elementwise, to_tensor


def _comparison(function: Callable[[Any, Any], Any]) -> Function:
    return binary(function, lambda left, right: bool(function(left, right)), torch.bool)


def _logical(on_tensors: Callable[[Any, Any], torch.Tensor], on_numbers: Callable[[Any, Any], Any]) -> Function:
    return binary(on_tensors, lambda left, right: bool(on_numbers(left, right)), torch.bool)


def _where(call: Call) -> Value:
    condition, chosen, other = (call.value(index) for index in range(3))
    if isinstance(condition, Host) and isinstance(chosen, Host) and isinstance(other, Host):
        return elementwise(lambda test, one, two: one if test else two, [condition, chosen, other], chosen.dtype)
    return torch.where(to_tensor(condition), _choice(chosen), _choice(other))


def _choice(value: Value) -> torch.Tensor:
    if isinstance(value, Host) and value.array.size == 1 and value.array.ndim == 0:
        return torch.full((), value.array.flat[0], dtype=value.dtype)
    return to_tensor(value)


def _is_infinite(call: Call) -> torch.Tensor:
    value = call.tensor(0)
    positive, negative = call.attribute("detect_positive", 1), call.attribute("detect_negative", 1)
    if positive and negative:
        return torch.isinf(value)
    if not positive and not negative:
        return torch.zeros_like(value, dtype=torch.bool)
    return value == (float("inf") if positive else float("-inf"))


def _cast(call: Call) -> Value:
    number = call.attribute("to", 0)
    dtype = DTYPES.get(number)
    if dtype is None:
        raise NotImportable(f"to the ONNX data type {number}")
    return _to(call.value(0), dtype)


def _cast_like(call: Call) -> Value:
    return _to(call.value(0), call.value(1).dtype)


def _to(value: Value, dtype: torch.dtype) -> Value:
    if isinstance(value, Host):
        return elementwise(lambda number: cast_number(number, dtype), [value], dtype)
    return value if value.dtype is dtype else value.to(dtype)


TABLE: Mapping[str, Function] = {
    "Equal": _comparison(operator.eq),
    "Less": _comparison(operator.lt),
    "Greater": _comparison(operator.gt),
    "LessOrEqual": _comparison(operator.le),
    "GreaterOrEqual": _comparison(operator.ge),
    "And": _logical(torch.logical_and, lambda left, right: left and right),
    "Or": _logical(torch.logical_or, lambda left, right: left or right),
    "Xor": _logical(torch.logical_xor, operator.ne),
    "Not": unary(torch.logical_not, operator.not_),
    "Where": _where,
    "IsNaN": unary(torch.isnan),
    "IsInf": _is_infinite,
    "Cast": _cast,
    "CastLike": _cast_like,
}

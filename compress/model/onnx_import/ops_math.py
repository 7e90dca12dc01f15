"""Arithmetic, element by element, on tensors and on numbers.

Source: ONNX Operators.md.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch

from compress.model.onnx_import.batch import check_broadcast
from compress.model.onnx_import.call import Call
from compress.model.onnx_import.errors import NotImportable
from compress.model.onnx_import.values import (
    Host,
    Value,
    elementwise,
    largest,
    smallest,
    to_tensor,
    truncated_division,
)

Function = Callable[[Call], Any]


def unary(on_tensor: Callable[[torch.Tensor], torch.Tensor], on_number: Callable[[Any], Any] | None = None) -> Function:
    """Returns the reader of an operator of one input."""

    def read(call: Call) -> Value:
        value = call.value(0)
        if isinstance(value, Host) and on_number is not None:
            return elementwise(on_number, [value], value.dtype)
        return on_tensor(to_tensor(value))

    return read


def binary(
    on_tensors: Callable[[Any, Any], torch.Tensor],
    on_numbers: Callable[[Any, Any], Any],
    dtype: torch.dtype | None = None,
) -> Function:
    """Returns the reader of an operator of two inputs that are broadcast.

    Args:
        on_tensors: Takes tensors, or a tensor and a number.
        on_numbers: Takes numbers.
        dtype: Of the result, where it is not that of the inputs.
    """

    def read(call: Call) -> Value:
        left, right = call.value(0), call.value(1)
        if isinstance(left, Host) and isinstance(right, Host):
            return elementwise(on_numbers, [left, right], dtype or left.dtype)
        if isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor):
            check_broadcast(left.shape, right.shape, call.batch)
        return on_tensors(*operands(left, right))

    return read


def operands(left: Value, right: Value) -> tuple[Any, Any]:
    """Returns two operands of which at most one is a number: the one that adds no dimension."""
    if isinstance(right, Host) and isinstance(left, torch.Tensor):
        return left, _scalar(right, left)
    if isinstance(left, Host) and isinstance(right, torch.Tensor):
        return _scalar(left, right), right
    return to_tensor(left), to_tensor(right)


def _scalar(value: Host, other: torch.Tensor) -> Any:
    # A number beside a tensor of another type would change the result's type.
    same_kind = value.dtype.is_floating_point == other.dtype.is_floating_point and torch.bool not in (
        value.dtype,
        other.dtype,
    )
    if value.array.size == 1 and value.array.ndim <= other.dim() and same_kind:
        return value.array.flat[0]
    return to_tensor(value)


def _divide(call: Call) -> Any:
    if call.value(0).dtype.is_floating_point:
        return binary(operator.truediv, operator.truediv)(call)
    return binary(lambda left, right: torch.div(left, right, rounding_mode="trunc"), truncated_division)(call)


def _power(call: Call) -> Value:
    base, exponent = call.value(0), call.value(1)
    if isinstance(base, Host) and isinstance(exponent, Host):
        return elementwise(operator.pow, [base, exponent], base.dtype)
    # The exponent may be of another type; the result has the base's.
    dtype = base.dtype
    if isinstance(exponent, Host) and exponent.array.size == 1 and exponent.array.ndim <= to_tensor(base).dim():
        number = exponent.array.flat[0]
        whole = isinstance(number, float) and number.is_integer() and not dtype.is_floating_point
        return torch.pow(to_tensor(base), int(number) if whole else number).to(dtype)
    return torch.pow(to_tensor(base), to_tensor(exponent)).to(dtype)


def _modulo(call: Call) -> Any:
    if call.attribute("fmod", 0):
        return torch.fmod(call.tensor(0), call.tensor(1))
    return binary(lambda left, right: torch.remainder(left, right), operator.mod)(call)


def _variadic(on_tensors: Callable[[Any, Any], torch.Tensor], on_numbers: Callable[[Any, Any], Any]) -> Function:
    def read(call: Call) -> Value:
        values = [call.value(index) for index in range(call.count)]
        if all(isinstance(value, Host) for value in values):
            hosts = [value for value in values if isinstance(value, Host)]
            return elementwise(lambda *numbers: functools.reduce(on_numbers, numbers), hosts, hosts[0].dtype)
        return functools.reduce(on_tensors, [to_tensor(value) for value in values])

    return read


def _mean(call: Call) -> torch.Tensor:
    return functools.reduce(operator.add, call.tensors()) / call.count


def _clip(call: Call) -> Value:
    value = call.value(0)
    if isinstance(value, Host):
        return _clip_numbers(value, call.number(1, None), call.number(2, None))
    bounds: list[Any] = []
    for index in (1, 2):
        known = call.known(index) if call.has(index) else None
        bounds.append(known.array.flat[0] if known is not None and known.array.size == 1 else call.optional(index))
    low, high = bounds
    if low is None and high is None:
        return value
    if (low, high) == (0.0, 6.0) and not any(isinstance(bound, torch.Tensor) for bound in bounds):
        return torch.nn.functional.hardtanh(value, 0.0, 6.0)
    if any(isinstance(bound, torch.Tensor) for bound in bounds):
        low = low if low is None or isinstance(low, torch.Tensor) else torch.full((), low, dtype=value.dtype)
        high = high if high is None or isinstance(high, torch.Tensor) else torch.full((), high, dtype=value.dtype)
    return torch.clamp(value, low, high)


def _clip_numbers(value: Host, low: Any, high: Any) -> Host:
    def clip(number: Any) -> Any:
        number = number if low is None else largest(number, low)
        return number if high is None else smallest(number, high)

    return elementwise(clip, [value], value.dtype)


def _round(value: Any) -> Any:
    return round(value) if isinstance(value, float | int) else _refuse_symbol("Round")


def _refuse_symbol(name: str) -> Any:
    raise NotImportable(f"{name} of the batch size")


def _on_float(function: Callable[[float], float]) -> Callable[[Any], Any]:
    """Returns a function of known numbers; one of the batch's size is no shape arithmetic."""

    def apply(number: Any) -> Any:
        return function(number) if isinstance(number, float | int) else _refuse_symbol(function.__name__)

    return apply


def _whole(function: Callable[[Any], Any], number: Any) -> Any:
    if isinstance(number, float):
        return float(function(number))
    return number if isinstance(number, int | torch.SymInt) else function(number)


def _root(number: Any) -> Any:
    return math.sqrt(number) if isinstance(number, float | int) else number**0.5


def _cumulative_sum(call: Call) -> torch.Tensor:
    value, axis = call.tensor(0), int(call.number(1, 0))
    reverse, exclusive = call.attribute("reverse", 0), call.attribute("exclusive", 0)
    value = value.flip(axis) if reverse else value
    # Subtracting the value itself would round twice.
    result = torch.cumsum(value, axis, dtype=value.dtype)
    if exclusive:
        length = value.shape[axis]
        result = torch.cat([torch.zeros_like(value.narrow(axis, 0, 1)), result.narrow(axis, 0, length - 1)], axis)
    return result.flip(axis) if reverse else result


TABLE: Mapping[str, Function] = {
    "Add": binary(operator.add, operator.add),
    "Sub": binary(operator.sub, operator.sub),
    "Mul": binary(operator.mul, operator.mul),
    "Div": _divide,
    "Pow": _power,
    "Mod": _modulo,
    "Min": _variadic(torch.minimum, smallest),
    "Max": _variadic(torch.maximum, largest),
    "Sum": _variadic(operator.add, operator.add),
    "Mean": _mean,
    "Clip": _clip,
    "CumSum": _cumulative_sum,
    "Abs": unary(torch.abs, abs),
    "Neg": unary(torch.neg, operator.neg),
    "Sign": unary(torch.sign),
    "Sqrt": unary(torch.sqrt, _root),
    "Reciprocal": unary(torch.reciprocal, lambda number: 1 / number),
    "Exp": unary(torch.exp, _on_float(math.exp)),
    "Log": unary(torch.log, _on_float(math.log)),
    "Floor": unary(torch.floor, lambda number: _whole(math.floor, number)),
    "Ceil": unary(torch.ceil, lambda number: _whole(math.ceil, number)),
    "Round": unary(torch.round, _round),
    "Erf": unary(torch.erf),
    "Sin": unary(torch.sin),
    "Cos": unary(torch.cos),
    "Tan": unary(torch.tan),
    "Asin": unary(torch.asin),
    "Acos": unary(torch.acos),
    "Atan": unary(torch.atan),
    "Sinh": unary(torch.sinh),
    "Cosh": unary(torch.cosh),
    "Asinh": unary(torch.asinh),
    "Acosh": unary(torch.acosh),
    "Atanh": unary(torch.atanh),
}

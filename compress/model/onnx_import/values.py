"""What flows through the graph while it is read into torch: tensors, and numbers, known or a function of the batch.

Shape arithmetic is done on numbers. A tensor made of them would tie a reshape to the values of a trace.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from compress.model.onnx_import.errors import NotImportable

# torch's own, which take symbols.
largest: Callable[..., Any] = torch.sym_max
smallest: Callable[..., Any] = torch.sym_min
# More numbers than shape arithmetic needs are a table: a tensor.
MAX_NUMBERS = 1024
_SYMBOLIC = (torch.SymInt, torch.SymFloat, torch.SymBool)
Number = int | float | bool | torch.SymInt | torch.SymFloat


@dataclass(frozen=True, eq=False)
class Host:
    """Numbers of any shape, known while the graph is read.

    Attributes:
        array: Python numbers, or torch's symbols where they depend on the batch.
        dtype: Of the tensor that they stand for.
    """

    array: NDArray[Any]
    dtype: torch.dtype


Value = torch.Tensor | Host


def host(numbers: Any, dtype: torch.dtype = torch.int64) -> Host:
    """Returns a number, or a list of them, as a value."""
    if isinstance(numbers, list | tuple):
        array = np.empty(len(numbers), dtype=object)
        for index, number in enumerate(numbers):
            array[index] = number
    else:
        array = np.empty((), dtype=object)
        array[()] = numbers
    return Host(array, dtype)


def host_of(tensor: torch.Tensor) -> Host:
    """Returns a constant's content as numbers."""
    return numbers_in(content(tensor), tensor.dtype)


def content(tensor: torch.Tensor) -> NDArray[Any]:
    """Returns a constant's content as an array, which a trace leaves alone; numpy has no bfloat16."""
    return (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).detach().numpy()


def numbers_in(array: NDArray[Any], dtype: torch.dtype) -> Host:
    """Returns an array as numbers."""
    result = np.empty(array.shape, dtype=object)
    result[...] = np.array(array.tolist(), dtype=object).reshape(array.shape)
    return Host(result, dtype)


def to_tensor(value: Value) -> torch.Tensor:
    """Returns a value as a tensor; numbers that are known become a constant of the graph."""
    if isinstance(value, torch.Tensor):
        return value
    numbers = list(value.array.flat)
    if any(isinstance(number, _SYMBOLIC) for number in numbers):
        scalars = [torch.scalar_tensor(number, dtype=value.dtype) for number in numbers]
        return torch.stack(scalars).reshape(value.array.shape)
    return torch.tensor(value.array.tolist(), dtype=value.dtype).reshape(value.array.shape)


def numbers_of(value: Host) -> list[Any]:
    """Returns the numbers of a value, flat."""
    return list(value.array.flat)


def elementwise(function: Callable[..., Any], values: Iterable[Host], dtype: torch.dtype) -> Host:
    """Returns a function of numbers, broadcast over values.

    Raises:
        NotImportable: If the result would be no shape arithmetic any more.
    """
    arrays = np.broadcast_arrays(*(value.array for value in values))
    check_size(arrays[0].size)
    result = np.empty(arrays[0].shape, dtype=object)
    for index in np.ndindex(result.shape):
        result[index] = function(*(array[index] for array in arrays))
    return Host(result, dtype)


def check_size(size: int) -> None:
    """Raises NotImportable for more numbers than are computed one by one."""
    if size > MAX_NUMBERS:
        raise NotImportable(f"{size} numbers computed from shapes")


def truncated_division(left: Any, right: Any) -> Any:
    """Returns a quotient of integers, rounded towards zero as in ONNX."""
    if isinstance(left, int) and isinstance(right, int):
        quotient = abs(left) // abs(right)
        return quotient if (left < 0) == (right < 0) else -quotient
    return left // right


def cast_number(number: Any, dtype: torch.dtype) -> Any:
    """Returns a number as another type. The batch's size stays an integer: what is computed of it can be told."""
    if dtype is torch.bool:
        return bool(number)
    if isinstance(number, torch.SymInt):
        return number
    if dtype.is_floating_point:
        return number if isinstance(number, torch.SymFloat) else float(number)
    return torch.sym_int(number) if isinstance(number, torch.SymFloat) else int(number)  # type: ignore[no-untyped-call]


def product(sizes: Iterable[Any]) -> Any:
    """Returns a product of sizes, symbols among them."""
    return math.prod(sizes)

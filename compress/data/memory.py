"""Model inputs that are held in memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from compress.data.base import TensorSpec
from compress.data.columns import at
from compress.errors import DataError

_KEPT = ("float32", "float16", "int64", "int32", "uint8", "bool")


@dataclass(frozen=True, eq=False)
class MemoryReader:
    """Inputs as arrays `[rows, ...]`, all of the same number of rows."""

    inputs: Mapping[str, NDArray[Any]]

    def signature(self) -> tuple[TensorSpec, ...]:
        """Returns name, shape of one row and dtype of each input."""
        return tuple(TensorSpec(name, values.shape[1:], values.dtype.name) for name, values in self.inputs.items())

    def read(self, rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Returns a copy `[len(rows), *shape]` of each input."""
        return {name: values[rows] for name, values in self.inputs.items()}

    def digest(self) -> str:
        """Returns the SHA-256 of name, dtype, shape and bytes of every input."""
        digest = hashlib.sha256()
        for name in sorted(self.inputs):
            values = self.inputs[name]
            digest.update(json.dumps([name, values.dtype.name, list(values.shape)]).encode())
            digest.update(np.ascontiguousarray(values, values.dtype.newbyteorder("<")).data.cast("B"))
        return digest.hexdigest()


def as_input(values: NDArray[Any], name: str, file: str) -> NDArray[Any]:
    """Returns an array in a dtype that a model takes: `float64` becomes `float32`, the others stay.

    Raises:
        DataError: If a model takes no such dtype.
    """
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if values.dtype == np.float64:
        with np.errstate(over="ignore"):
            return values.astype(np.float32)
    if values.dtype.name not in _KEPT:
        raise DataError(
            f"{file}: the input {name!r} is {values.dtype}; inputs are float64 (read as float32), {', '.join(_KEPT)}",
            "convert it with array.astype(...); a label or a group belongs to data.label or data.sensitive.",
        )
    return values


def fill_missing(
    values: NDArray[Any], name: str, missing: Literal["nan", "error"] | float, file: str, where: str
) -> tuple[NDArray[Any], str]:
    """Treats missing values (NaN) of an input or a column as the recipe says.

    Args:
        values: `[rows, ...]`; only floats can be missing.
        name: The input or column.
        missing: `data.missing`: `nan` keeps them, `error` refuses them, a number takes their place.
        file: The file, for the message.
        where: The recipe's name, for the message.

    Returns:
        The values, and a note such as `AGE 3` on how many were missing; empty where none was.

    Raises:
        DataError: If `missing` is `error` and there are some.
    """
    if values.dtype.kind != "f":
        return values, ""
    empty = np.isnan(values)
    count = int(empty.sum())
    if not count:
        return values, ""
    if missing == "error":
        row = int(np.argwhere(empty)[0][0])
        raise DataError(
            f'{where}: data.missing = "error": {name!r} of {file} has {count} missing values, first in {at(row)}',
            'set data.missing to "nan" or to a number, or fill them in the file.',
        )
    if missing != "nan":
        values = np.where(empty, np.asarray(missing, values.dtype), values)
    return values, f"{name} {count}"


def missing_note(counts: list[str], missing: Literal["nan", "error"] | float) -> tuple[str, ...]:
    """Returns the note on missing values, from what `fill_missing` said of each column."""
    counts = [count for count in counts if count]
    if not counts:
        return ()
    treated = f"filled with {missing:g}" if isinstance(missing, float) else "kept as NaN"
    return (f"missing values {treated}: {', '.join(counts)}.",)

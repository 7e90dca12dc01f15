"""The constants of an `.onnx` file: what they claim is checked against what is there, then they are read.

Source: onnx.proto (message TensorProto), ExternalData.md.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from compress.errors import ModelError
from compress.model.onnx_beside import EXTERNAL, Neighbours
from compress.model.onnx_import.proto import EXPORT_AGAIN
from compress.registry import require

MAX_RANK = 64
# The most that the constants in other files may take together; many may point to one region.
MAX_EXTERNAL_BYTES = 4 << 30
# onnx.TensorProto.DataType of the types that torch has.
DTYPES: dict[int, torch.dtype] = {
    1: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    4: torch.uint16,
    5: torch.int16,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float16,
    11: torch.float64,
    12: torch.uint32,
    13: torch.uint64,
    16: torch.bfloat16,
}
# uint4, int4, uint2, int2 and the 8- and 4-bit floats: what only quantized weights are stored in.
NARROW = frozenset({2, 3, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26})
# The field of TensorProto that holds a type's values when they are not raw bytes; int32_data takes the rest.
_FIELDS = {1: "float_data", 7: "int64_data", 11: "double_data", 12: "uint64_data", 13: "uint64_data"}


class TensorReader:
    """Reads the constants of one model.

    Args:
        path: The model file; external data must stay inside its folder and may not pass through a link.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._neighbours = Neighbours(path)
        self._read: dict[int, tuple[Any, torch.Tensor]] = {}
        self._claimed = 0

    def read(self, name: str, proto: Any) -> torch.Tensor:
        """Returns a stored tensor; the same one for the same message.

        Raises:
            UnsafeFileError: If external data leaves the model's folder or passes through a link.
            ModelError: If it claims bytes that are not there, or is of a type that torch has not.
        """
        # The message is kept, so that no other one gets its identity.
        if id(proto) not in self._read:
            self._read[id(proto)] = (proto, self._checked(name, proto))
        return self._read[id(proto)][1]

    def _checked(self, name: str, proto: Any) -> torch.Tensor:
        where = f"{self._path}: the constant {name[:120]!r}"
        shape = tuple(int(size) for size in proto.dims)
        dtype = DTYPES.get(proto.data_type)
        if dtype is None:
            raise ModelError(f"{where} is of the ONNX data type {proto.data_type}, which torch has not", "convert it.")
        if len(shape) > MAX_RANK or min(shape, default=0) < 0:
            raise ModelError(f"{where} has an impossible shape ({len(shape)} dimensions)", EXPORT_AGAIN)
        needed = math.prod(shape) * dtype.itemsize
        if proto.data_location == EXTERNAL:
            return _from_bytes(self._external(proto, needed, where), dtype, shape)
        if proto.HasField("raw_data"):
            if len(proto.raw_data) != needed:
                raise _mismatch(where, shape, needed, len(proto.raw_data), "bytes")
            return _from_bytes(proto.raw_data, dtype, shape)
        held = getattr(proto, _FIELDS.get(proto.data_type, "int32_data"))
        if len(held) != math.prod(shape):
            raise _mismatch(where, shape, math.prod(shape), len(held), "values")
        return from_array(require("onnx.numpy_helper").to_array(proto))

    def _external(self, proto: Any, needed: int, where: str) -> bytes:
        span = self._neighbours.find(proto, needed, where)
        self._claimed += needed
        if self._claimed > MAX_EXTERNAL_BYTES:
            raise ModelError(f"{self._path}: its constants claim more than {MAX_EXTERNAL_BYTES} bytes", EXPORT_AGAIN)
        try:
            with span.file.open("rb") as opened:
                opened.seek(span.offset)
                return opened.read(span.length)
        except OSError as error:
            raise ModelError(
                f"{where}: {span.location[:200]!r} cannot be read ({error.strerror})", "check the file."
            ) from error


def from_array(array: NDArray[Any]) -> torch.Tensor:
    """Returns an array as a tensor of its own memory."""
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(np.array(array, order="C"))


def _from_bytes(data: bytes, dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    if not data:
        return torch.empty(shape, dtype=dtype)
    if dtype is torch.bool:
        # A byte other than 0 and 1 in a bool makes undefined behaviour of every reader.
        return torch.frombuffer(bytearray(data), dtype=torch.uint8).reshape(shape) != 0
    return torch.frombuffer(bytearray(data), dtype=dtype).reshape(shape)


def _mismatch(where: str, shape: tuple[int, ...], needed: int, held: int, unit: str) -> ModelError:
    shown = "×".join(str(size) for size in shape[:8]) or "scalar"
    return ModelError(f"{where} of shape {shown} needs {needed} {unit}; the file holds {held}", EXPORT_AGAIN)

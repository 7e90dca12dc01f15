"""The part of a `.tflite` file that describes it, read with bounds on everything that a file can claim.

The object form of the schema's own library (`flatbuffer.read`) copies every vector as often as a file points to it, so
a crafted file of one megabyte can keep it busy for days. Here only what is needed is read, lengths checked first.
Source: the TensorFlow Lite schema, through the accessors that are generated from it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.errors import ModelError
from compress.model.fileinfo import bits_of
from compress.registry import require

MAX_RANK = 64
# Vectors' entries and strings' bytes, together, that are read one by one; the largest real files have a tenth of it.
MAX_ENTRIES = 500_000
MAX_TEXT_BYTES = 32 << 20
_EXPORT_AGAIN = "convert or copy the model again; the file is damaged."
# Offsets 0 and 1 mean that a buffer's bytes lie inside the flatbuffer.
_INSIDE = (0, 1)


@dataclass(frozen=True)
class Tensor:
    """A tensor of a subgraph. `buffer` is None unless its content is in the file; `declared` has -1 where dynamic."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    declared: tuple[int, ...]
    buffer: int | None
    scales: int
    sparse: bool

    @property
    def elements(self) -> int:
        """The product of the shape, dynamic dimensions counted as 1."""
        return math.prod(1 if size < 0 else size for size in self.shape)


@dataclass(frozen=True)
class Operator:
    """A call: the builtin's name or the custom operator's, and tensor numbers, -1 for an input that is left out."""

    kind: str
    custom: bool
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    left_transposed: bool = False


@dataclass(frozen=True)
class Subgraph:
    """The tensors and operators of one function, in the order of the file."""

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Signature:
    """Real names of a subgraph's inputs and outputs, with tensor numbers."""

    key: str
    subgraph: int
    inputs: tuple[tuple[str, int], ...]
    outputs: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Flat:
    """A `.tflite` file without the content of its buffers."""

    version: int
    description: str
    subgraphs: tuple[Subgraph, ...]
    signatures: tuple[Signature, ...]


def read_flat(data: bytes, path: Path) -> Flat:
    """Reads a flatbuffer's description and checks that its buffers hold what the tensors claim.

    Raises:
        ModelError: If an index, a length or an offset points outside, or a tensor claims more bytes than its buffer.
    """
    return _Reader(data, path).flat()


class _Reader:
    def __init__(self, data: bytes, path: Path) -> None:
        self._schema = require("ai_edge_litert.schema_py_generated", why="reading .tflite files")
        self._data = data
        self._path = path
        self._entries = 0
        self._text_bytes = 0
        self._builtins = _names(self._schema.BuiltinOperator)
        self._types = {code: name.lower() for code, name in _names(self._schema.TensorType).items()}

    def flat(self) -> Flat:
        model = self._schema.Model.GetRootAs(self._data, 0)
        buffers = [self._buffer_bytes(model.Buffers(index)) for index in self._range(model.BuffersLength())]
        codes = [self._code(model.OperatorCodes(index)) for index in self._range(model.OperatorCodesLength())]
        subgraphs = tuple(
            self._subgraph(model.Subgraphs(index), codes, buffers) for index in self._range(model.SubgraphsLength())
        )
        if not subgraphs:
            raise self._damaged("it has no graph")
        signatures = tuple(
            self._signature(model.SignatureDefs(index), subgraphs) for index in self._range(model.SignatureDefsLength())
        )
        return Flat(int(model.Version()), self._text(model.Description()), subgraphs, signatures)

    def _subgraph(self, graph: Any, codes: list[tuple[str, bool]], buffers: list[int]) -> Subgraph:
        tensors = tuple(self._tensor(graph.Tensors(index), buffers) for index in self._range(graph.TensorsLength()))
        operators = []
        for index in self._range(graph.OperatorsLength()):
            operator = graph.Operators(index)
            code = operator.OpcodeIndex()
            if code >= len(codes):
                raise self._damaged(f"operator {index} has the code {code} of {len(codes)}")
            kind, custom = codes[code]
            operators.append(
                Operator(
                    kind,
                    custom,
                    self._tensor_numbers(operator.InputsAsNumpy(), len(tensors)),
                    self._tensor_numbers(operator.OutputsAsNumpy(), len(tensors)),
                    kind == "BATCH_MATMUL" and self._left_transposed(operator),
                )
            )
        return Subgraph(
            tensors,
            tuple(operators),
            self._tensor_numbers(graph.InputsAsNumpy(), len(tensors)),
            self._tensor_numbers(graph.OutputsAsNumpy(), len(tensors)),
        )

    def _tensor(self, tensor: Any, buffers: list[int]) -> Tensor:
        name = self._text(tensor.Name())
        dtype = self._types.get(tensor.Type(), "")
        if not dtype:
            raise self._damaged(f"the tensor {name[:120]!r} has the unknown type {tensor.Type()}")
        shape = self._sizes(tensor.ShapeAsNumpy(), name)
        declared = self._sizes(tensor.ShapeSignatureAsNumpy(), name)
        number = int(tensor.Buffer())
        if number >= max(len(buffers), 1):
            raise self._damaged(f"the tensor {name[:120]!r} has the buffer {number} of {len(buffers)}")
        quantization = tensor.Quantization()
        stored = number if number and buffers[number] else None
        result = Tensor(
            name=name,
            dtype=dtype,
            shape=shape,
            declared=declared if len(declared) == len(shape) else shape,
            buffer=stored,
            scales=int(quantization.ScaleLength()) if quantization is not None else 0,
            sparse=tensor.Sparsity() is not None,
        )
        if stored is not None and not result.sparse:
            needed = (result.elements * bits_of(dtype) + 7) // 8
            if needed > buffers[stored]:
                raise self._damaged(
                    f"the tensor {name[:120]!r} needs {needed} bytes; its buffer holds {buffers[stored]}"
                )
        return result

    def _signature(self, entry: Any, subgraphs: tuple[Subgraph, ...]) -> Signature:
        number = int(entry.SubgraphIndex())
        if number >= len(subgraphs):
            raise self._damaged(f"a signature names the graph {number} of {len(subgraphs)}")
        limit = len(subgraphs[number].tensors)
        return Signature(
            self._text(entry.SignatureKey()),
            number,
            tuple(self._named(entry.Inputs(index), limit) for index in self._range(entry.InputsLength())),
            tuple(self._named(entry.Outputs(index), limit) for index in self._range(entry.OutputsLength())),
        )

    def _named(self, entry: Any, limit: int) -> tuple[str, int]:
        name, number = self._text(entry.Name()), int(entry.TensorIndex())
        if number >= limit:
            raise self._damaged(f"the signature's {name[:120]!r} is the tensor {number} of {limit}")
        return name, number

    def _code(self, entry: Any) -> tuple[str, bool]:
        # Small codes of old files live in a field of their own.
        code = max(int(entry.BuiltinCode()), int(entry.DeprecatedBuiltinCode()))
        if code == self._schema.BuiltinOperator.CUSTOM:
            return self._text(entry.CustomCode()) or "CUSTOM", True
        return self._builtins.get(code, f"BUILTIN_{code}"), code not in self._builtins

    def _buffer_bytes(self, buffer: Any) -> int:
        offset, size = int(buffer.Offset()), int(buffer.Size())
        if offset in _INSIDE:
            content = buffer.DataAsNumpy()
            return 0 if isinstance(content, int) else int(content.size)
        if offset + size > len(self._data):
            raise self._damaged(f"a buffer claims bytes {offset} to {offset + size} of {len(self._data)}")
        return size

    def _left_transposed(self, operator: Any) -> bool:
        table = operator.BuiltinOptions()
        if table is None or operator.BuiltinOptionsType() != self._schema.BuiltinOptions.BatchMatMulOptions:
            return False
        options = self._schema.BatchMatMulOptions()
        options.Init(table.Bytes, table.Pos)
        return bool(options.AdjX())

    def _range(self, length: int) -> range:
        self._entries += length
        if self._entries > MAX_ENTRIES:
            raise self._damaged(f"it claims more than {MAX_ENTRIES} tensors, operators and buffers")
        return range(length)

    def _tensor_numbers(self, vector: Any, limit: int) -> tuple[int, ...]:
        # The accessors give 0 for a vector that is not there.
        numbers = () if isinstance(vector, int) else tuple(int(vector[index]) for index in self._range(len(vector)))
        if any(not -1 <= number < limit for number in numbers):
            raise self._damaged(f"a tensor's number lies outside the {limit} tensors of its graph")
        return numbers

    def _sizes(self, vector: Any, name: str) -> tuple[int, ...]:
        if isinstance(vector, int):
            return ()
        if len(vector) > MAX_RANK:
            raise self._damaged(f"the tensor {name[:120]!r} has {len(vector)} dimensions")
        return tuple(int(size) for size in vector)

    def _text(self, value: bytes | None) -> str:
        self._text_bytes += len(value or b"")
        if self._text_bytes > MAX_TEXT_BYTES:
            raise self._damaged(f"its names are longer than {MAX_TEXT_BYTES} bytes together")
        return (value or b"").decode("utf-8", "backslashreplace")

    def _damaged(self, what: str) -> ModelError:
        return ModelError(f"{self._path}: {what}", _EXPORT_AGAIN)


def _names(enumeration: type) -> dict[int, str]:
    return {code: name for name, code in vars(enumeration).items() if isinstance(code, int)}

"""The constants of an `.onnx` file: type, shape, and whether the file holds the bytes that they claim."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from compress.errors import ModelError
from compress.model.fileinfo import StoredTensor, bits_of
from compress.model.onnx_beside import DTYPES, EXTERNAL, Neighbours, byte_length, dtype_name, text

MAX_RANK = 64
# Small constants are what shapes are computed from; the rest is weights.
_KEPT_ELEMENTS = 64
_EXPORT_AGAIN = "export or copy the model again; the file is damaged."
_CONTENTS = ("raw_data", "float_data", "double_data", "int32_data", "int64_data", "uint64_data", "string_data")


def graphs_of(nodes: Any) -> Iterator[Any]:
    """Yields the subgraphs directly inside nodes (`If`, `Loop`, `Scan`)."""
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield attribute.g
            yield from attribute.graphs


class Constants:
    """Checks constants and remembers which other files they lie in.

    Args:
        path: The model file; external data must stay inside its folder.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._neighbours = Neighbours(path)

    @property
    def external(self) -> dict[str, int]:
        """The files beside the model that hold constants, and their lengths in bytes."""
        return self._neighbours.sizes

    def check(self, nodes: Any, graph: Any | None = None) -> None:
        """Checks every constant of a graph or of a function's nodes, subgraphs included.

        Raises:
            UnsafeFileError: If external data leaves the model's folder or passes through a link.
            ModelError: If a constant claims bytes that the file does not hold, or its data file is missing.
        """
        for tensor in tensors_of(nodes, graph):
            self._check(tensor)

    def _check(self, tensor: Any) -> None:
        where = f"{self._path}: the constant {text(tensor.name)[:120]!r}"
        dims = shape_of(tensor)
        dtype = dtype_name(tensor.data_type)
        if dtype not in DTYPES:
            raise ModelError(f"{where} has the unknown data type {tensor.data_type}", "update the package onnx.")
        if len(dims) > MAX_RANK or min(dims, default=0) < 0:
            raise ModelError(f"{where} has an impossible shape ({len(dims)} dimensions)", _EXPORT_AGAIN)
        elements = math.prod(dims)
        needed = byte_length(tensor)
        if tensor.data_location == EXTERNAL:
            self._neighbours.find(tensor, needed, where)
        elif tensor.HasField("raw_data"):
            if len(tensor.raw_data) != needed:
                raise _mismatch(where, dims, needed, len(tensor.raw_data), "bytes")
        else:
            wanted, held = _typed_lengths(tensor, dtype, elements)
            if held != wanted:
                raise _mismatch(where, dims, wanted, held, "values")


def tensors_of(nodes: Any, graph: Any | None = None) -> Iterator[Any]:
    """Yields every stored tensor of a graph or of a function's nodes, subgraphs included."""
    if graph is not None:
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("sparse_tensor"):
                yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)
            for sparse in attribute.sparse_tensors:
                yield from (sparse.values, sparse.indices)
    for inner in graphs_of(nodes):
        yield from tensors_of(inner.node, inner)


def drop_weights(nodes: Any, graph: Any | None = None) -> None:
    """Takes the content out of every constant that no shape is computed from; type and shape stay."""
    for tensor in tensors_of(nodes, graph):
        if math.prod(shape_of(tensor)) > _KEPT_ELEMENTS or tensor.data_location == EXTERNAL:
            for name in (*_CONTENTS, "external_data", "data_location"):
                tensor.ClearField(name)


def constants_of(graph: Any) -> Iterator[StoredTensor]:
    """Yields the constants of one graph, without its subgraphs: initializers and `Constant` nodes, by value name."""
    for tensor in graph.initializer:
        yield _stored(text(tensor.name), tensor)
    for sparse in graph.sparse_initializer:
        yield _sparse(text(sparse.values.name), sparse)
    for node in graph.node:
        if node.op_type == "Constant" and node.output:
            for attribute in node.attribute:
                found = _attribute_value(text(node.output[0]), attribute)
                if found is not None:
                    yield found


def shape_of(tensor: Any) -> tuple[int, ...]:
    """Returns a stored tensor's shape."""
    return tuple(int(size) for size in tensor.dims)


def _attribute_value(name: str, attribute: Any) -> StoredTensor | None:
    kind = text(attribute.name)
    if kind == "value":
        return _stored(name, attribute.t)
    if kind == "sparse_value":
        return _sparse(name, attribute.sparse_tensor)
    if kind == "value_float":
        return StoredTensor(name, "float32", (), 1)
    if kind == "value_floats":
        return StoredTensor(name, "float32", (len(attribute.floats),), len(attribute.floats))
    # The other forms are integers and strings, which are no parameters.
    return StoredTensor(name, "string" if "string" in kind else "int64", (), 1) if kind.startswith("value_") else None


def _stored(name: str, tensor: Any) -> StoredTensor:
    shape = shape_of(tensor)
    return StoredTensor(name, dtype_name(tensor.data_type), shape, math.prod(shape))


def _sparse(name: str, sparse: Any) -> StoredTensor:
    values = sparse.values
    return StoredTensor(name, dtype_name(values.data_type), shape_of(sparse), math.prod(shape_of(values)))


def _typed_lengths(tensor: Any, dtype: str, elements: int) -> tuple[int, int]:
    """Returns how many entries a tensor's typed field needs and has. Source: onnx.proto, message TensorProto."""
    bits = bits_of(dtype)
    if dtype in ("float32", "complex64"):
        return elements * (bits // 32), len(tensor.float_data)
    if dtype in ("float64", "complex128"):
        return elements * (bits // 64), len(tensor.double_data)
    if dtype == "int64":
        return elements, len(tensor.int64_data)
    if dtype in ("uint32", "uint64"):
        return elements, len(tensor.uint64_data)
    if dtype == "string":
        return elements, len(tensor.string_data)
    # One entry holds one element, or one byte of elements narrower than a byte.
    return (elements * min(bits, 8) + 7) // 8, len(tensor.int32_data)


def _mismatch(where: str, dims: tuple[int, ...], needed: int, held: int, unit: str) -> ModelError:
    shape = "×".join(str(size) for size in dims[:8]) or "scalar"
    return ModelError(f"{where} of shape {shape} needs {needed} {unit}; the file holds {held}", _EXPORT_AGAIN)

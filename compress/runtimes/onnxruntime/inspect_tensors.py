"""The constants of an `.onnx` file: type, shape, and whether the file holds the bytes that they claim."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from compress.errors import ModelError, UnsafeFileError
from compress.model.fileinfo import StoredTensor, bits_of

MAX_RANK = 64
# Small constants are what shapes are computed from; the rest is weights.
_KEPT_ELEMENTS = 64
_EXPORT_AGAIN = "export or copy the model again; the file is damaged."
_EXTERNAL = 1
# In the order of onnx.TensorProto.DataType, from 1 on.
_DTYPES = (
    *("float32", "uint8", "int8", "uint16", "int16", "int32", "int64", "string", "bool", "float16"),
    *("float64", "uint32", "uint64", "complex64", "complex128", "bfloat16", "float8e4m3fn"),
    *("float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz", "uint4", "int4", "float4e2m1", "float8e8m0"),
    *("uint2", "int2"),
)
_CONTENTS = ("raw_data", "float_data", "double_data", "int32_data", "int64_data", "uint64_data", "string_data")


def text(name: str | bytes) -> str:
    """Returns a name as text; protobuf gives bytes where a file's string is no UTF-8."""
    return name if isinstance(name, str) else name.decode("utf-8", "backslashreplace")


def dtype_name(number: int) -> str:
    """Returns the name of an `onnx.TensorProto.DataType`, `type 99` for one that is not known."""
    return _DTYPES[number - 1] if 1 <= number <= len(_DTYPES) else f"type {number}"


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
        self._sizes: dict[str, int] = {}

    @property
    def external(self) -> dict[str, int]:
        """The files beside the model that hold constants, and their lengths in bytes."""
        return dict(self._sizes)

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
        if dtype not in _DTYPES:
            raise ModelError(f"{where} has the unknown data type {tensor.data_type}", "update the package onnx.")
        if len(dims) > MAX_RANK or min(dims, default=0) < 0:
            raise ModelError(f"{where} has an impossible shape ({len(dims)} dimensions)", _EXPORT_AGAIN)
        elements = math.prod(dims)
        needed = (elements * bits_of(dtype) + 7) // 8
        if tensor.data_location == _EXTERNAL:
            self._check_external(tensor, needed, where)
        elif tensor.HasField("raw_data"):
            if len(tensor.raw_data) != needed:
                raise _mismatch(where, dims, needed, len(tensor.raw_data), "bytes")
        else:
            wanted, held = _typed_lengths(tensor, dtype, elements)
            if held != wanted:
                raise _mismatch(where, dims, wanted, held, "values")

    def _check_external(self, tensor: Any, needed: int, where: str) -> None:
        entries = {text(entry.key): text(entry.value) for entry in tensor.external_data}
        location = entries.get("location", "")
        if location not in self._sizes:
            self._sizes[location] = _external_size(self._path, location, where)
        size = self._sizes[location]
        try:
            offset = int(entries.get("offset") or 0)
            length = int(entries.get("length") or size - offset)
        except ValueError as error:
            raise ModelError(f"{where}: its place in {location!r} is no number", _EXPORT_AGAIN) from error
        if offset < 0 or length < needed or offset + length > size:
            raise ModelError(
                f"{where} needs {needed} bytes; {location!r} has {size} bytes and gives it {length} from {offset} on",
                "copy the model and its data file again, both from one export.",
            )


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
        if math.prod(shape_of(tensor)) > _KEPT_ELEMENTS or tensor.data_location == _EXTERNAL:
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


def _external_size(path: Path, location: str, where: str) -> int:
    relative = PurePosixPath(location)
    if not relative.parts or relative.is_absolute() or ".." in relative.parts or "\\" in location or "\0" in location:
        raise UnsafeFileError(
            f"{where}: its data lies in {location[:200]!r}, outside the model's folder",
            "save the model with its data file beside it, named without a folder.",
        )
    place = path.parent
    for part in relative.parts:
        place = place / part
        if place.is_symlink():
            raise UnsafeFileError(
                f"{where}: its data lies in {location[:200]!r}, which passes through a link",
                "put the data file itself beside the model.",
            )
    try:
        if place.is_file():
            return place.stat().st_size
    except OSError as error:
        what = f"its data file {location[:200]!r} cannot be read ({error.strerror})"
        raise ModelError(f"{where}: {what}", "check its permissions.") from error
    raise ModelError(
        f"{where}: its data file {location[:200]!r} is missing", "copy the data file beside the model, under that name."
    )

"""Constants that an `.onnx` keeps in other files of its folder: where they may lie, and whether their bytes are there.

Source: ONNX ExternalData.md.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from compress.errors import ModelError, StoreError, UnsafeFileError
from compress.model.fileinfo import bits_of

EXTERNAL = 1
SUFFIX = ".weights"
# In the order of onnx.TensorProto.DataType, from 1 on.
DTYPES = (
    *("float32", "uint8", "int8", "uint16", "int16", "int32", "int64", "string", "bool", "float16"),
    *("float64", "uint32", "uint64", "complex64", "complex128", "bfloat16", "float8e4m3fn"),
    *("float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz", "uint4", "int4", "float4e2m1", "float8e8m0"),
    *("uint2", "int2"),
)
_AGAIN = "copy the model and its data file again, both from one export."
_NO_NUMBER = "export or copy the model again; the file is damaged."


@dataclass(frozen=True)
class DataFile:
    """A file of constants that belongs beside an `.onnx`, which names it by its content.

    The `.onnx` thus has another hash where the constants are others.

    Attributes:
        name: What the `.onnx` calls it: its sha256 and `.weights`.
        path: Where it lies now.
        size_bytes: Its length.
        held: What keeps a temporary one from being removed.
    """

    name: str
    path: Path
    size_bytes: int
    held: object = field(default=None, repr=False, compare=False)

    @property
    def sha256(self) -> str:
        """The hash of its bytes."""
        return self.name.removesuffix(SUFFIX)

    def lay(self, folder: Path) -> None:
        """Puts it into a folder under its name: as a second name of the same bytes, else as a copy.

        Raises:
            StoreError: If the folder cannot be written.
        """
        place = folder / self.name
        try:
            if place.exists() and place.stat().st_size == self.size_bytes:
                return
            place.unlink(missing_ok=True)
            try:
                os.link(self.path, place)
            except OSError:  # another disk, or one without second names
                shutil.copyfile(self.path, place)
        except OSError as error:
            raise StoreError(f"{place}: cannot be written: {error.strerror or error}", "free some space.") from error


class Scratch:
    """A folder for temporary files that is gone when nothing holds it any more."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="edge-compress-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


@dataclass(frozen=True)
class Span:
    """Where the bytes of a constant lie."""

    location: str
    file: Path
    offset: int
    length: int


class Neighbours:
    """The files beside one model.

    Args:
        path: The model file; what it names must stay inside its folder and may not pass through a link.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files: dict[str, tuple[Path, int]] = {}

    @property
    def sizes(self) -> dict[str, int]:
        """The files that were asked for, as the model calls them, and their lengths in bytes."""
        return {name: size for name, (_, size) in self._files.items()}

    def find(self, tensor: Any, needed: int, where: str) -> Span:
        """Returns where a constant lies.

        Args:
            tensor: A `TensorProto` whose data is external.
            needed: The bytes that its type and shape take.
            where: Names it in messages.

        Raises:
            UnsafeFileError: If its file lies outside the model's folder or behind a link.
            ModelError: If the file is missing or does not hold the bytes.
        """
        entries = {text(entry.key): text(entry.value) for entry in tensor.external_data}
        location = entries.get("location", "")
        if location not in self._files:
            file = _file(self._path, location, where)
            try:
                self._files[location] = file, file.stat().st_size
            except OSError as error:
                what = f"its data file {location[:200]!r} cannot be read ({error.strerror})"
                raise ModelError(f"{where}: {what}", "check its permissions.") from error
        file, size = self._files[location]
        try:
            offset, length = int(entries.get("offset") or 0), int(entries.get("length") or needed)
        except ValueError as error:
            raise ModelError(f"{where}: its place in {location[:200]!r} is no number", _NO_NUMBER) from error
        if offset < 0 or length != needed or offset + length > size:
            raise ModelError(
                f"{where} needs {needed} bytes; {location[:200]!r} has {size}, {length} from {offset} on for it", _AGAIN
            )
        return Span(location, file, offset, length)


def text(name: str | bytes) -> str:
    """Returns a name as text; protobuf gives bytes where a file's string is no UTF-8."""
    return name if isinstance(name, str) else name.decode("utf-8", "backslashreplace")


def dtype_name(number: int) -> str:
    """Returns the name of an `onnx.TensorProto.DataType`, `type 99` for one that is not known."""
    return DTYPES[number - 1] if 1 <= number <= len(DTYPES) else f"type {number}"


def byte_length(tensor: Any) -> int:
    """Returns the bytes that a constant's type and shape take."""
    elements: int = math.prod(tensor.dims)
    return (elements * bits_of(dtype_name(tensor.data_type)) + 7) // 8


def point(tensor: Any, location: str, offset: int, length: int) -> None:
    """Writes into a constant that its bytes lie in another file."""
    tensor.ClearField("external_data")
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    tensor.data_location = EXTERNAL


def name_files(graph: Any, path: Path, held: object = None) -> tuple[DataFile, ...]:
    """Calls the files that hold a graph's constants by their content, in the graph, too.

    Args:
        graph: Its constants name files beside `path`.
        path: The model file.
        held: What keeps them from being removed.

    Raises:
        UnsafeFileError: If a file lies outside the model's folder or behind a link.
        ModelError: If a file is missing or does not hold the bytes.
    """
    spans = spans_of(graph, path)
    files = {span.location: span.file for _, span in spans}
    names = {location: _content_name(file) for location, file in files.items()}
    for tensor, span in spans:
        point(tensor, names[span.location], span.offset, span.length)
    return tuple(
        DataFile(names[location], file, file.stat().st_size, held)
        for location, file in {names[location]: (location, file) for location, file in files.items()}.values()
    )


def spans_of(graph: Any, path: Path) -> list[tuple[Any, Span]]:
    """Returns every constant that lies in another file, and where; errors are those of `name_files`."""
    neighbours = Neighbours(path)
    return [
        (item, neighbours.find(item, byte_length(item), f"{path}: the constant {text(item.name)[:120]!r}"))
        for item in tensors_of(graph)
        if item.data_location == EXTERNAL
    ]


def tensors_of(graph: Any) -> Iterator[Any]:
    """Yields every constant of a graph and of those inside its nodes."""
    for each in (graph, *inner_graphs(graph)):
        yield from each.initializer
        for node in each.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t


def inner_graphs(graph: Any) -> Iterator[Any]:
    """Yields the graphs inside a graph's nodes (`If`, `Loop`, `Scan`), at any depth."""
    for node in graph.node:
        for attribute in node.attribute:
            for inner in [attribute.g] if attribute.HasField("g") else list(attribute.graphs):
                yield inner
                yield from inner_graphs(inner)


def _file(path: Path, location: str, where: str) -> Path:
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
        found = place.is_file()
    except OSError as error:
        what = f"its data file {location[:200]!r} cannot be read ({error.strerror})"
        raise ModelError(f"{where}: {what}", "check its permissions.") from error
    if not found:
        raise ModelError(
            f"{where}: its data file {location[:200]!r} is missing",
            "copy the data file beside the model, under that name.",
        )
    return place


def _content_name(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() + SUFFIX

"""An `.onnx` file while it is changed: its graph, and its constants, inside it or in files beside it."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.errors import InternalError, StoreError
from compress.model.onnx_beside import EXTERNAL, DataFile, Scratch, name_files, point, tensors_of
from compress.runtimes.onnxruntime.edit import drop_unread, serialized

# What is smaller stays inside: shapes and the operators' other small arguments are read from there.
SMALL_BYTES = 1024
# Constants begin where a page begins, so that a runtime can map them.
_ALIGNMENT = 4096
_PIECE = 1 << 24
# What the new file of constants is called until it is finished.
_UNNAMED = "new.weights"


class Draft:
    """A file's graph, to be changed in place.

    1. `array` gives a constant. One that lies beside the file is mapped, not read.
    2. `constant` makes one. Of a file with constants beside it, a large one is written beside it at once.
    3. `finished` gives the file. Constants beside it that are still read are copied behind the new ones; nothing names
       the older files any more.

    Args:
        data: The `.onnx`.
        beside: The files that it names.
    """

    def __init__(self, data: bytes, beside: tuple[DataFile, ...] = ()) -> None:
        import onnx

        self.proto: Any = onnx.load_from_string(data)
        self._files = {item.name: item.path for item in beside}
        self._scratch, self._new = Scratch() if beside else None, None
        if self._scratch is not None:
            path = self._scratch.path / _UNNAMED
            self._files[_UNNAMED] = path
            with _stated():
                self._new = path.open("wb")
            weakref.finalize(self, self._new.close)

    @property
    def graph(self) -> Any:
        """The graph."""
        return self.proto.graph

    def constants(self) -> dict[str, Any]:
        """Returns the graph's constants by name."""
        return {item.name: item for item in self.graph.initializer}

    def array(self, tensor: Any) -> NDArray[Any]:
        """Returns a constant's value; do not write to it."""
        from onnx import helper, numpy_helper

        if tensor.data_location != EXTERNAL:
            return numpy_helper.to_array(tensor)
        file, offset, _ = self._place(tensor)
        self._flush()
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        return np.memmap(file, dtype, "r", offset, tuple(tensor.dims))

    def constant(self, array: NDArray[Any], name: str) -> None:
        """Adds a constant to the graph."""
        from onnx import helper, numpy_helper

        if self._new is None or array.nbytes <= SMALL_BYTES:
            self.graph.initializer.append(numpy_helper.from_array(array, name))
            return
        tensor = self.graph.initializer.add()
        tensor.name = name
        tensor.dims.extend(array.shape)
        tensor.data_type = helper.np_dtype_to_tensor_dtype(array.dtype)
        at = self._end()
        with _stated():
            self._new.write(np.ascontiguousarray(array).data)
        point(tensor, _UNNAMED, at, array.nbytes)

    def remove(self, names: set[str]) -> None:
        """Takes constants out of the graph."""
        kept = [item for item in self.graph.initializer if item.name not in names]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)

    def first(self, nodes: list[Any]) -> None:
        """Puts nodes before all others."""
        everything = [*nodes, *self.graph.node]
        del self.graph.node[:]
        self.graph.node.extend(everything)

    def finished(self) -> tuple[bytes, tuple[DataFile, ...]]:
        """Returns the file and what belongs beside it.

        Raises:
            StoreError: If the folder of temporary files is full.
        """
        if self._new is None:
            return serialized(self.proto), ()
        drop_unread(self.graph)
        moved: dict[tuple[Path, int, int], int] = {}
        mine = self._files[_UNNAMED]
        outside = [item for item in tensors_of(self.graph) if item.data_location == EXTERNAL]
        for item in outside:
            file, offset, length = self._place(item)
            if file == mine:
                continue
            if (file, offset, length) not in moved:
                moved[file, offset, length] = self._copy(file, offset, length)
            point(item, _UNNAMED, moved[file, offset, length], length)
        with _stated():
            self._new.close()
        beside = name_files(self.graph, mine, self._scratch)
        return serialized(self.proto), beside

    def _place(self, tensor: Any) -> tuple[Path, int, int]:
        entries = {item.key: item.value for item in tensor.external_data}
        if entries["location"] not in self._files:
            raise InternalError(f"the constant {tensor.name!r} lies in a file that was not given", "")
        return self._files[entries["location"]], int(entries["offset"]), int(entries["length"])

    def _end(self) -> int:
        assert self._new is not None
        at = self._new.tell()
        with _stated():
            self._new.write(bytes(-at % _ALIGNMENT))
        return self._new.tell()

    def _copy(self, file: Path, offset: int, length: int) -> int:
        assert self._new is not None
        at = self._end()
        with _stated(), file.open("rb") as source:
            source.seek(offset)
            left = length
            while left:
                piece = source.read(min(left, _PIECE))
                if not piece:
                    raise StoreError(f"{file}: got shorter while it was read", "run the same command again.")
                self._new.write(piece)
                left -= len(piece)
        return at

    def _flush(self) -> None:
        if self._new is not None:
            with _stated():
                self._new.flush()


@contextlib.contextmanager
def _stated() -> Iterator[None]:
    """Says where there was no room."""
    try:
        yield
    except OSError as error:
        folder = tempfile.gettempdir()
        free = shutil.disk_usage(folder).free
        raise StoreError(
            f"{folder}: weights cannot be written there: {error.strerror or error} ({free:,} bytes are free)",
            "let TMPDIR point to a disk with room for the model.",
        ) from error

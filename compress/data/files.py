"""Files of rows: bounded in size, and every way in which one can be broken said in the same words."""

from __future__ import annotations

import gzip
import io
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from compress.errors import CompressError, DataError, did_you_mean

MAX_FILE_BYTES = 8 << 30
MAX_EXPANDED_BYTES = 16 << 30


def check_file(path: Path, where: str) -> None:
    """Checks that a file exists, is not empty and is not too large.

    Raises:
        DataError: If one of it fails.
    """
    if not path.is_file():
        near = [item.name for item in path.parent.glob(f"*{path.suffix}")] if path.parent.is_dir() else []
        raise DataError(f"{where}: data.source: there is no file {path}", did_you_mean(path.name, near))
    size = path.stat().st_size
    if not size:
        raise DataError(f"{path}: the file is empty", "is this the right file?")
    if size > MAX_FILE_BYTES:
        raise DataError(
            f"{path}: {size:,} bytes; a file of rows may have {MAX_FILE_BYTES:,}", "keep the rows that you evaluate on."
        )


def check_expanded(path: Path, size: int) -> None:
    """Checks what a compressed file holds, or claims to hold, in bytes.

    Raises:
        DataError: If it is too much.
    """
    if size > MAX_EXPANDED_BYTES:
        raise DataError(
            f"{path}: more than {MAX_EXPANDED_BYTES:,} bytes when decompressed", "keep the rows that you evaluate on."
        )


@contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Words whatever goes wrong while a file is read as a `DataError` that names it.

    Args:
        path: The file.
        kind: What it should be: `CSV`, `Parquet`, ...

    Raises:
        DataError: In place of any error of reading, decompressing or parsing.
    """
    try:
        yield
    except CompressError:
        raise
    # Parsers of foreign formats raise nearly anything on garbage: struct.error, OverflowError, RuntimeError, ...
    except Exception as error:
        broken = isinstance(error, (EOFError, zlib.error, zipfile.BadZipFile))
        text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"{path}: cannot be read as {kind}: {text}",
            "the file is damaged or cut off; copy it again." if broken else f"is it really {kind}?",
        ) from error


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """Opens a text file in UTF-8, with or without a byte-order mark; `.gz` is decompressed, within bounds."""
    if not path.name.lower().endswith(".gz"):
        with path.open(encoding="utf-8-sig", newline="") as text:
            yield text
        return
    with gzip.open(path, "rb") as stream:
        yield io.TextIOWrapper(io.BufferedReader(_Bounded(path, stream), 1 << 18), encoding="utf-8-sig", newline="")


class _Bounded(io.RawIOBase):
    """A decompressing stream that refuses to give more than `MAX_EXPANDED_BYTES`."""

    def __init__(self, path: Path, stream: gzip.GzipFile) -> None:
        self._path = path
        self._stream = stream
        self._total = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        count = self._stream.readinto(buffer)
        self._total += count
        check_expanded(self._path, self._total)
        return count

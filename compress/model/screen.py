"""Files of strangers, judged before anything that could run their content opens them. Standard library only.

Nothing here unpickles, imports or evaluates what a file holds; it is parsed against lists of what is harmless.
`screen_pt2.py` lists the routes by which an exported program runs code, `screen_pickle.py` what weights may hold.
"""

from __future__ import annotations

import io
import os
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from compress.errors import ModelError
from compress.model.screen_archive import Archive
from compress.model.screen_pickle import TO_STATE_DICT, check_torch_zip
from compress.model.screen_pt2 import SAMPLE_INPUTS, check_pt2
from compress.model.screen_refusal import EXPORT_AGAIN, Refusal, damaged
from compress.model.screen_sniff import kind_of
from compress.model.screen_weights import check_safetensors

__all__ = ["MAX_FILE_BYTES", "screen_pt2", "screen_weights", "screened_pt2", "sniff"]

MAX_FILE_BYTES = 4 << 30


def screen_pt2(path: Path, max_bytes: int = MAX_FILE_BYTES) -> None:
    """Checks that loading an exported program runs no code of the file. Every byte is read, checksums included.

    What is loaded afterwards should come from `screened_pt2`: the file may have changed in between.

    Args:
        path: The `.pt2` archive.
        max_bytes: The most that it may take, on disk and unpacked.

    Raises:
        UnsafeFileError: If it carries code or claims more than it holds; names the member and the key.
        ModelError: If it is missing, empty, truncated, too large, or not an archive of this version.
    """
    with _opened(path) as (file, size_bytes), _pt2(file, size_bytes, max_bytes) as archive:
        for name in archive.names:
            for _ in archive.chunks(name):
                pass


def screened_pt2(path: Path, max_bytes: int = MAX_FILE_BYTES) -> io.BytesIO:
    """Checks an exported program and returns what `torch.export.load` may read: exactly what was checked.

    The members are copied into memory and checked there, so nobody can change them in between, and torch and the screen
    see the same content. The example inputs are checked and left out, so nothing is unpickled at all; the program's
    `example_inputs` are None. Takes as much memory as the file.

    Args:
        path: The `.pt2` archive.
        max_bytes: The most that it may take, on disk and unpacked.

    Raises:
        UnsafeFileError: If it carries code or claims more than it holds; names the member and the key.
        ModelError: If it is missing, empty, truncated, too large, or not an archive of this version.
    """
    copy = io.BytesIO()
    with _opened(path) as (file, size_bytes), _pt2(file, size_bytes, max_bytes) as archive:
        _copy(archive, copy)
        with Archive(copy, copy.tell(), max_bytes) as copied:
            check_pt2(copied, max_bytes)
    copy.seek(0)
    return copy


def screen_weights(path: Path) -> str:
    """Checks that loading a file of weights runs no code of the file.

    Args:
        path: A safetensors file or a state dictionary of `torch.save`, whatever its ending.

    Returns:
        `"safetensors"`, or `"state_dict"` for what `torch.load(path, weights_only=True)` reads.

    Raises:
        UnsafeFileError: If it is a pickle that would run code, or claims more than it holds.
        ModelError: If it is missing, empty, truncated, or holds no weights.
    """
    with _opened(path) as (file, size_bytes):
        kind = kind_of(file, size_bytes)
        if kind == "safetensors":
            check_safetensors(file, size_bytes)
        elif kind in ("state_dict", "torchscript", "zip"):
            with Archive(file, size_bytes, max(size_bytes, MAX_FILE_BYTES)) as archive:
                check_torch_zip(archive)
            kind = "state_dict"
        else:
            raise _no_weights(kind)
    return kind


def sniff(path: Path) -> str:
    """Returns what a file is, by content: a guess for a message or for choosing a reader, not a check.

    Returns:
        `"pt2"`, `"torchscript"`, `"state_dict"` (a zip file of `torch.save`), `"safetensors"`, `"onnx"`, `"ort"`,
        `"tflite"`, `"pte"`, `"pickle"`, `"zip"`, `"hdf5"`, `"empty"` or `"unknown"`.

    Raises:
        ModelError: If there is no readable file at this path.
    """
    with _opened(path) as (file, size_bytes):
        return kind_of(file, size_bytes)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """Opens a regular file once, and turns the refusals of the checks into errors that name it."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ModelError(f"{path}: it is a folder or a device, not a file.", "name a file.")
        file = path.open("rb")
    except FileNotFoundError as error:
        raise ModelError(f"{path}: there is no such file.", "check the path.") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: it cannot be opened ({error}).", "check the path and its permissions.") from error
    with file:
        try:
            yield file, file.seek(0, os.SEEK_END)
        except Refusal as refusal:
            raise refusal.error(path) from refusal
        except RecursionError as error:
            raise damaged("it is nested too deeply.").error(path) from error
        except OSError as error:
            raise ModelError(f"{path}: it cannot be read ({error}).", "check the disk.") from error


@contextmanager
def _pt2(file: BinaryIO, size_bytes: int, max_bytes: int) -> Iterator[Archive]:
    kind = kind_of(file, size_bytes)
    if kind not in ("pt2", "zip"):
        raise damaged(f"it is no .pt2 archive; its content looks like: {kind}.", EXPORT_AGAIN)
    if size_bytes > max_bytes:
        raise damaged(f"it has {size_bytes} bytes; the limit is {max_bytes}.", "raise the limit if the file is meant.")
    with Archive(file, size_bytes, max_bytes) as archive:
        check_pt2(archive, max_bytes)
        yield archive


def _copy(archive: Archive, copy: io.BytesIO) -> None:
    with zipfile.ZipFile(copy, "w") as writer:
        for name in archive.names:
            with writer.open(zipfile.ZipInfo(f"archive/{name}"), "w", force_zip64=True) as member:
                for chunk in archive.chunks(name) if name != SAMPLE_INPUTS else ():
                    member.write(chunk)


def _no_weights(kind: str) -> Refusal:
    if kind == "pickle":
        return Refusal("refused: it is a bare pickle, which may run any code when it is loaded.", TO_STATE_DICT)
    return damaged(
        f"it holds no weights; its content looks like: {kind}.", "name a .safetensors file or a state dictionary."
    )

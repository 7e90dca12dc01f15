"""Writing so that a reader sees the old content or the new, never a part."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from compress.errors import StoreError

_PIECE = 1 << 20


def write_atomic(path: Path, data: bytes | Path) -> None:
    """Writes a file through a temporary neighbour, flushed to disk, then renamed over the old one.

    Args:
        path: Where to.
        data: What it shall hold, or a file to copy.

    Raises:
        StoreError: If the folder cannot be written or the disk is full; nothing is left behind.
    """
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with stated(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with scratch.open("xb") as file:
                if isinstance(data, bytes):
                    file.write(data)
                else:
                    with data.open("rb") as source:
                        shutil.copyfileobj(source, file, _PIECE)
                file.flush()
                os.fsync(file.fileno())
            os.replace(scratch, path)
        finally:
            with contextlib.suppress(OSError):
                scratch.unlink(missing_ok=True)


def link_atomic(path: Path, target: str) -> None:
    """Makes `path` a symbolic link to `target`, replacing an older link in one step.

    Raises:
        StoreError: If something other than a link stands there, or the folder cannot be written.
    """
    if path.exists() and not path.is_symlink():
        raise StoreError(
            f"{path}: stands in the way of a link to {target}", "move it, or choose another output folder."
        )
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with stated(path):
        try:
            os.symlink(target, scratch)
            os.replace(scratch, path)
        finally:
            with contextlib.suppress(OSError):
                scratch.unlink(missing_ok=True)


@contextlib.contextmanager
def stated(path: Path) -> Iterator[None]:
    """Turns what the operating system says about a path into an error with a remedy."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror or error}", _remedy(error.errno)) from error


def _remedy(number: int | None) -> str:
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "the disk is full; free some space and run the same command again, finished steps are kept."
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "the folder is read-only for this user; choose another one with --out."
    if number in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
        return "a file stands where a folder is needed (or the other way round); choose another path with --out."
    return "check the path."

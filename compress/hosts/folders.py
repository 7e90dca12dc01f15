"""Folders that a set-up builds aside, with a manifest of what went into them, and puts in place in one step."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from compress.errors import StoreError
from compress.store.atomic import link_atomic, stated, write_atomic
from compress.store.cache import digest

SCHEMA = 1
# Told what is happening, a line at a time.
Say = Callable[[str], None]


def cache_folder(name: str) -> Path:
    """Returns where something is kept: below `EDGE_COMPRESS_CACHE`, else in the user's cache folder."""
    chosen = os.environ.get("EDGE_COMPRESS_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute() / name
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base).absolute() / "edge-compress" / name


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Returns what a folder was made of; None where there is none that this version can use."""
    try:
        manifest = json.loads((folder / "manifest.json").read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        return None
    return manifest


def put_in_place(
    folder: Path, name: str, scratch: Path, manifest: Mapping[str, Any], check: Callable[[Path], None] | None = None
) -> None:
    """Puts what was built in place: under a name of its content, then by moving one link. What was before goes."""
    text = json.dumps(manifest, sort_keys=True)
    sha = digest(text.encode())
    whole = json.dumps({"schema": SCHEMA, "digest": sha, **manifest}, indent=1) + "\n"
    write_atomic(scratch / "manifest.json", whole.encode())
    if check is not None:
        check(scratch)
    final = folder / f"{name}-{sha[:12]}"
    with stated(final):
        shutil.rmtree(final, ignore_errors=True)
        os.replace(scratch, final)
    link_atomic(folder / name, final.name)
    for old in folder.glob(f"{name}-*"):
        if old != final:
            shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def scratch_folder(folder: Path, name: str) -> Iterator[Path]:
    """A folder that is gone afterwards, unless it was put in place; so is that of a set-up that was killed."""
    for left in folder.glob(f".{name}.*.tmp"):
        shutil.rmtree(left, ignore_errors=True)
    scratch = folder / f".{name}.{secrets.token_hex(4)}.tmp"
    with stated(scratch):
        scratch.mkdir(parents=True)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Makes the folder, and refuses to work on it beside another set-up.

    Raises:
        StoreError: If another one is under way, or the folder cannot be made.
    """
    with stated(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StoreError(f"{folder}: another set-up is running", "wait for it to end.") from error
        yield
    finally:
        os.close(lock)

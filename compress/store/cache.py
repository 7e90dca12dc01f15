"""Finished steps, by what went into them: a second run reuses them, a killed run resumes behind them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from compress.errors import StoreError
from compress.store.atomic import write_atomic

SCHEMA = 1


def digest(data: bytes) -> str:
    """Returns the sha256 of bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def digest_of(path: Path) -> str | None:
    """Returns the sha256 of a file, in hex, read piece by piece; None where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _digest_of(path: Path) -> str:
    sha = digest_of(path)
    if sha is None:
        raise StoreError(f"{path}: cannot be read any more", "run the same command again.")
    return sha


def key(step: str, **inputs: Any) -> str:
    """Returns the name of a step's result: the hash of everything that determines it.

    Args:
        step: What is done.
        inputs: JSON-able; digests of large things, versions of the packages that do the work.
    """
    text = json.dumps({"schema": SCHEMA, "step": step, **inputs}, sort_keys=True, default=str)
    return f"{step}-{digest(text.encode())[:32]}"


class Cache:
    """Blobs by content and step results by key, in one folder.

    1. Everything is written atomically, a result after the blobs it names: a killed run leaves no dangling name.
    2. A blob is verified when it is read; a damaged one counts as absent and is made again.
    3. Only finished steps are written. A failure is never remembered.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reused: list[str] = []
        self.made: list[str] = []

    def get(self, name: str) -> dict[str, Any] | None:
        """Returns a step's result, or None where there is none or what it names is damaged."""
        path = self.folder / "steps" / f"{name}.json"
        try:
            result = json.loads(path.read_bytes())
        except (OSError, ValueError):
            return None
        blobs = result.get("blobs") if isinstance(result, dict) else None
        if not isinstance(blobs, dict) or not all(self.holds(str(sha)) for sha in blobs.values()):
            return None
        self.reused.append(name)
        return dict(result)

    def put(self, name: str, values: dict[str, Any], **blobs: bytes | Path) -> dict[str, Any]:
        """Writes a finished step: its blobs first, then the result that names them. Of a path, the file is copied."""
        result = {**values, "blobs": {label: self._put_blob(data) for label, data in blobs.items()}}
        write_atomic(self.folder / "steps" / f"{name}.json", json.dumps(result, allow_nan=False).encode())
        self.made.append(name)
        return result

    def holds(self, sha: str) -> bool:
        """Whether a blob is there and whole; it is read piece by piece."""
        return digest_of(self.path(sha)) == sha

    def blob(self, sha: str) -> bytes | None:
        """Returns a blob, or None where it is absent or its content does not match its name."""
        try:
            data = self.path(sha).read_bytes()
        except OSError:
            return None
        return data if digest(data) == sha else None

    def require(self, sha: str) -> bytes:
        """Returns a blob that must be there.

        Raises:
            StoreError: If it vanished or was damaged while the run was under way.
        """
        data = self.blob(sha)
        if data is None:
            raise StoreError(f"{self.path(sha)}: is gone or damaged", "run the same command again.")
        return data

    def _put_blob(self, data: bytes | Path) -> str:
        sha = digest(data) if isinstance(data, bytes) else _digest_of(data)
        if not self.holds(sha):
            write_atomic(self.path(sha), data)
        return sha

    def path(self, sha: str) -> Path:
        """Returns where a blob lies."""
        return self.folder / "objects" / sha[:2] / sha

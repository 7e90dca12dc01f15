"""The output folder of a recipe: claimed, locked, and switched to a new result in one step."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from compress.errors import StoreError
from compress.store.atomic import link_atomic, stated, write_atomic
from compress.store.cache import Cache, digest, digest_of

_MARK = ".edge-compress.json"
_VIEWS = ("artifacts", "evidence.json", "manifest.json", "report.md", "report.html", "model_card.md")


class OutputFolder:
    """What a run leaves behind.

    ```
    OUT/current -> runs/<id>          the last finished run; the only thing that changes, atomically
    OUT/{artifacts,evidence.json,report.html,…} -> current/...
    OUT/runs/<id>/                    every finished run, complete, never changed afterwards
    OUT/.cache/                       finished steps
    ```
    """

    def __init__(self, folder: Path, owner: str) -> None:
        self.folder = folder
        self.owner = owner
        self.cache = Cache(folder / ".cache")

    def check(self) -> None:
        """Refuses a folder that this recipe may not use, before anything expensive happens.

        Raises:
            StoreError: If it belongs to another recipe, holds foreign files, or cannot be written.
        """
        self._check_owner()
        with stated(self.folder):
            nearest = next(parent for parent in (self.folder, *self.folder.absolute().parents) if parent.exists())
        if not nearest.is_dir():
            raise StoreError(f"{self.folder}: cannot be written: {nearest} is not a folder", "choose another --out.")
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise StoreError(f"{self.folder}: cannot be written: {nearest} is read-only", "choose another --out.")

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """Takes the folder for one run. One that fails before any step is finished leaves no new folder behind.

        Raises:
            StoreError: If it belongs to another recipe, holds foreign files, cannot be written, or is in use.
        """
        self._check_owner()
        new = not self.folder.exists()
        with stated(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise StoreError(f"{self.folder}: another run is writing here", "wait for it to end.") from error
            self._check_owner()
            write_atomic(self.folder / _MARK, json.dumps({"schema": 1, "owner": self.owner}).encode())
            self._sweep()
            yield
        except BaseException:
            if new and not any(path.is_file() for path in self.cache.folder.rglob("*")):
                shutil.rmtree(self.folder, ignore_errors=True)
            raise
        finally:
            os.close(lock)

    def publish(self, files: Mapping[str, bytes | Path], manifest: Mapping[str, Any]) -> Path:
        """Writes a complete run under a name of its content, then makes it the current one.

        Args:
            files: Path inside the run -> content, or a file of the cache to copy.
            manifest: Written last, with the sha256 and size of every file added to it.

        Returns:
            The run's folder.
        """
        listed = [{"path": path, **_identity(data)} for path, data in files.items()]
        text = json.dumps({**manifest, "files": listed}, indent=1, allow_nan=False, default=str) + "\n"
        name = digest(text.encode())[:12]
        final = self.folder / "runs" / name
        # Two runs within a second have one name. What was damaged in between is not taken for this result.
        if _whole_manifest(final) is None:
            shutil.rmtree(final, ignore_errors=True)
            scratch = self.folder / "runs" / f".{name}.{secrets.token_hex(4)}.tmp"
            try:
                for path, data in {**files, "manifest.json": text.encode()}.items():
                    write_atomic(scratch / path, data)
                with stated(final):
                    os.replace(scratch, final)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
        link_atomic(self.folder / "current", f"runs/{name}")
        for view in _VIEWS:
            if not (self.folder / view).is_symlink():
                link_atomic(self.folder / view, f"current/{view}")
        return final

    def current_manifest(self) -> dict[str, Any] | None:
        """Returns the manifest of the current run if that run is whole, every hash recomputed; else None."""
        return _whole_manifest(self.folder / "current")

    def _check_owner(self) -> None:
        with stated(self.folder):
            if not self.folder.exists():
                return
        if not self.folder.is_dir():
            raise StoreError(f"{self.folder}: is not a folder", "choose another path with --out.")
        mark = self.folder / _MARK
        try:
            owner = json.loads(mark.read_bytes())["owner"]
        except FileNotFoundError:
            # A run that was killed while it took the folder leaves its lock and an unfinished mark.
            foreign = sorted(
                path.name
                for path in self.folder.iterdir()
                if path.name != ".lock" and not (path.name.startswith(f".{_MARK}.") and path.name.endswith(".tmp"))
            )
            if foreign:
                raise StoreError(
                    f"{self.folder}: is not empty and was not made by a run (it holds {foreign[0]!r})",
                    "choose another folder with --out.",
                ) from None
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{mark}: cannot be read: {error}", "choose another folder with --out.") from error
        if owner != self.owner:
            raise StoreError(
                f"{self.folder}: belongs to another recipe ({owner}), this one is {self.owner}",
                "choose another folder with --out, or delete that one.",
            )
        for view in ("current", *_VIEWS):
            if (self.folder / view).exists() and not (self.folder / view).is_symlink():
                raise StoreError(
                    f"{self.folder / view}: stands where a run puts a link", "move it, or choose another --out."
                )

    def _sweep(self) -> None:
        """Removes what a killed run left unfinished. Nobody else is writing: the folder is locked."""
        for scratch in (self.folder / "runs").glob(".*.tmp"):
            shutil.rmtree(scratch, ignore_errors=True)
        for scratch in self.folder.rglob(".*.tmp"):
            with contextlib.suppress(OSError):
                scratch.unlink()


def _identity(data: bytes | Path) -> dict[str, Any]:
    if isinstance(data, bytes):
        return {"sha256": digest(data), "size_bytes": len(data)}
    with stated(data):
        return {"sha256": digest_of(data), "size_bytes": data.stat().st_size}


def _whole_manifest(run: Path) -> dict[str, Any] | None:
    """Returns the manifest of a run if every file has the hash that it states; else None."""
    try:
        manifest = json.loads((run / "manifest.json").read_bytes())
        for entry in manifest["files"]:
            if digest_of(run / entry["path"]) != entry["sha256"]:
                return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return dict(manifest)

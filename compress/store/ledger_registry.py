"""The folder of approved artifacts: content, releases, the log, and one pointer a model that moves in one step."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from compress.errors import ApprovalError, StoreError, did_you_mean
from compress.store.atomic import link_atomic, stated, write_atomic
from compress.store.cache import digest
from compress.store.ledger import HEAD, LOG, Entry, FileRecord, Log, ModelState, read_log, state_of

DEFAULT_FOLDER = "approved"

_OURS = (LOG, HEAD, ".lock", "objects", "models", "signatures")
# What a project may put there itself.
_ALLOWED = ("allowed_signers", "README.md", ".gitignore", ".gitattributes")
_WAIT_S = 30.0


class Registry:
    """What was approved, and what is in force.

    ```
    log.jsonl                            the log (compress.store.ledger), only ever made longer
    head.json                            number and hash of its last entry
    objects/ab/abcd…                     every approved file, by its sha256, read-only
    signatures/<sha256 of the entry>.sig
    models/NAME/releases/0003/           the files of the approval with sequence 3, as links into objects/
    models/NAME/current -> releases/0003 what is in force: the only thing that a deployment needs to read
    ```
    1. An entry counts from the moment at which its line stands in the log. Everything it names is written before, the
       head and the pointer after: a command that is stopped leaves either the old state, or the new one with a pointer
       that the next command moves.
    2. Nothing that an entry names is ever changed or removed.
    3. One command writes at a time; another waits for it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self) -> Log:
        """Returns the log as it is, damaged or not.

        Raises:
            StoreError: If there is none, or it cannot be read.
        """
        log, head = self._content(LOG), self._content(HEAD)
        if log is None and head is None and not self.folder.is_dir():
            raise StoreError(
                f"{self.folder}: there is no approval log",
                "name its folder with --registry, or approve a run first: edge-compress approve OUT.",
            )
        return read_log(log, head)

    def sound(self) -> Log:
        """Returns the log.

        Raises:
            ApprovalError: If it was damaged.
            StoreError: If there is none, or it cannot be read.
        """
        log = self.read()
        if log.problems:
            raise ApprovalError(
                f"{self.folder / LOG} is damaged, nothing is decided by it: {log.problems[0]}",
                "see all of it with edge-compress verify, and bring the log and head.json back from a backup.",
            )
        return log

    def state(self, model: str) -> ModelState:
        """Returns where a model stands.

        Raises:
            ApprovalError: If the log is damaged.
            StoreError: If nothing of this model was approved.
        """
        log = self.sound()
        state = state_of(log.entries, model)
        if state is None:
            raise StoreError(f"{self.folder}: no model {model!r} was approved here", did_you_mean(model, log.models))
        return state

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Takes the registry for one command, and finishes what a stopped one left.

        Raises:
            ApprovalError: If the log is damaged.
            StoreError: If the folder holds something else, cannot be written, or another command does not end.
        """
        self._check_owner()
        with stated(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            self._wait(lock)
            self.sound()
            self._sweep()
            self.finish()
            yield
        finally:
            os.close(lock)

    def finish(self) -> None:
        """Makes the head and every pointer what the log says. Nothing changes where they are."""
        log = self.sound()
        if log.unfinished is not None:
            write_atomic(self.folder / HEAD, log.head.text)
        for model in log.models:
            state = state_of(log.entries, model)
            if state is not None and self.pointer(model) != state.current.sequence:
                self._point(state.current)

    def put(self, data: bytes) -> FileRecord:
        """Keeps a file by its content; one that is there and whole is not written again."""
        record = FileRecord(digest(data), len(data))
        if self.damage(record):
            path = self.path(record.sha256)
            write_atomic(path, data)
            with stated(path):
                path.chmod(0o444)
        return record

    def append(self, entry: Entry, sign: Callable[[bytes], bytes] | None = None) -> None:
        """Writes an entry and moves the pointer of its model; call it with the registry locked.

        Args:
            entry: The next one: its `previous` and `sequence` follow from the log.
            sign: Gives the signature of a line; only with an entry that says it is signed.

        Raises:
            StoreError: If a file cannot be written; what was in force still is.
        """
        log = self.sound()
        self._lay_out(entry)
        if sign is not None:
            write_atomic(self.signature_path(entry), sign(entry.line))
        before = b"".join(item.line for item in log.entries)
        write_atomic(self.folder / LOG, before + entry.line)
        write_atomic(self.folder / HEAD, Log((entry,)).head.text)
        self._point(entry)

    def path(self, sha256: str) -> Path:
        """Returns where a file lies by its content."""
        return self.folder / "objects" / sha256[:2] / sha256

    def release(self, model: str, number: int) -> Path:
        """Returns the folder of a release."""
        return self.folder / "models" / model / "releases" / f"{number:04}"

    def current(self, model: str) -> Path:
        """Returns the pointer of a model."""
        return self.folder / "models" / model / "current"

    def pointer(self, model: str) -> int | None:
        """Returns the release that a model's pointer stands at, None where it stands at none."""
        try:
            name = os.readlink(self.current(model))
        except OSError:
            return None
        folder, _, number = name.rpartition("/")
        return int(number) if folder == "releases" and number.isdecimal() else None

    def signature_path(self, entry: Entry) -> Path:
        """Returns where an entry's signature lies."""
        return self.folder / "signatures" / f"{entry.sha256}.sig"

    def damage(self, record: FileRecord) -> str:
        """Returns what is wrong with a file that was kept, empty if nothing is: its hash is computed again."""
        try:
            data = self.path(record.sha256).read_bytes()
        except FileNotFoundError:
            return "is missing"
        except OSError as error:
            return f"cannot be read: {error.strerror or error}"
        if digest(data) == record.sha256:
            return ""
        size = f", {len(data):,} bytes instead of {record.size_bytes:,}" if len(data) != record.size_bytes else ""
        return f"was changed: its sha256 is {digest(data)[:12]}…, approved was {record.sha256[:12]}…{size}"

    def misplaced(self, entry: Entry) -> Iterator[tuple[str, str]]:
        """Yields (path, what is wrong) of every file of a release that is not the link it should be."""
        folder = self.release(entry.model, entry.release)
        for name, record in entry.files.items():
            try:
                target = os.readlink(folder / name)
            except FileNotFoundError:
                yield name, "is missing"
            except OSError:
                yield name, "was replaced by something that is no link"
            else:
                if target != self._link(name, record):
                    yield name, f"was pointed elsewhere: {target}"
        known = {*entry.files, *(path.rpartition("/")[0] for path in entry.files)}
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if name not in known and not any(file.startswith(f"{name}/") for file in known):
                yield name, "was added"

    def _link(self, name: str, record: FileRecord) -> str:
        # From models/NAME/releases/0003/ up to the registry, and once more for each folder of the file's own.
        up = "../" * (4 + name.count("/"))
        return f"{up}objects/{record.sha256[:2]}/{record.sha256}"

    def _lay_out(self, entry: Entry) -> None:
        """Makes the folder of a release, complete, in one step; one that is right stays."""
        final = self.release(entry.model, entry.release)
        if final.is_dir() and not list(self.misplaced(entry)):
            return
        scratch = final.with_name(f".{final.name}.{secrets.token_hex(4)}.tmp")
        with stated(final):
            try:
                for name, record in entry.files.items():
                    (scratch / name).parent.mkdir(parents=True, exist_ok=True)
                    os.symlink(self._link(name, record), scratch / name)
                shutil.rmtree(final, ignore_errors=True)
                os.replace(scratch, final)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)

    def _point(self, entry: Entry) -> None:
        if list(self.misplaced(entry)):
            self._lay_out(entry)
        link_atomic(self.current(entry.model), f"releases/{entry.release:04}")

    def _content(self, name: str) -> bytes | None:
        path = self.folder / name
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"{path}: cannot be read: {error.strerror or error}", "check the path.") from error

    def _check_owner(self) -> None:
        with stated(self.folder):
            if not self.folder.exists():
                return
        if not self.folder.is_dir():
            raise StoreError(f"{self.folder}: is not a folder", "choose another one with --registry.")
        names = sorted(path.name for path in self.folder.iterdir())
        foreign = [name for name in names if name not in (*_OURS, *_ALLOWED) and not name.endswith(".tmp")]
        if foreign and LOG not in names:
            raise StoreError(
                f"{self.folder}: is not a folder of approvals (it holds {foreign[0]!r})",
                "choose another one with --registry.",
            )

    def _wait(self, lock: int) -> None:
        ends = time.monotonic() + _WAIT_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if time.monotonic() > ends:
                    raise StoreError(
                        f"{self.folder}: another command has been writing here for {_WAIT_S:.0f} s",
                        "wait for it to end, then run this one again.",
                    ) from error
                time.sleep(0.05)
            else:
                return

    def _sweep(self) -> None:
        """Removes what a stopped command left unfinished. Nobody else is writing: the registry is locked."""
        for scratch in [*self.folder.glob(".*.tmp"), *self.folder.glob("*/**/.*.tmp")]:
            if scratch.is_dir() and not scratch.is_symlink():
                shutil.rmtree(scratch, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    scratch.unlink()


def missing_files(registry: Registry, entry: Entry) -> Mapping[str, str]:
    """Returns path -> damage of every file of a release that is gone or changed, every hash computed again."""
    found = {name: registry.damage(record) for name, record in entry.files.items()}
    return {name: damage for name, damage in found.items() if damage}

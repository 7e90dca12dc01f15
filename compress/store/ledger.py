"""The approval log: one JSON line an entry, each holding the sha256 of the line before it."""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from compress.store.cache import digest

SCHEMA = 1
LOG = "log.jsonl"
HEAD = "head.json"

START = "0" * 64
"""What the first entry holds in place of a predecessor's hash."""

MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class FileRecord:
    """A file of a release: the sha256 and the length of its bytes."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Shipped(FileRecord):
    """The file that ships on a target: `file` is its path inside the release, `scheme` what it was lowered as."""

    file: str
    scheme: str = ""


@dataclass(frozen=True)
class Entry:
    """One approval or rollback.

    Attributes:
        sequence: 1, 2, 3 … over the whole log.
        previous: sha256 of the line before, its newline included; `START` for the first.
        action: `approve` makes a release, `rollback` points at an older one again.
        model: Whose release it is.
        release: The sequence of the approval whose files are in force from here on; for an approval its own.
        targets: Target -> what ships there.
        files: Path inside the release -> hash; everything that was copied.
        evidence: sha256 of `evidence.json`.
        status: The gate's answer when it was approved.
        override: Why it was approved all the same, where that answer was not PASS.
        who: `Name <mail>`.
        when: UTC, ISO 8601.
        reason: In the words of who did it.
        version: Of the program.
        signed: Whether a signature of this line belongs to it.
    """

    sequence: int
    previous: str
    action: Literal["approve", "rollback"]
    model: str
    release: int
    targets: Mapping[str, Shipped]
    files: Mapping[str, FileRecord]
    evidence: str
    status: str
    override: str
    who: str
    when: str
    reason: str
    version: str
    signed: bool
    schema: int = SCHEMA

    @property
    def line(self) -> bytes:
        """The entry as it stands in the log: keys sorted, no spaces, UTF-8, a newline at the end."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return f"{text}\n".encode()

    @property
    def sha256(self) -> str:
        """What the next entry holds: `sed -n 3p log.jsonl | sha256sum` gives that of the third."""
        return digest(self.line)


@dataclass(frozen=True)
class Head:
    """What stands beside the log so that a lost end is seen: the number and the hash of the last entry."""

    sequence: int
    sha256: str

    @property
    def text(self) -> bytes:
        """The file's content."""
        return (json.dumps(asdict(self)) + "\n").encode()


@dataclass(frozen=True)
class Log:
    """A log as it was read.

    `problems` names what is wrong, each entry and line exactly; while there is one, `entries` holds only what could
    be read. `unfinished` is the last entry if the command that wrote it was stopped right afterwards.
    """

    entries: tuple[Entry, ...] = ()
    problems: tuple[str, ...] = ()
    unfinished: Entry | None = None

    @property
    def head(self) -> Head:
        """What `head.json` must say."""
        last = self.entries[-1] if self.entries else None
        return Head(last.sequence, last.sha256) if last else Head(0, START)

    @property
    def models(self) -> tuple[str, ...]:
        """Every model of the log, in the order of their first approval."""
        return tuple(dict.fromkeys(entry.model for entry in self.entries))


@dataclass(frozen=True)
class ModelState:
    """Where a model stands after its entries.

    Attributes:
        current: The approval whose files are in force.
        moved: The entry that put it there: the approval itself, or a rollback.
        releases: Sequence -> approval, the oldest first.
        withdrawn: Releases that were rolled back from, and not pointed at again since.
    """

    current: Entry
    moved: Entry
    releases: Mapping[int, Entry]
    withdrawn: frozenset[int] = field(default_factory=frozenset)

    @property
    def before(self) -> Entry | None:
        """Where a plain rollback leads: the newest older release that nobody rolled back from."""
        older = [
            entry
            for number, entry in self.releases.items()
            if number < self.current.sequence and number not in self.withdrawn
        ]
        return older[-1] if older else None


def state_of(entries: Iterable[Entry], model: str) -> ModelState | None:
    """Returns where a model stands, or None where the log does not hold it."""
    state: ModelState | None = None
    for entry in entries:
        if entry.model != model:
            continue
        if entry.action == "approve":
            releases = {**(state.releases if state else {}), entry.sequence: entry}
            state = ModelState(entry, entry, releases, state.withdrawn if state else frozenset())
        elif state is not None and entry.release in state.releases:
            left = {number for number in state.releases if entry.release < number <= state.current.sequence}
            withdrawn = (state.withdrawn | left) - {entry.release}
            state = ModelState(state.releases[entry.release], entry, state.releases, withdrawn)
    return state


def read_log(data: bytes | None, head: bytes | None) -> Log:
    """Reads a log and checks its chain; nothing is raised for a damaged one, its damage is named.

    Args:
        data: Content of `log.jsonl`, None where there is none.
        head: Content of `head.json`, None where there is none.
    """
    lines = (data or b"").splitlines(keepends=True)
    parsed = [_entry(line, number) for number, line in enumerate(lines, start=1)]
    entries = tuple(item for item in parsed if isinstance(item, Entry))
    problems = [item for item in parsed if isinstance(item, str)]
    # A line that cannot be read would make a gap of its own; it is named once.
    if not problems:
        problems = [*_order(entries)] or [*_chain(entries)]
    if not problems:
        problems = [*_content(entries)]
    stated = _head(head)
    if isinstance(stated, str):
        return Log(entries, (*problems, stated))
    unfinished = None
    if not problems:
        if _is_one_behind(stated, entries):
            unfinished = entries[-1]
        else:
            problems = [*_end(stated, entries)]
    else:
        last = max([len(lines), *(entry.sequence for entry in entries)])
        if stated is not None and last < stated.sequence:
            problems.append(_cut(stated, last))
    return Log(entries, tuple(problems), unfinished)


def _entry(line: bytes, number: int) -> Entry | str:
    """The entry of a line, or what is wrong with it."""
    from pydantic import ValidationError

    if not line.endswith(b"\n"):
        return f"{LOG} line {number}: the line is cut off"
    try:
        entry: Entry = _schema().validate_python(json.loads(line))
        # Whatever is not in the one form was not written by this program: another spelling has another hash.
        edited = entry.line != line
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        return f"{LOG} line {number}: is no entry: {'.'.join(map(str, first['loc']))}: {first['msg']}"
    except (ValueError, RecursionError):
        return f"{LOG} line {number}: is no JSON"
    if entry.schema != SCHEMA:
        return f"{LOG} line {number}: schema {entry.schema}; this version reads {SCHEMA}"
    if edited:
        return f"{LOG} line {number}: was edited: it is not in the form in which entries are written"
    return entry


@functools.cache
def _schema() -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(Entry)


def _order(entries: Sequence[Entry]) -> Iterable[str]:
    numbers = [entry.sequence for entry in entries]
    wanted = list(range(1, len(entries) + 1))
    if numbers == wanted:
        return
    twice = sorted({number for number in numbers if numbers.count(number) > 1})
    yield from (f"{LOG}: entry {number} stands {numbers.count(number)} times" for number in twice)
    missing = sorted(set(range(1, max(numbers, default=0) + 1)) - set(numbers))
    yield from (f"{LOG}: entry {number} is missing" for number in missing)
    if not twice and not missing:
        line = next(index for index, number in enumerate(numbers, start=1) if number != index)
        yield f"{LOG} line {line}: holds entry {numbers[line - 1]}: the lines were reordered"


def _chain(entries: Sequence[Entry]) -> Iterable[str]:
    if entries and entries[0].previous != START:
        yield f"{LOG}: entry 1 was edited: it states a predecessor"
    for before, after in itertools.pairwise(entries):
        if before.sha256 != after.previous:
            yield (
                f"{LOG}: entry {before.sequence} was edited: its sha256 is {before.sha256[:12]}…, "
                f"entry {after.sequence} states {after.previous[:12]}…"
            )


def _content(entries: Sequence[Entry]) -> Iterable[str]:
    """What a program of ours would not have written, though the chain holds."""
    for entry in entries:
        here = f"{LOG}: entry {entry.sequence}"
        if not MODEL_NAME.fullmatch(entry.model):
            yield f"{here}: {entry.model!r} is no name of a model"
        yield from (f"{here}: {path!r} leads out of its release" for path in entry.files if not is_inside(path))
        hashes = [entry.evidence, *(record.sha256 for record in entry.files.values())]
        yield from (f"{here}: {sha!r} is no sha256" for sha in hashes if not _SHA256.fullmatch(sha))
        for target, shipped in entry.targets.items():
            if entry.files.get(shipped.file) != FileRecord(shipped.sha256, shipped.size_bytes):
                yield f"{here}: what ships on {target!r} is not among its files"
        origin = next((item for item in entries if item.sequence == entry.release), None)
        if entry.action == "approve" and entry.release != entry.sequence:
            yield f"{here}: an approval states release {entry.release}"
        if entry.action == "rollback" and (
            origin is None
            or origin.action != "approve"
            or origin.sequence >= entry.sequence
            or (origin.model, origin.files, origin.targets) != (entry.model, entry.files, entry.targets)
        ):
            yield f"{here}: rolls back to release {entry.release}, which is no approval of {entry.model} before it"


def is_inside(path: str) -> bool:
    """Returns whether a path of a release stays inside it: relative, forward slashes, no `..`."""
    parts = path.split("/")
    return bool(path) and "\\" not in path and "\0" not in path and not any(part in ("", ".", "..") for part in parts)


def _head(data: bytes | None) -> Head | str | None:
    if data is None:
        return None
    try:
        plain: dict[str, Any] = json.loads(data)
        head = Head(plain["sequence"], plain["sha256"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return f"{HEAD}: is damaged"
    return head if isinstance(head.sequence, int) and isinstance(head.sha256, str) else f"{HEAD}: is damaged"


def _is_one_behind(head: Head | None, entries: Sequence[Entry]) -> bool:
    """Whether the last entry was written and its command stopped before it could say so."""
    if not entries:
        return False
    stated = head or Head(0, START)
    return stated.sequence == len(entries) - 1 and stated.sha256 == entries[-1].previous


def _end(head: Head | None, entries: Sequence[Entry]) -> Iterable[str]:
    if head is None:
        if entries:
            yield f"{HEAD}: is missing beside {len(entries)} entries"
        return
    if head.sequence > len(entries):
        yield _cut(head, len(entries))
    elif head.sequence < len(entries):
        yield f"{HEAD}: names entry {head.sequence} as the last, {LOG} ends with entry {len(entries)}"
    elif entries and head.sha256 != entries[-1].sha256:
        yield (
            f"{LOG}: entry {head.sequence}, the last, was edited: its sha256 is {entries[-1].sha256[:12]}…, "
            f"{HEAD} states {head.sha256[:12]}…"
        )


def _cut(head: Head, count: int) -> str:
    lost = head.sequence - count
    return (
        f"{LOG}: {lost} {'entry was' if lost == 1 else 'entries were'} cut off the end: it ends with entry {count}, "
        f"{HEAD} states entry {head.sequence}"
    )

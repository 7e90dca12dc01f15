"""`verify`: every hash of a registry computed again, and every damage named."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from compress.errors import ApprovalError
from compress.store.ledger import LOG, Entry, FileRecord, Log, state_of
from compress.store.ledger_registry import Registry
from compress.store.signing import check_signature


@dataclass(frozen=True)
class Checked:
    """What `verify` found.

    Attributes:
        entries: Number of entries whose chain was checked.
        files: Number of different files that were hashed.
        size_bytes: Of those files together.
        models: Model -> release in force.
        signatures: One sentence an entry, about its signature.
        problems: What is wrong, each with the file or the entry that it is about; empty where nothing is.
        head: sha256 of the last entry.
    """

    entries: int
    files: int
    size_bytes: int
    models: dict[str, int]
    signatures: tuple[str, ...]
    problems: tuple[str, ...]
    head: str


def check_registry(
    registry: Registry, model: str | None = None, allowed: Path | None = None, head: str | None = None
) -> Checked:
    """Computes the hash of every entry, artifact, report and piece of evidence again.

    Args:
        registry: What to check.
        model: Only the files of this model; the chain is checked whole.
        allowed: The file of allowed signers. With it, an entry without a good signature is a problem.
        head: sha256 of an entry that was the last one once: the log must still hold it.

    Raises:
        StoreError: If there is no registry, or no such model.
        MissingPackageError: If signatures must be checked and `ssh-keygen` is missing.
    """
    log = registry.read()
    if model is not None and not log.problems:
        registry.state(model)
    problems = [*log.problems, *_head(log, head)]
    mine = [entry for entry in log.entries if model in (None, entry.model)]
    records = {record: None for entry in mine for record in entry.files.values()}
    problems += _files(registry, mine)
    signatures: list[str] = []
    for entry in mine:
        try:
            signatures.append(f"entry {entry.sequence}: {signature_of(registry, entry, allowed)}")
        except ApprovalError as error:
            problems.append(f"{LOG}: entry {entry.sequence}: {error.message}")
    # Where the log cannot be trusted, neither can what it says about what is in force.
    models = {}
    if not log.problems:
        for name in dict.fromkeys(entry.model for entry in mine):
            state = state_of(log.entries, name)
            if state is not None:
                models[name] = state.current.sequence
                problems += _pointer(registry, name, state.current, log.unfinished)
        problems += _releases(registry, mine)
    size_bytes = sum(record.size_bytes for record in records)
    return Checked(len(log.entries), len(records), size_bytes, models, tuple(signatures), tuple(problems), _last(log))


def signature_of(registry: Registry, entry: Entry, allowed: Path | None) -> str:
    """Checks the signature of an entry and returns what was found.

    Raises:
        ApprovalError: If a signature is missing or bad; where allowed signers are given, every entry must have one.
    """
    if not entry.signed:
        if allowed is not None:
            raise ApprovalError(f"is not signed, and only what a signer of {allowed} signed is accepted")
        return "not signed"
    path = registry.signature_path(entry)
    try:
        signature = path.read_bytes()
    except OSError as error:
        raise ApprovalError(f"its signature {path.name} is missing: {error.strerror or error}") from error
    return check_signature(entry.line, signature, entry.who, entry.when, allowed)


def _last(log: Log) -> str:
    return log.entries[-1].sha256 if log.entries else ""


def _head(log: Log, head: str | None) -> Iterable[str]:
    if head is not None and head not in {entry.sha256 for entry in log.entries}:
        yield f"{LOG}: no entry has the sha256 {head}: it was removed, or edited since"


def _files(registry: Registry, entries: list[Entry]) -> Iterator[str]:
    """What is wrong with the kept files, each hashed once and named by the releases that it belongs to."""
    where: dict[FileRecord, list[str]] = {}
    for entry in entries:
        if entry.action == "approve":
            for name, record in entry.files.items():
                where.setdefault(record, []).append(f"{name} of {entry.model} release {entry.sequence}")
    for record, names in where.items():
        damage = registry.damage(record)
        if damage:
            path = registry.path(record.sha256).relative_to(registry.folder)
            yield f"{' and '.join(names)} ({path}) {damage}"


def _pointer(registry: Registry, model: str, current: Entry, unfinished: Entry | None) -> Iterator[str]:
    pointer = registry.pointer(model)
    if pointer == current.sequence and unfinished is None:
        return
    stands = "is missing" if pointer is None else f"stands at release {pointer}"
    if unfinished is not None and unfinished.model == model:
        yield (
            f"entry {unfinished.sequence} was written by a command that was stopped: the pointer of {model} {stands}, "
            f"the log says release {current.sequence}; finish it with edge-compress rollback {model} "
            f"--to {current.sequence}"
        )
    elif pointer != current.sequence:
        yield (
            f"models/{model}/current {stands}, the log says release {current.sequence}; set it right with "
            f"edge-compress rollback {model} --to {current.sequence}"
        )


def _releases(registry: Registry, entries: list[Entry]) -> Iterator[str]:
    for entry in entries:
        if entry.action == "approve":
            folder = registry.release(entry.model, entry.sequence).relative_to(registry.folder)
            for name, damage in registry.misplaced(entry):
                yield f"{folder}/{name} {damage}"

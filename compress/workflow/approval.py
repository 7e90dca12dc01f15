"""Approval: a run that passed becomes a release, older releases come back in one step, and both can be proved."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import compress
from compress.errors import ApprovalError, StoreError, did_you_mean
from compress.evidence import ArtifactInfo, Evidence, from_json
from compress.gate import overall
from compress.store.cache import digest
from compress.store.ledger import MODEL_NAME, Entry, Shipped, is_inside
from compress.store.ledger_check import signature_of
from compress.store.ledger_registry import DEFAULT_FOLDER, Registry, missing_files
from compress.store.signing import WHO, Signer

# Beside the artifacts, what a reader of a release needs. Rows for review hold customers' data and stay in the run.
_DOCUMENTS = ("evidence.json", "manifest.json", "report.md", "report.html", "model_card.md")


@dataclass(frozen=True)
class Moved:
    """What approve or rollback did: the entry, and whether it is new or said only what was so already."""

    entry: Entry
    is_new: bool
    folder: Path


@dataclass(frozen=True)
class ApprovedArtifact:
    """A file that is in force, every hash and the signature checked just now."""

    path: Path
    sha256: str
    size_bytes: int
    evidence: Path
    entry: Entry


@dataclass(frozen=True)
class _Run:
    """A published run, read once and whole: its manifest, its evidence, and the files that the manifest lists."""

    folder: Path
    manifest: Mapping[str, Any]
    evidence: Evidence
    files: Mapping[str, bytes]


def default_registry(out: Path) -> Path:
    """Returns where the approvals of a run's output folder are kept: `approved/` beside it."""
    # `.` and `..` have no name of their own; beside them is not inside them.
    beside = out.parent if out.name not in ("", "..") else out.resolve().parent
    return beside / DEFAULT_FOLDER


def approve(
    out: Path,
    who: str,
    *,
    registry: Path | None = None,
    reason: str = "",
    override: str = "",
    ship: Mapping[str, str] | None = None,
    key: Path | None = None,
) -> Moved:
    """Takes the current run of an output folder as the release in force of its model.

    Args:
        out: The output folder of a run.
        who: `Name <mail>` of who approves.
        registry: Where approvals are kept; None for `approved/` beside the output folder.
        reason: In the words of who approves.
        override: Why it is approved although the gate did not say PASS.
        ship: Target -> scheme that ships there instead of the run's choice; only with `override`.
        key: Signs the entry.

    Raises:
        ApprovalError: If the run did not PASS, nothing ships, or the log is damaged. What was in force still is.
        StoreError: If the run is damaged, or a file cannot be read or written.
    """
    _check_words(who, reason, override)
    run = _read_run(out)
    status, _ = overall(run.evidence.targets)
    if ship and not override:
        raise StoreError("--ship chooses against the gate", "say why with --override REASON.")
    if status != "PASS" and not override:
        raise ApprovalError(f"{out}: the gate says {status}, not PASS: {_why(run.evidence)}", _remedy(out))
    targets = _targets(run, ship or {})
    if not targets:
        raise ApprovalError(
            f"{out}: nothing ships on any target: {_why(run.evidence)}",
            "choose what ships in spite of the gate with --ship TARGET=SCHEME, or run another recipe.",
        )
    kept = [*(shipped.file for shipped in targets.values()), *run.manifest.get("attachments", []), *_DOCUMENTS]
    files = {name: run.files[name] for name in dict.fromkeys(kept) if name in run.files}
    store = Registry(registry or default_registry(out))
    with store.locked():
        log = store.sound()
        records = {name: store.put(data) for name, data in files.items()}
        name = run.evidence.name
        known = store.state(name).current if name in log.models else None
        if known is not None and (known.files, known.targets) == (records, targets):
            return Moved(known, False, store.folder)
        sequence = log.head.sequence + 1
        entry = Entry(
            sequence=sequence,
            previous=log.head.sha256,
            action="approve",
            model=name,
            release=sequence,
            targets=targets,
            files=records,
            evidence=records["evidence.json"].sha256,
            status=status,
            override=override,
            who=who,
            when=_now(),
            reason=reason,
            version=compress.__version__,
            signed=key is not None,
        )
        store.append(entry, Signer(key).sign if key is not None else None)
    return Moved(entry, True, store.folder)


def rollback(
    registry: Path, model: str, who: str, *, to: int | None = None, reason: str = "", key: Path | None = None
) -> Moved:
    """Puts an older release in force again, in one step; or a newer one, if `to` names it.

    Args:
        registry: Where approvals are kept.
        model: Whose release.
        who: `Name <mail>` of who rolls back.
        to: Which release; None for the newest older one that nobody rolled back from.
        reason: In the words of who does it.
        key: Signs the entry.

    Raises:
        ApprovalError: If the log or a file of that release is damaged. What was in force still is.
        StoreError: If there is no such model or release.
    """
    _check_words(who, reason)
    store = Registry(registry)
    store.state(model)
    with store.locked():
        state = store.state(model)
        target = state.before if to is None else state.releases.get(to)
        if target is None:
            raise StoreError(*_no_release(model, to, list(state.releases), state.current.sequence))
        damaged = missing_files(store, target)
        if damaged:
            name, damage = next(iter(damaged.items()))
            raise ApprovalError(
                f"release {target.sequence} of {model}: {name} {damage}; release {state.current.sequence} stays",
                "bring objects/ back from a backup, or choose another release with --to.",
            )
        if target.sequence == state.current.sequence:
            return Moved(state.moved, False, store.folder)
        log = store.sound()
        # What it was approved with goes along unchanged.
        entry = replace(
            target,
            sequence=log.head.sequence + 1,
            previous=log.head.sha256,
            action="rollback",
            release=target.sequence,
            who=who,
            when=_now(),
            reason=reason,
            version=compress.__version__,
            signed=key is not None,
        )
        store.append(entry, Signer(key).sign if key is not None else None)
    return Moved(entry, True, store.folder)


def approved_artifact(registry: Path, model: str, target: str, allowed_signers: Path | None = None) -> ApprovedArtifact:
    """Returns the file that is in force, to be a baseline: the chain, its hash and its signature are checked first.

    Args:
        registry: Where approvals are kept.
        model: Whose artifact.
        target: On which target.
        allowed_signers: With it, the approval, and the rollback that put it in force, must be signed by one of them.

    Raises:
        ApprovalError: If the log, the artifact, its evidence or a signature is not what was approved.
        StoreError: If there is no such model or target.
    """
    store = Registry(registry)
    state = store.state(model)
    entry = state.current
    shipped = entry.targets.get(target)
    if shipped is None:
        raise StoreError(
            f"{registry}: release {entry.sequence} of {model} ships nothing on {target!r}",
            did_you_mean(target, entry.targets),
        )
    damaged = missing_files(store, entry)
    for name in (shipped.file, "evidence.json"):
        if name in damaged:
            raise ApprovalError(
                f"{registry}: release {entry.sequence} of {model}: {name} {damaged[name]}",
                "it is no baseline any more; bring objects/ back from a backup.",
            )
    for signed in dict.fromkeys((entry.sequence, state.moved.sequence)):
        of = entry if signed == entry.sequence else state.moved
        try:
            signature_of(store, of, allowed_signers)
        except ApprovalError as error:
            raise ApprovalError(
                f"{registry}: entry {of.sequence}: {error.message}",
                error.hint or "it is no baseline; approve it with --sign KEY, a key of an allowed signer.",
            ) from error
    path = store.path(shipped.sha256)
    return ApprovedArtifact(path, shipped.sha256, shipped.size_bytes, store.path(entry.evidence), entry)


def baseline_file(named: str, registry: Path, allowed_signers: Path | None = None) -> Path:
    """Returns the file that a command line names: a path, or `approved:NAME[@TARGET]` for what is in force.

    Raises:
        ApprovalError: If what was approved is not what lies there; see `approved_artifact`.
        StoreError: If there is no such model, or it ships on several targets and none is named.
    """
    kind, colon, approved = named.partition(":")
    if (kind, colon) != ("approved", ":"):
        return Path(named)
    model, _, target = approved.partition("@")
    if not target:
        targets = list(Registry(registry).state(model).current.targets)
        if len(targets) != 1:
            raise StoreError(
                f"{named}: it ships on {len(targets)} targets",
                f"name one: {named}@{targets[0] if targets else 'TARGET'}.",
            )
        target = targets[0]
    return approved_artifact(registry, model, target, allowed_signers).path


def _read_run(out: Path) -> _Run:
    """The current run of an output folder, every hash computed again."""
    again = "run the recipe again: edge-compress run."
    # Read where the pointer leads once: a run that is published meanwhile is not mixed in.
    folder = (out / "current").resolve()
    try:
        text = (folder / "manifest.json").read_bytes()
        manifest = json.loads(text)
        listed = {str(entry["path"]): str(entry["sha256"]) for entry in manifest["files"]}
    except FileNotFoundError as error:
        raise StoreError(f"{out}: holds no finished run", "name the --out of edge-compress run.") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{folder / 'manifest.json'}: cannot be read: {error}", again) from error
    # A run is named by its manifest, so an edited manifest no longer fits its folder.
    if not digest(text).startswith(folder.name):
        raise StoreError(f"{folder / 'manifest.json'}: was changed after the run", again)
    files = {"manifest.json": text}
    for name, sha in listed.items():
        if not is_inside(name) or not (folder / name).resolve().is_relative_to(folder):
            raise StoreError(f"{folder / 'manifest.json'}: {name!r} leads out of the run", again)
        try:
            files[name] = (folder / name).read_bytes()
        except OSError as error:
            raise StoreError(f"{folder / name}: cannot be read: {error.strerror or error}", again) from error
        if digest(files[name]) != sha:
            raise StoreError(f"{folder / name}: was changed after the run", again)
    if "evidence.json" not in files:
        raise StoreError(f"{out}: the run has no evidence.json", again)
    evidence: Evidence = from_json(Evidence, files["evidence.json"], str(folder / "evidence.json"))
    if not MODEL_NAME.fullmatch(evidence.name):
        raise StoreError(f"{folder / 'evidence.json'}: {evidence.name!r} is no name of a model", again)
    return _Run(folder, manifest, evidence, files)


def _targets(run: _Run, ship: Mapping[str, str]) -> dict[str, Shipped]:
    """What ships on each target: the run's choice, or what was chosen in spite of it."""
    names = [target.target for target in run.evidence.targets]
    for name in ship:
        if name not in names:
            raise StoreError(f"--ship: there is no target {name!r} in this run", did_you_mean(name, names))
    found = {}
    for target in run.evidence.targets:
        made = {item.scheme: item.artifact for item in target.candidates if item.artifact is not None}
        scheme = ship.get(target.target, target.choice.scheme)
        if target.target in ship and scheme not in made:
            raise StoreError(
                f"--ship: there is no artifact of {scheme!r} on {target.target}", did_you_mean(str(scheme), made)
            )
        if scheme in made:
            found[target.target] = _shipped(run, made[scheme])
    return found


def _shipped(run: _Run, artifact: ArtifactInfo) -> Shipped:
    if artifact.beside:
        raise StoreError(
            f"{run.folder / artifact.file}: keeps its weights in {artifact.beside[0]}; a release holds single files",
            "ship both files of the run; its manifest.json has their hashes.",
        )
    data = run.files.get(artifact.file)
    if data is None or digest(data) != artifact.sha256:
        raise StoreError(
            f"{run.folder / artifact.file}: is not the file that was measured",
            "run the recipe again: edge-compress run.",
        )
    return Shipped(artifact.sha256, len(data), artifact.file, artifact.scheme)


def _why(evidence: Evidence) -> str:
    """The reason of each target that ships nothing, shortened to what decides."""
    reasons = [
        f"{target.target}: {(target.error or target.choice.reason).splitlines()[0]}"
        for target in evidence.targets
        if target.error or target.choice.scheme is None
    ]
    return "; ".join(reasons) or "what ships did not pass on every target"


def _remedy(out: Path) -> str:
    return (
        f"read {out / 'report.md'}; what is approved in spite of the gate needs --override REASON, which the log keeps."
    )


def _no_release(model: str, to: int | None, releases: list[int], current: int) -> tuple[str, str]:
    known = ", ".join(map(str, releases))
    if to is not None:
        return f"{model} has no release {to}", f"releases: {known}."
    return (
        f"{model}: before release {current} there is none that nobody rolled back from",
        f"name one with --to: {known}.",
    )


def _check_words(who: str, *texts: str) -> None:
    if not WHO.fullmatch(who) or not who.isprintable():
        raise StoreError(f"--by must be 'Name <mail>'; got {who!r}", 'for example --by "Ada Byron <ada@bank.example>".')
    for text in texts:
        if not text.isprintable():
            raise StoreError(f"a reason must be one line of text; got {text!r}", "leave out line breaks and controls.")


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


__all__ = [
    "ApprovedArtifact",
    "Moved",
    "approve",
    "approved_artifact",
    "baseline_file",
    "default_registry",
    "rollback",
]

"""Saving a baseline: what ships now is measured, written down, and kept."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from compress.errors import StoreError
from compress.hosts import timing_host
from compress.hosts.local import LocalHost
from compress.store.cache import digest
from compress.workflow.baseline import Baselines, Entry, new_entry, pack
from compress.workflow.figures import Subject, measure_figures, rows_for
from compress.workflow.machines import environment_at
from compress.workflow.plan import PACKAGES
from compress.workflow.progress import Progress
from compress.workflow.shipped import Shipped, find_shipped

BATCH = 1


@dataclass(frozen=True)
class Saved:
    """One entry that was written."""

    path: Path
    model: str
    target: str
    entry: Entry


def save(
    baselines: Baselines, name: str, sources: Sequence[Path], only: Sequence[str], progress: Progress
) -> tuple[Saved, ...]:
    """Measures what ships from each source and makes it the baseline of that name.

    Args:
        baselines: The project's.
        name: Of the baseline, `main` for instance.
        sources: Output folders or model files, inside the project.
        only: Targets; empty for all.
        progress: Told what is happening.

    Raises:
        StoreError: If a source lies outside the project, holds nothing that ships, or nothing is left to save.
        WorkerError: If an artifact cannot be measured.
    """
    found = [(source, item) for source in sources for item in find_shipped(source)]
    wanted = [(source, item) for source, item in found if not only or item.target.name in only]
    if not wanted:
        raise StoreError(
            f"nothing to save: {len(found)} files ship from {', '.join(map(str, sources)) or 'no source'},"
            f" none on {', '.join(only) or 'any target'}",
            "name an output folder of `edge-compress run` or a model file.",
        )
    saved = []
    with baselines.locked():
        for source, item in wanted:
            progress.step(f"measuring {item.file.name} on {item.target.name}")
            saved.append(_save(baselines, name, source, item))
    return tuple(saved)


def restore(baselines: Baselines, name: str, sources: Sequence[Path]) -> tuple[list[str], list[str]]:
    """Puts artifacts of a baseline back into the store, found by their hash among the files of the sources.

    Returns:
        What was restored or was there already, and what is still missing, as `model on target`.

    Raises:
        StoreError: If there is no baseline of that name.
    """
    entries = [(file, file.baselines[name]) for file in baselines.read() if name in file.baselines]
    if not entries:
        raise StoreError(f"there is no baseline {name!r}", "list them: edge-compress baseline list.")
    whole, missing = [], []
    for file, entry in entries:
        text = f"{file.model} on {file.target}"
        given = _find(entry.sha256, [*sources, baselines.project / entry.source])
        if given is not None:
            baselines.put(given)
        if baselines.store.blob(entry.sha256) is None:
            missing.append(text)
            continue
        _restore_rows(baselines, entry)
        whole.append(text)
    return whole, missing


def packages(runtime: str) -> tuple[str, ...]:
    """The distributions whose versions decide about a runtime's times."""
    return tuple(name for name in PACKAGES.get(runtime, ()) if name != "torch")


def _save(baselines: Baselines, name: str, source: Path, item: Shipped) -> Saved:
    if item.file.beside:
        raise StoreError(
            f"{item.file.path}: keeps its weights in {item.file.beside[0]}; a baseline keeps single files",
            "compare the two files directly: edge-compress bench.",
        )
    host = timing_host(item.target)
    machine = environment_at(host, item.file.runtime, packages(item.file.runtime))
    subject = Subject(item.file.path, item.file.runtime, item.file.precision, item.target.threads, BATCH)
    inputs = pack(rows_for(host, subject))
    with tempfile.TemporaryDirectory(prefix="edge-compress-") as folder:
        path = Path(folder) / "rows.npz"
        path.write_bytes(inputs)
        figures = measure_figures(host, subject, path)
    artifact = item.file.path.read_bytes()
    entry = new_entry(
        file=item.file.path.name,
        source=_inside(baselines.project, source),
        runtime=item.file.runtime,
        precision=item.file.precision,
        threads=item.target.threads,
        artifact=artifact,
        inputs=inputs,
        batch=BATCH,
        figures=figures,
        environment=machine,
    )
    return Saved(
        baselines.save(name, item.model, item.target.name, entry, artifact, inputs), item.model, item.target.name, entry
    )


def _inside(project: Path, source: Path) -> str:
    """A source relative to the project: a committed file names no folder of one machine."""
    relative = os.path.relpath(source.absolute(), project.absolute())
    if relative.startswith(".."):
        raise StoreError(f"{source}: lies outside the project ({project})", "start in the project, or give --project.")
    return Path(relative).as_posix()


def _find(sha: str, sources: Sequence[Path]) -> bytes | None:
    """The content with this hash among the files given, and the artifacts of every run in the folders given."""
    for source in sources:
        paths = [source] if source.is_file() else sorted(source.glob("**/artifacts/*")) if source.is_dir() else []
        for path in [*paths, *_own_cache(source, sha)]:
            if path.is_file() and digest(data := path.read_bytes()) == sha:
                return data
    return None


def _own_cache(source: Path, sha: str) -> list[Path]:
    return [source / ".cache" / "objects" / sha[:2] / sha, source / "objects" / sha[:2] / sha]


def _restore_rows(baselines: Baselines, entry: Entry) -> None:
    """The rows are synthetic: they are made again from the artifact's signature."""
    if baselines.store.blob(entry.inputs_sha256) is None:
        host = LocalHost()
        subject = Subject(
            baselines.store.path(entry.sha256), entry.runtime, entry.precision, entry.threads, entry.batch
        )
        baselines.put(pack(rows_for(host, subject)))

"""Where a baseline comes from and its successor is found: an output folder of `run`, or a model file."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from compress.errors import StoreError
from compress.store.cache import digest
from compress.target import Target, profiles
from compress.workflow.files import ENGINE, ModelFile, open_files

_AGAIN = "run `edge-compress run` for its recipe again."


@dataclass(frozen=True)
class Shipped:
    """A file that ships on a target."""

    model: str
    target: Target
    file: ModelFile


def find_shipped(source: Path, target: Target | None = None) -> tuple[Shipped, ...]:
    """Returns what ships from a source: per target for an output folder, the file itself for a model file.

    Args:
        source: An output folder, or an `.onnx` or `.tflite` file.
        target: Of a model file; None for the generic profile of its runtime.

    Raises:
        StoreError: If the folder holds no finished run, or a file is not the one that its manifest names.
        ModelError: If a file cannot be read.
    """
    if source.is_dir():
        return tuple(_from_run(source))
    (file,) = open_files([source])
    found = target or generic_target(file.runtime)
    if not file.runs_in(found.runtime):
        raise StoreError(
            f"{source}: is for {file.runtime}, the target {found.name!r} is {found.runtime}", "name another target."
        )
    return (Shipped(source.stem, found, replace(file, runtime=found.runtime)),)


def generic_target(runtime: str) -> Target:
    """Returns the generic profile of a runtime.

    Raises:
        StoreError: If none ships for it.
    """
    from compress.target import load_target

    found = [load_target(name, Path()) for name in profiles()]
    # Of several the plainest: on the CPU, as the runtime is when nobody sets anything.
    for target in sorted(found, key=lambda item: len(item.job_settings)):
        if target.runtime == runtime:
            return target
    raise StoreError(f"there is no generic target for {runtime}", "name one with --target.")


def _from_run(out: Path) -> list[Shipped]:
    run = out / "current"
    try:
        manifest: dict[str, Any] = json.loads((run / "manifest.json").read_bytes())
        hashes = {entry["path"]: entry["sha256"] for entry in manifest["files"]}
        targets = {entry["name"]: Target.model_validate(entry) for entry in manifest["targets"]}
        ships = {name: file for name, file in manifest["ships"].items() if file}
        found = []
        for name, file in ships.items():
            path = run / file
            if digest(path.read_bytes()) != hashes[file]:
                raise StoreError(f"{path}: is not the file that its manifest names", _AGAIN)
            found.append(Shipped(manifest["name"], targets[name], _opened(path, targets[name], hashes[file])))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{out}: holds no finished run: {type(error).__name__}: {error}", _AGAIN) from error
    return found


def _opened(path: Path, target: Target, sha256: str) -> ModelFile:
    """A file of a run. An engine tells nothing of itself, but its run has just been compared with its manifest."""
    if path.name.endswith(ENGINE):
        return ModelFile(path.name, path, "engine", target.runtime, sha256, path.stat().st_size, "float")
    return replace(open_files([path])[0], runtime=target.runtime)

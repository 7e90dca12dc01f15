"""The job, what a worker is asked, and the result, what it answers: two JSON files with a schema number."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from .errors import JobError

SCHEMA = 1
# Which files each action needs.
NEEDED = {
    "outputs": ("artifact", "inputs", "outputs"),
    "latency": ("artifact", "inputs"),
    "duel": ("artifact", "rival", "inputs"),
    "sparse": ("artifact", "inputs"),
    "profile": ("artifact", "inputs"),
    "describe": ("artifact",),
    "build": ("artifact", "outputs"),
    "empty": (),
}
PRECISIONS = ("float", "int8")


@dataclass(frozen=True)
class Job:
    """One request to a worker.

    1. `action` is `outputs` (run every row), `latency` (time calls), `duel` (time an artifact and its rival in
       turns), `sparse` (time `calls` calls, one every `pause_s` seconds, with cold caches), `profile` (time every
       operator over `calls` calls), `describe` (signature and placement), `build` (an engine for this machine and
       calls of at most `batch` rows, out of an artifact that is none yet; `inputs` may be the timings of an earlier
       build, `outputs` gets the engine) or `empty` (import the runtime, open nothing: what memory costs before any
       artifact).
    2. `artifact`, `rival`, `inputs` and `rival_inputs` are files that must exist where the worker runs, `outputs` and
       `result` files that it writes. `inputs`, `rival_inputs` and `outputs` are `.npz` files, one array `[rows, ...]`
       per named input or output.
    3. `batch` rows go into one call. `warmup_s` passes before timing starts, which lasts at least `seconds`;
       calls are repeated within a sample until it is `sample_s` long.
    4. `precision` is what the artifact was lowered to; it decides which operators count as accelerated.
    5. `cpus` are the processors to stay on, where the machine allows it; empty means all.
    6. `rival_threads` are the rival's threads, 0 the same as the artifact's; `rival_inputs` are its rows, where it
       takes others. With `flip` the rival is opened and timed first.
    7. `provider` is what of the machine computes, in the words of a target's key `provider`; `compile` asks torch to
       compile. `screened` are the sha256 of files that the sender checked because opening them may run their content.
    8. A worker that still runs after `limit_s` is ended by an alarm of its own, so that none outlives its parent
       for long; 0 means no limit.
    """

    action: str
    runtime: str
    result: str
    artifact: str = ""
    rival: str = ""
    inputs: str = ""
    outputs: str = ""
    threads: int = 1
    rival_threads: int = 0
    rival_inputs: str = ""
    flip: bool = False
    batch: int = 1
    precision: str = "float"
    warmup_s: float = 0.05
    sample_s: float = 0.002
    seconds: float = 0.2
    calls: int = 5
    pause_s: float = 1.0
    cpus: tuple[int, ...] = ()
    limit_s: float = 0.0
    provider: str = "cpu"
    compile: bool = False
    screened: tuple[str, ...] = ()

    @property
    def settings(self) -> dict[str, Any]:
        """What a Session is opened with beside its threads; only what differs from the default."""
        given = {"provider": self.provider, "compile": self.compile, "screened": self.screened}
        return {key: value for key, value in given.items() if value not in ("cpu", False, ())}

    def __post_init__(self) -> None:
        _one_of("action", self.action, tuple(NEEDED))
        _one_of("precision", self.precision, PRECISIONS)
        for key in ("threads", "batch", "calls"):
            if getattr(self, key) < 1:
                raise JobError(f"job: {key} must be at least 1; got {getattr(self, key)}")
        for key in ("warmup_s", "sample_s", "seconds", "pause_s", "limit_s"):
            if not 0 <= getattr(self, key) < float("inf"):
                raise JobError(f"job: {key} must be a number of seconds; got {getattr(self, key)}")
        if self.rival_threads < 0:
            raise JobError(f"job: rival_threads must be at least 0; got {self.rival_threads}")
        for key in NEEDED[self.action]:
            if not getattr(self, key):
                raise JobError(f"job: the action {self.action!r} needs the key {key!r}")


def parse_job(values: Mapping[str, Any]) -> Job:
    """Checks what a job file says.

    Args:
        values: The file's JSON object, `schema` included.

    Raises:
        JobError: If the schema is another one, or a key is unknown, missing or of the wrong type.
    """
    if values.get("schema") != SCHEMA:
        raise JobError(
            f"job: schema {values.get('schema')!r}; this worker reads {SCHEMA}",
            "copy the worker folder of the same version to the device.",
        )
    known = {item.name: item for item in fields(Job)}
    given = {key: value for key, value in values.items() if key != "schema"}
    for key, value in given.items():
        if key not in known:
            raise JobError(f"job: unknown key {key!r}", f"known: {', '.join(sorted(known))}.")
        if not _fits(value, str(known[key].type)):
            raise JobError(f"job: {key} must be {known[key].type}; got {value!r}")
    for key in ("action", "runtime", "result"):
        if key not in given:
            raise JobError(f"job: the key {key!r} is missing")
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    return Job(**given)


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        JobError: If the file cannot be read or holds something else.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise JobError(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(values, dict):
        raise JobError(f"{path}: must hold a JSON object")
    return values


def write_result(path: Path, values: Mapping[str, Any]) -> None:
    """Writes a result with its schema number, in one step: a reader finds all of it or nothing."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps({"schema": SCHEMA, **values}, allow_nan=False), encoding="utf-8")
    os.replace(partial, path)


def _one_of(key: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise JobError(f"job: {key} must be one of {', '.join(known)}; got {value!r}")


def _fits(value: Any, annotation: str) -> bool:
    if annotation == "str":
        return isinstance(value, str)
    if annotation == "bool":
        return isinstance(value, bool)
    if annotation == "int":
        return isinstance(value, int) and not isinstance(value, bool)
    if annotation == "float":
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    kind = str if "str" in annotation else int
    return isinstance(value, (list, tuple)) and all(isinstance(item, kind) for item in value)

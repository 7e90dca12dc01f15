"""How a worker's end is told: the same words wherever it ran."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compress.errors import WorkerError
from compress.worker.launch import Ended

DOING = {
    "outputs": "computing outputs of",
    "latency": "measuring the latency of",
    "duel": "measuring in turns with its rival",
    "sparse": "measuring rare calls of",
    "profile": "profiling",
    "describe": "describing",
    "build": "building the engine of",
    "empty": "importing its runtime, without",
}


def answer_of(ended: Ended, job: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
    """Returns what a worker answered.

    Raises:
        WorkerError: If it crashed, its time was up, or it left no usable result.
    """
    if ended.code is None:
        raise WorkerError(
            f"the worker was ended after {timeout_s:g} s while {_what(job)}",
            "raise measure.timeout_s, or use fewer rows.",
        )
    if ended.result is None:
        raise _no_result(job, ended.code, ended.tail)
    try:
        values = json.loads(ended.result.decode("utf-8"))
    except ValueError as error:
        raise WorkerError(f"the worker left an unreadable result while {_what(job)}: {error}") from error
    if not isinstance(values, dict):
        raise WorkerError(f"the worker left a result that is no JSON object while {_what(job)}")
    return values


def _what(job: Mapping[str, Any]) -> str:
    doing = DOING.get(str(job.get("action")), "working on")
    artifact = Path(str(job.get("artifact", ""))).name or "an artifact"
    return f"{doing} {artifact} in {job.get('runtime')}"


def _no_result(job: Mapping[str, Any], code: int, tail: str) -> WorkerError:
    said = f"; its last words:\n{tail}" if tail else ""
    if code >= 0:
        return WorkerError(f"the worker ended with code {code} and no result while {_what(job)}{said}")
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = "the machine may be out of memory: free some, or use a smaller batch." if name == "SIGKILL" else ""
    return WorkerError(f"the worker was killed by {name} while {_what(job)}{said}", hint)

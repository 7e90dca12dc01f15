"""Figures of one artifact in workers of their own: memory, load, first answer, operators."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from compress.bench.verdicts import Figures
from compress.hosts.base import Host
from compress.hosts.calls import ask, describe
from compress.workflow.files import synthetic_inputs

TIMEOUT_S = 120.0
ROWS_SEED = 0
PROCESSES = 3
SECONDS = 0.1


@dataclass(frozen=True)
class Subject:
    """An artifact as it is measured here."""

    path: Path
    runtime: str
    precision: Literal["float", "int8"]
    threads: int
    batch: int = 1


def rows_for(host: Host, subject: Subject) -> dict[str, NDArray[np.generic]]:
    """Makes the synthetic rows of one call; they hold nobody's data.

    Raises:
        WorkerError: If the runtime cannot open the artifact.
    """
    found = describe(
        host,
        subject.runtime,
        subject.path,
        precision=subject.precision,
        threads=subject.threads,
        timeout_s=TIMEOUT_S,
    )
    return synthetic_inputs(found.inputs, subject.batch, ROWS_SEED)


def measure_figures(host: Host, subject: Subject, inputs: Path, timeout_s: float = TIMEOUT_S) -> Figures:
    """Measures an artifact by itself.

    Raises:
        WorkerError: If a worker fails.
    """
    job = {"runtime": subject.runtime, "threads": subject.threads}
    empty = min(ask(host, {**job, "action": "empty"}, timeout_s)["peak_rss_bytes"] for _ in range(2))
    work = {
        **job,
        "action": "latency",
        "artifact": str(subject.path.resolve()),
        "inputs": str(inputs),
        "batch": subject.batch,
        "seconds": SECONDS,
        "warmup_s": SECONDS / 4,
    }
    answers = [ask(host, work, timeout_s) for _ in range(PROCESSES)]
    placement = describe(
        host,
        subject.runtime,
        subject.path,
        precision=subject.precision,
        threads=subject.threads,
        timeout_s=timeout_s,
    ).placement
    return Figures(
        size_bytes=subject.path.stat().st_size,
        memory_bytes=max(0, min(answer["peak_rss_bytes"] for answer in answers) - empty),
        load_ms=median(answer["load_ms"] for answer in answers),
        first_ms=median(answer["first_ms"] for answer in answers),
        median_ms=median(median(answer["samples_ms"]) for answer in answers),
        operators=placement.operators,
    )

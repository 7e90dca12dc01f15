"""The rules of a check beside latency: bytes, memory, operators, accelerated share, and two runtimes' answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from compress.bench.verdicts import Figures, Rule
from compress.hosts.base import Host
from compress.hosts.calls import ask, run_outputs
from compress.report.numbers import format_bytes
from compress.target import CheckTolerances
from compress.worker.arrays import read_arrays
from compress.workflow.figures import Subject

# Resident memory differs by this much from run to run.
MEMORY_SLACK_BYTES = 1 << 20
# Largest difference of two runtimes' answers to one file, as a share of the answers' range.
ANSWERS_TOLERANCE = 1e-4


def rules(baseline: Figures, candidate: Figures, tolerances: CheckTolerances) -> tuple[Rule, ...]:
    """Returns the rules on figures that do not depend on the moment; memory, which does a little, has slack."""
    operators = (sum(baseline.counts.values()), sum(candidate.counts.values()))
    shares = (baseline.accelerated_share, candidate.accelerated_share)
    memory_bound = baseline.memory_bytes + max(tolerances.memory * baseline.memory_bytes, MEMORY_SLACK_BYTES)
    return (
        Rule(
            "bytes",
            baseline.size_bytes,
            candidate.size_bytes,
            tolerances.size,
            candidate.size_bytes > baseline.size_bytes * (1 + tolerances.size),
            f"{format_bytes(baseline.size_bytes)} -> {format_bytes(candidate.size_bytes)}",
        ),
        Rule(
            "memory",
            baseline.memory_bytes,
            candidate.memory_bytes,
            tolerances.memory,
            candidate.memory_bytes > memory_bound,
            f"{format_bytes(baseline.memory_bytes)} -> {format_bytes(candidate.memory_bytes)} above the empty worker",
        ),
        Rule(
            "operators",
            *operators,
            tolerances.operators,
            operators[1] > operators[0] + tolerances.operators,
            f"{operators[0]} -> {operators[1]}",
        ),
        Rule(
            "accelerated",
            *shares,
            tolerances.accelerated,
            shares[1] < shares[0] - tolerances.accelerated - 1e-9,
            f"{shares[0]:.0%} -> {shares[1]:.0%} of the operators",
        ),
    )


def answers(hosts: tuple[Host, Host], subject: Subject, rows: Path, timeout_s: float) -> Rule:
    """Compares what two runtimes answer to the same rows with the same file.

    Raises:
        WorkerError: If one of them fails.
    """
    given = read_arrays(rows)
    one, two = (
        run_outputs(
            host,
            subject.runtime,
            subject.path,
            given,
            threads=subject.threads,
            batch=subject.batch,
            timeout_s=timeout_s,
        )
        for host in hosts
    )
    worst = 0.0
    for name in {*one, *two}:
        worst = max(worst, _difference(one.get(name), two.get(name)))
    return Rule(
        "answers",
        0.0,
        worst,
        ANSWERS_TOLERANCE,
        not worst <= ANSWERS_TOLERANCE,
        "equal" if worst == 0 else f"differ by {worst:.2g} of their range",
    )


def runtime_version(host: Host, runtime: str, timeout_s: float) -> str:
    """Returns the version of a runtime where a host's workers run.

    Raises:
        WorkerError: If the runtime cannot start there.
    """
    return str(ask(host, {"action": "empty", "runtime": runtime}, timeout_s).get("version", "")) or "of unknown version"


def _difference(one: np.ndarray | None, two: np.ndarray | None) -> float:
    """Largest absolute difference over the range of the first; 1 where shapes differ or one is missing."""
    if one is None or two is None or one.shape != two.shape:
        return 1.0
    before, after = one.astype(np.float64), two.astype(np.float64)
    if np.array_equal(before, after, equal_nan=True):
        return 0.0
    largest = float(np.abs(before - after).max())
    scale = float(np.abs(before).max())
    return min(1.0, largest / scale) if np.isfinite(largest) and scale else 1.0

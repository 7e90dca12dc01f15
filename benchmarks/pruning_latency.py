"""Ratios of latencies of several models on both runtimes: two files in turns in one process, several processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from compress.bench.duels import Fighter, Ring, in_turns
from compress.bench.sequential import judge_row
from compress.errors import CompressError
from compress.hosts.local import LocalHost
from compress.model.core import Model
from compress.runtimes.base import RUNTIMES
from compress.worker.arrays import write_arrays

NAMES = ("onnxruntime", "litert")
# Eight pairs that agree are enough for an interval at this level.
ALPHA, TOLERANCE = 0.05, 0.02


@dataclass(frozen=True)
class Timed:
    """Processes a ratio, seconds in each, threads."""

    pairs: int
    seconds: float
    threads: int


def ratios(
    models: Mapping[str, Model], pairs: Sequence[tuple[str, str]], folder: Path, timed: Timed
) -> dict[str, dict[str, Any]]:
    """Returns runtime -> `candidate / baseline` -> ratio, interval and milliseconds; a runtime that fails says why."""
    found: dict[str, dict[str, Any]] = {}
    rows = folder / "rows.npz"
    first = next(iter(models.values()))
    examples = zip(first.signature.inputs, first.example(rows=1), strict=True)
    write_arrays(rows, {item.name: tensor.numpy() for item, tensor in examples})
    for runtime in NAMES:
        try:
            files = {name: lowered(model, runtime, folder / name) for name, model in models.items()}
            found[runtime] = {
                f"{candidate} / {baseline}": ratio(files[baseline], files[candidate], runtime, rows, timed)
                for baseline, candidate in pairs
            }
        except CompressError as error:
            found[runtime] = {"error": str(error)}
    return found


def lowered(model: Model, runtime: str, stem: Path) -> Path:
    """Writes the float32 file of a model for a runtime."""
    made = RUNTIMES.load(runtime)().lower(model)
    path = stem.with_suffix(made.suffix)
    path.write_bytes(made.data)
    return path


def ratio(baseline: Path, candidate: Path, runtime: str, rows: Path, timed: Timed) -> dict[str, Any]:
    """Times two files against each other; who goes first is a fair coin."""
    take = in_turns(
        LocalHost(),
        Fighter(baseline, timed.threads),
        Fighter(candidate, timed.threads),
        Ring(runtime, rows, 1, 300, timed.seconds),
    )
    coin = np.random.default_rng(0)
    samples = [take(bool(coin.integers(2))) for _ in range(timed.pairs)]
    judged = judge_row([sample.log_ratio for sample in samples], TOLERANCE, ALPHA)
    return {
        "ratio": judged.ratio,
        "interval": None if judged.interval is None else [judged.interval.low, judged.interval.high],
        "baseline_ms": median(sample.baseline_ms for sample in samples),
        "candidate_ms": median(sample.candidate_ms for sample in samples),
        "log_ratios": [round(sample.log_ratio, 4) for sample in samples],
    }

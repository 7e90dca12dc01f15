"""The conductor: fresh worker processes in interleaved rounds, until the pairs tell or the budget is spent."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np

from compress.bench.statistics import MIN_PAIRS, compare, percentile
from compress.errors import CompressError, DataError, WorkerError
from compress.evidence import Comparison, Latency, Memory
from compress.hosts.base import Host
from compress.hosts.calls import ask
from compress.worker.arrays import Array, read_arrays, write_arrays
from compress.worker.errors import JobError

# The warm-up of a worker as a share of its timed seconds.
WARMUP_SHARE = 0.25
SAMPLE_S = 0.002
EMPTY_WORKERS = 2


@dataclass(frozen=True)
class BenchItem:
    """An artifact to measure, under a name of the caller's."""

    name: str
    runtime: str
    path: Path
    precision: Literal["float", "int8"] = "float"


@dataclass(frozen=True)
class BenchResult:
    """What was measured of one item; `error` says why figures are missing."""

    latency: Latency | None = None
    memory: Memory | None = None
    error: str = ""


@dataclass(frozen=True)
class _Plan:
    """How much is measured; see `measure`."""

    threads: int
    batch: int
    seconds: float
    pairs: int
    max_pairs: int
    tolerance: float
    seed: int
    timeout_s: float


@dataclass
class _Run:
    """One item's answers so far, by round."""

    item: BenchItem
    answers: dict[int, dict[str, Any]] = field(default_factory=dict)
    error: str = ""

    def median_ms(self, number: int) -> float:
        return float(median(self.answers[number]["samples_ms"]))


def measure(
    host: Host,
    artifacts: Sequence[BenchItem],
    inputs_npz: Path,
    *,
    threads: int,
    batch: int,
    seconds: float,
    pairs: int,
    max_pairs: int,
    tolerance: float,
    seed: int,
    timeout_s: float,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, BenchResult]:
    """Measures artifacts beside the first of them, the baseline.

    1. A round runs each artifact once, in a fresh process, in random order. Ratios are taken within a round.
    2. After `pairs` rounds only artifacts whose comparison is UNKNOWN go on, with the baseline, up to `max_pairs`.
    3. An artifact whose worker fails gets that error and is measured no more; the others go on. Without a baseline
       they keep their absolute figures, and no comparison.
    4. Peak memory is the largest of an artifact's processes, that of an empty worker the smallest of
       `EMPTY_WORKERS` of the runtime, so that what an artifact costs is never understated.
    5. Percentiles are those of single calls, and are given only where these could be timed.

    Args:
        host: Where the workers run.
        artifacts: What to measure; names must differ.
        inputs_npz: Arrays `[rows, ...]` by input name, at least `batch` rows; the first `batch` are used.
        threads: Threads of the runtime.
        batch: Rows per call.
        seconds: Timed seconds per process.
        pairs: Rounds that every artifact gets, at least 5.
        max_pairs: Rounds at most.
        tolerance: The slowdown that does not matter, as a share.
        seed: Of the order in the rounds and of the bootstrap.
        timeout_s: After which a worker is ended.
        progress: Called after every worker with the number done and the number planned so far.

    Returns:
        A result per name, in the order given.

    Raises:
        DataError: If the inputs cannot be read or have fewer than `batch` rows.
        CompressError: If there are no artifacts, two share a name, or the numbers of pairs make no sense.
    """
    _check(artifacts, pairs, max_pairs)
    plan = _Plan(threads, batch, seconds, pairs, max_pairs, tolerance, seed, timeout_s)
    runs = [_Run(item) for item in artifacts]
    with tempfile.TemporaryDirectory(prefix="edge-compress-") as folder:
        inputs = Path(folder) / "inputs.npz"
        write_arrays(inputs, _first_rows(inputs_npz, batch))
        empty_bytes = _empty_memory(host, runs, plan)
        for done, (number, run, left) in enumerate(_schedule(runs, plan), start=1):
            _measure_once(host, run, number, inputs, plan)
            if progress is not None:
                progress(done, done + left())
    return {run.item.name: _result(run, runs[0], empty_bytes.get(run.item.runtime, 0), plan) for run in runs}


def _check(artifacts: Sequence[BenchItem], pairs: int, max_pairs: int) -> None:
    names = [item.name for item in artifacts]
    if not names or len(set(names)) != len(names):
        raise CompressError(f"the artifacts to measure need different names; got {names}")
    if not MIN_PAIRS <= pairs <= max_pairs:
        raise CompressError(
            f"measure.pairs must be at least {MIN_PAIRS} and at most measure.max_pairs; got {pairs} and {max_pairs}",
            f"with fewer than {MIN_PAIRS} pairs no difference can be told from luck.",
        )


def _first_rows(inputs_npz: Path, batch: int) -> dict[str, Array]:
    """What the timed calls need: a worker that read all rows would count them as the artifact's memory."""
    try:
        arrays = read_arrays(inputs_npz)
    except JobError as error:
        raise DataError(error.message, error.hint) from error
    for name, array in arrays.items():
        if array.ndim == 0 or len(array) < batch:
            rows = len(array) if array.ndim else 0
            raise DataError(
                f"{inputs_npz}: the input {name!r} holds {rows} rows; measure.batch is {batch}",
                "give at least that many rows, or lower measure.batch.",
            )
    return {name: array[:batch] for name, array in arrays.items()}


def _empty_memory(host: Host, runs: Sequence[_Run], plan: _Plan) -> dict[str, int]:
    """Peak bytes of each runtime's empty worker. A runtime that cannot even start fails its artifacts."""
    peaks: dict[str, int] = {}
    for runtime in dict.fromkeys(run.item.runtime for run in runs):
        job = {"action": "empty", "runtime": runtime, "threads": plan.threads}
        try:
            peaks[runtime] = min(ask(host, job, plan.timeout_s)["peak_rss_bytes"] for _ in range(EMPTY_WORKERS))
        except WorkerError as error:
            for run in runs:
                if run.item.runtime == runtime:
                    run.error = str(error)
    return peaks


def _schedule(runs: Sequence[_Run], plan: _Plan) -> Iterator[tuple[int, _Run, Callable[[], int]]]:
    """Yields which artifact to measure next, in which round, and a count of what is left after it."""
    random = np.random.default_rng(plan.seed)
    for number in range(plan.max_pairs):
        needed = _needed(runs, number, plan)
        for place, index in enumerate(random.permutation(len(needed))):
            run = needed[index]
            if run.error:
                continue

            def left(later: int = len(needed) - place - 1, rounds: int = plan.pairs - number - 1) -> int:
                return later + max(0, rounds) * sum(not run.error for run in runs)

            yield number, run, left


def _needed(runs: Sequence[_Run], number: int, plan: _Plan) -> list[_Run]:
    alive = [run for run in runs if not run.error]
    if number < plan.pairs:
        return alive
    undecided = [run for run in alive if (found := _comparison(run, runs[0], plan)) and found.verdict == "UNKNOWN"]
    return [runs[0], *undecided] if undecided else []


def _measure_once(host: Host, run: _Run, number: int, inputs: Path, plan: _Plan) -> None:
    job: Mapping[str, Any] = {
        "action": "latency",
        "runtime": run.item.runtime,
        "artifact": str(run.item.path.resolve()),
        "precision": run.item.precision,
        "inputs": str(inputs),
        "threads": plan.threads,
        "batch": plan.batch,
        "seconds": plan.seconds,
        "warmup_s": plan.seconds * WARMUP_SHARE,
        "sample_s": SAMPLE_S,
    }
    try:
        run.answers[number] = ask(host, job, plan.timeout_s)
    except WorkerError as error:
        run.error = str(error)


def _comparison(run: _Run, baseline: _Run, plan: _Plan) -> Comparison | None:
    shared = sorted(run.answers.keys() & baseline.answers.keys())
    if run is baseline or run.error or baseline.error or not shared:
        return None
    return compare(
        baseline.item.name,
        [baseline.median_ms(number) for number in shared],
        [run.median_ms(number) for number in shared],
        tolerance=plan.tolerance,
        seed=plan.seed,
    )


def _result(run: _Run, baseline: _Run, empty_bytes: int, plan: _Plan) -> BenchResult:
    if run.error:
        return BenchResult(error=run.error)
    answers = [run.answers[number] for number in sorted(run.answers)]
    samples = tuple(tuple(answer["samples_ms"]) for answer in answers)
    single = _single_calls(answers)
    latency = Latency(
        batch=plan.batch,
        threads=plan.threads,
        processes=len(answers),
        median_ms=median(median(times) for times in samples),
        p90_ms=percentile(single, 0.9),
        p99_ms=percentile(single, 0.99),
        load_ms=median(answer["load_ms"] for answer in answers),
        first_ms=median(answer["first_ms"] for answer in answers),
        comparison=_comparison(run, baseline, plan),
        samples=samples,
        cpus=_stayed_on(answers),
    )
    return BenchResult(latency, Memory(max(answer["peak_rss_bytes"] for answer in answers), empty_bytes))


def _stayed_on(answers: Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
    """The processors of all processes, where each stayed on its own."""
    found = [answer.get("cpus") or () for answer in answers]
    return tuple(sorted({cpu for each in found for cpu in each})) if all(found) else ()


def _single_calls(answers: Sequence[Mapping[str, Any]]) -> list[float]:
    """Times of single calls, where all processes timed them; a mean over a block hides the tail."""
    times = [
        answer["samples_ms"] if answer["calls_per_sample"] == 1 else answer.get("singles_ms", ()) for answer in answers
    ]
    return [time for each in times for time in each] if all(times) else []

"""What a worker does for a job: one function an action, each returning what goes into the result file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from time import perf_counter_ns
from typing import Any

from .arrays import Array, read_arrays, write_arrays
from .duel import time_duel
from .errors import JobError
from .feed import check_inputs, join
from .job import Job
from .memory import peak_rss_bytes
from .session import Session, open_session, runtime_version, session_class
from .sparse import time_sparse
from .timing import time_calls


def perform(job: Job) -> dict[str, Any]:
    """Does what the job asks.

    Raises:
        JobError: If it cannot be done.
    """
    return ACTIONS[job.action](job)


def outputs(job: Job) -> dict[str, Any]:
    """Runs all rows, `batch` at a time, and writes every output to the file `outputs`."""
    given = read_arrays(Path(job.inputs))
    with _open(job, job.artifact, job.threads) as session:
        feed = check_inputs(session.inputs, given)
        rows = _rows(job, feed)
        parts = []
        for start in range(0, rows, job.batch):
            part = {name: array[start : start + job.batch] for name, array in feed.items()}
            parts.append((min(job.batch, rows - start), session.run(part)))
    made = join(parts, rows)
    write_arrays(Path(job.outputs), made)
    return {"rows": rows, "outputs": sorted(made)}


def latency(job: Job) -> dict[str, Any]:
    """Times opening, the first answer and many calls with the first `batch` rows, and reads the peak memory.

    The runtime is imported before the clock starts: an application pays for loading its model, not for Python.
    Loading includes setting the batch, for which some runtimes plan their memory anew.
    """
    given = read_arrays(Path(job.inputs))
    session_class(job.runtime)
    start = perf_counter_ns()
    with _open(job, job.artifact, job.threads) as session:
        call = _prepare(session, given, job)
        load_ns = perf_counter_ns() - start
        start = perf_counter_ns()
        call()
        first_ns = perf_counter_ns() - start
        times = time_calls(call, warmup_s=job.warmup_s, sample_s=job.sample_s, seconds=job.seconds)
        peak = peak_rss_bytes()
    return {"load_ms": load_ns / 1e6, "first_ms": first_ns / 1e6, **asdict(times), "peak_rss_bytes": peak}


def duel(job: Job) -> dict[str, Any]:
    """Opens an artifact and its rival in one process and times them in turns, after an untimed call of each.

    Both share the process, the processor, its clock and its neighbours, so that these cancel in the ratio. What it
    does not show is what only a process of its own shows: memory and load time.
    """
    jobs = (job, replace(job, inputs=job.rival_inputs or job.inputs))
    rows = {path: read_arrays(Path(path)) for path in {each.inputs for each in jobs}}
    plans = [(job.artifact, job.threads), (job.rival, job.rival_threads or job.threads)]
    order = (1, 0) if job.flip else (0, 1)
    # What a runtime sets up once, when it opens its first file, belongs to neither side.
    with _open(job, *plans[order[0]]):
        pass
    with ExitStack() as stack:
        calls: dict[int, Callable[[], None]] = {}
        load_ns = [0, 0]
        for side in order:
            path, threads = plans[side]
            start = perf_counter_ns()
            session = stack.enter_context(_open(job, path, threads))
            calls[side] = _prepare(session, rows[jobs[side].inputs], jobs[side])
            load_ns[side] = perf_counter_ns() - start
        first, second = (calls[1], calls[0]) if job.flip else (calls[0], calls[1])
        quads = asdict(time_duel(first, second, job.seconds))
    names = ("rival", "artifact") if job.flip else ("artifact", "rival")
    ordinals = zip(("first", "second"), names, strict=True)
    keys = ("wall_ms", "cpu_ms", "waits", "calls")
    times = {f"{name}_{key}": quads[f"{ordinal}_{key}"] for ordinal, name in ordinals for key in keys}
    return {"artifact_load_ms": load_ns[0] / 1e6, "rival_load_ms": load_ns[1] / 1e6, **times}


def sparse(job: Job) -> dict[str, Any]:
    """Times calls that come one at a time, `pause_s` apart, with cold caches."""
    given = read_arrays(Path(job.inputs))
    with _open(job, job.artifact, job.threads) as session:
        call = _prepare(session, given, job)
        call()
        return {"calls_ms": time_sparse(call, calls=job.calls, pause_s=job.pause_s)}


def profile(job: Job) -> dict[str, Any]:
    """Times every operator with the runtime's own profiler."""
    given = read_arrays(Path(job.inputs))
    with _open(job, job.artifact, job.threads) as session:
        feed = check_inputs(session.inputs, given)
        found = session.profile({name: array[: job.batch] for name, array in feed.items()}, job.calls)
    return {"operators": [asdict(item) for item in found], "calls": job.calls}


def empty(job: Job) -> dict[str, Any]:
    """Imports the runtime, opens nothing, reads the peak memory and then the runtime's version.

    What the provider needs is started, too: it is there before any artifact. `processor` names what computes beside the
    CPU.
    """
    processor = session_class(job.runtime).processor(job.provider)
    peak = peak_rss_bytes()
    return {"peak_rss_bytes": peak, "version": runtime_version(job.runtime), "processor": processor}


def describe(job: Job) -> dict[str, Any]:
    """Returns the artifact's signature and which operators run where; `inputs`, if given, holds a row to run with."""
    given = read_arrays(Path(job.inputs)) if job.inputs else None
    with _open(job, job.artifact, job.threads) as session:
        row = None if given is None else {name: array[:1] for name, array in given.items()}
        return {
            "inputs": {name: asdict(spec) for name, spec in session.inputs.items()},
            "outputs": {name: asdict(spec) for name, spec in session.outputs.items()},
            "placement": asdict(session.placement(job.precision, row)),
        }


def build(job: Job) -> dict[str, Any]:
    """Builds the engine of an artifact on this machine and writes it to `outputs`; the answer is its manifest."""
    found = session_class(job.runtime)
    if not hasattr(found, "build"):
        raise JobError(f"the runtime {job.runtime!r} builds no engines: its artifacts run as they are")
    manifest = found.build(Path(job.artifact), job.batch, Path(job.inputs) if job.inputs else None, Path(job.outputs))
    return {"manifest": manifest}


ACTIONS: dict[str, Callable[[Job], dict[str, Any]]] = {
    "outputs": outputs,
    "latency": latency,
    "duel": duel,
    "sparse": sparse,
    "profile": profile,
    "build": build,
    "empty": empty,
    "describe": describe,
}


def _open(job: Job, path: str, threads: int) -> Session:
    return open_session(job.runtime, Path(path), threads, job.settings)


def _prepare(session: Session, given: Mapping[str, Array], job: Job) -> Callable[[], None]:
    """The call for a timed loop over the first `batch` rows."""
    feed = check_inputs(session.inputs, given)
    rows = _rows(job, feed)
    if rows < job.batch:
        raise JobError(f"{job.inputs}: holds {rows} rows; the batch is {job.batch}", "give more rows.")
    return session.prepare({name: array[: job.batch] for name, array in feed.items()})


def _rows(job: Job, feed: Mapping[str, Array]) -> int:
    """How many rows the checked arrays hold."""
    counts = {name: array.shape[0] if array.ndim else None for name, array in feed.items()}
    rows: int | None = next(iter(counts.values()), None)
    if not rows or len(set(counts.values())) != 1:
        raise JobError(f"{job.inputs}: every input must have the same number of rows, at least 1; got {counts}")
    return rows

"""Measuring model files beside each other: the main job of `edge-compress bench`."""

from __future__ import annotations

import datetime
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.bench.conductor import BenchItem, BenchResult, measure
from compress.bench.duels import Fighter, Ring, in_turns
from compress.bench.findings import NO_INTERVAL, ArtifactFindings, BenchFindings, OperatorTime, Throughput
from compress.bench.race import Row, race
from compress.bench.sequential import ALPHA, judge_family
from compress.bench.statistics import MIN_PAIRS
from compress.errors import CompressError, DataError, ModelError, StoreError, WorkerError
from compress.evidence import Comparison, Interval, load_evidence
from compress.hosts import Host, timing_host
from compress.hosts.calls import ask, describe
from compress.recipe import load_recipe
from compress.target import Target, load_target
from compress.worker.arrays import write_arrays
from compress.workflow.files import ModelFile, open_files, synthetic_inputs
from compress.workflow.machines import environment_at
from compress.workflow.progress import Progress
from compress.workflow.save_baseline import packages
from compress.workflow.shipped import generic_target

Arrays = dict[str, NDArray[np.generic]]
SPARSE_PAUSE_S = 1.0
PROFILE_CALLS = 20


@dataclass(frozen=True)
class BenchOptions:
    """What is asked.

    Attributes:
        target: Name or file; None for the generic profile of the files' runtime.
        recipe: Whose test rows are fed; None for synthetic rows.
        batches: Rows a call; the first is the one that latency is given for.
        threads: Empty for the target's.
        pairs: Processes of each file for its figures.
        budget_s: Seconds for each ratio, which is measured in turns; see `compress.bench.duels`.
        seconds: Timed seconds a process.
        sparse_calls: Calls of the sparse duty cycle, one a second; 0 for none.
        profile: Whether every operator is timed.
        tolerance: The slowdown that does not matter.
        timeout_s: After which a worker counts as hung.
        seed: Of the order and the bootstrap.
    """

    target: str | None = None
    recipe: Path | None = None
    batches: tuple[int, ...] = (1,)
    threads: tuple[int, ...] = ()
    pairs: int = 9
    budget_s: float = 30.0
    seconds: float = 0.3
    sparse_calls: int = 5
    profile: bool = False
    tolerance: float = 0.02
    timeout_s: float = 120.0
    seed: int = 0


def bench(paths: Sequence[Path], options: BenchOptions, progress: Progress) -> BenchFindings:
    """Measures files of one runtime, interleaved, beside the first of them.

    Raises:
        CompressError: If a file cannot be opened, the files are of several runtimes, or the rows do not fit.
    """
    files = open_files(paths)
    target = _target(files, options)
    files = tuple(_for_target(file, target) for file in files)
    host = timing_host(target)
    threads = options.threads or (target.threads,)
    with tempfile.TemporaryDirectory(prefix="edge-compress-") as folder:
        progress.step("choosing the rows")
        rows = Path(folder) / "rows.npz"
        arrays, said = _rows(files, target, options, host)
        write_arrays(rows, arrays)
        machine = environment_at(host, target.runtime, packages(target.runtime))
        progress.step(f"measuring {len(files)} files, batch {options.batches[0]}, {threads[0]} threads")
        items = [BenchItem(file.name, file.runtime, file.path, file.precision) for file in files]
        main = _measure(host, items, rows, options, options.batches[0], threads[0], progress)
        ratios = _ratios(host, files, main, rows, options, threads[0], progress)
        faster = _throughputs(host, items, rows, options, threads, progress)
        rare = _sparse(host, files, rows, options, threads[0], progress)
        profiles = {file.name: _profile(host, file, rows, options, threads[0], progress) for file in files}
    if after := host.facts():
        only = (f"{host.times_only}: rare calls and profiles are not taken there",) if host.times_only else ()
        warnings = tuple(dict.fromkeys((*machine.warnings, *after.get("warnings", ()), *only)))
        machine = replace(machine, machine={**machine.machine, "after": after}, warnings=warnings)
    found = []
    for file in files:
        latency = main[file.name].latency
        if latency is not None:
            latency = replace(latency, comparison=ratios.get(file.name))
        first = (Throughput(options.batches[0], threads[0], latency.median_ms),) if latency else ()
        operators, note = profiles[file.name]
        found.append(
            ArtifactFindings(
                name=file.name,
                sha256=file.sha256,
                size_bytes=file.size_bytes,
                precision=file.precision,
                latency=latency,
                memory=main[file.name].memory,
                throughput=(*first, *faster[file.name]),
                sparse_ms=rare[file.name],
                operators=operators,
                profile_note=note,
                error=main[file.name].error,
            )
        )
    return BenchFindings(
        target=target.name,
        runtime=target.runtime,
        rows=said,
        artifacts=tuple(found),
        environment=machine,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def _target(files: Sequence[ModelFile], options: BenchOptions) -> Target:
    return load_target(options.target, Path()) if options.target else generic_target(files[0].runtime)


def _for_target(file: ModelFile, target: Target) -> ModelFile:
    if not file.runs_in(target.runtime):
        raise ModelError(
            f"{file.path}: is for {file.runtime}; the target {target.name!r} is {target.runtime}",
            "measure files of one runtime at a time: ratios between runtimes are those of two programs.",
        )
    return replace(file, runtime=target.runtime)


def _rows(files: Sequence[ModelFile], target: Target, options: BenchOptions, host: Host) -> tuple[Arrays, str]:
    count = max(options.batches)
    if options.recipe is not None:
        return _recipe_rows(options.recipe, count)
    found = describe(
        host,
        files[0].runtime,
        files[0].path,
        precision=files[0].precision,
        threads=target.threads,
        timeout_s=options.timeout_s,
    )
    made = synthetic_inputs(found.inputs, count, options.seed)
    return made, f"{count} synthetic rows (normal floats, ids 0 and 1); --recipe feeds real ones"


def _recipe_rows(path: Path, count: int) -> tuple[Arrays, str]:
    from compress.workflow.plan import Plan, load_rows

    recipe = load_recipe(path)
    dataset, _ = load_rows(Plan(recipe, path.parent, str(path), (), ()))
    test = dataset.split("test")
    if len(test) < count:
        raise DataError(f"{path}: the test split has {len(test)} rows; --batch asks for {count}", "lower --batch.")
    return dict(dataset.reader.read(test[:count])), f"the first {count} test rows of {path}"


def _measure(
    host: Host,
    items: Sequence[BenchItem],
    rows: Path,
    options: BenchOptions,
    batch: int,
    threads: int,
    progress: Progress,
    rounds: int | None = None,
) -> dict[str, BenchResult]:
    pairs = rounds or options.pairs
    return measure(
        host,
        items,
        rows,
        threads=threads,
        batch=batch,
        seconds=options.seconds,
        pairs=pairs,
        max_pairs=pairs,
        tolerance=options.tolerance,
        seed=options.seed,
        timeout_s=options.timeout_s,
        progress=progress.advance,
    )


def _ratios(
    host: Host,
    files: Sequence[ModelFile],
    measured: Mapping[str, BenchResult],
    rows: Path,
    options: BenchOptions,
    threads: int,
    progress: Progress,
) -> dict[str, Comparison]:
    """The ratio of every other file to the first, in turns within one process, until it is told or time is spent."""
    able = [file for file in files if measured[file.name].latency is not None]
    if len(able) < 2 or able[0] is not files[0]:
        return {}
    progress.step(f"ratios of {len(able) - 1} files to {files[0].name}, at most {options.budget_s:g} s each")
    ring = Ring(files[0].runtime, rows, options.batches[0], options.timeout_s)
    first = Fighter(files[0].path, threads)
    duels = [
        Row(file.name, options.tolerance, in_turns(host, first, Fighter(file.path, threads), ring)) for file in able[1:]
    ]
    budget_s = options.budget_s * len(duels)
    race(duels, alpha=ALPHA, budget_s=budget_s, seed=options.seed, told=progress.advance)
    judged = judge_family([duel.logs for duel in duels], [options.tolerance] * len(duels), ALPHA)
    return {
        duel.name: Comparison(
            files[0].name,
            found.ratio,
            # Too few processes for an interval: what is known of the ratio is nothing.
            found.interval or Interval(0.0, NO_INTERVAL, 1 - ALPHA, "none: too few processes"),
            found.verdict,
            options.tolerance,
            found.pairs,
        )
        for duel, found in zip(duels, judged, strict=True)
        if duel.samples
    }


def _throughputs(
    host: Host,
    items: Sequence[BenchItem],
    rows: Path,
    options: BenchOptions,
    threads: Sequence[int],
    progress: Progress,
) -> dict[str, tuple[Throughput, ...]]:
    """Every other batch and number of threads: fewer rounds, since no verdict rests on them."""
    found: dict[str, tuple[Throughput, ...]] = {item.name: () for item in items}
    for count in threads:
        for batch in options.batches:
            if (batch, count) == (options.batches[0], threads[0]):
                continue
            progress.step(f"throughput at batch {batch}, {count} threads")
            results = _measure(host, items, rows, options, batch, count, progress, MIN_PAIRS)
            for name, result in results.items():
                time_ms = result.latency.median_ms if result.latency else None
                found[name] = (*found[name], Throughput(batch, count, time_ms))
    return found


def _sparse(
    host: Host, files: Sequence[ModelFile], rows: Path, options: BenchOptions, threads: int, progress: Progress
) -> dict[str, float | None]:
    found: dict[str, float | None] = {file.name: None for file in files}
    if not options.sparse_calls:
        return found
    progress.step(f"sparse duty cycle: {options.sparse_calls} calls of each, one a second, caches cold")
    for done, file in enumerate(files, start=1):
        job = _job("sparse", file, rows, options, threads) | {"pause_s": SPARSE_PAUSE_S, "calls": options.sparse_calls}
        try:
            limit_s = options.timeout_s + options.sparse_calls * SPARSE_PAUSE_S
            found[file.name] = median(ask(host, job, limit_s)["calls_ms"])
        except WorkerError:
            # The error of this file is told by its latency, which a broken file has none of either.
            found[file.name] = None
        progress.advance(done, len(files))
    return found


def _profile(
    host: Host, file: ModelFile, rows: Path, options: BenchOptions, threads: int, progress: Progress
) -> tuple[tuple[OperatorTime, ...], str]:
    if not options.profile:
        return (), ""
    progress.step(f"profiling {file.name}")
    job = _job("profile", file, rows, options, threads) | {"calls": PROFILE_CALLS}
    try:
        answer = ask(host, job, options.timeout_s)
    except CompressError as error:
        return (), f"no profile: {error.message}"
    layers, note = _layers_of(file)
    times = [
        OperatorTime(item["name"], item["operator"], item["ms"], _layer(item["name"], layers))
        for item in answer["operators"]
    ]
    return tuple(times), note


def _layer(name: str, layers: Mapping[str, str]) -> str:
    """The layer of a node; what an optimiser fused is called by its first node, a slash and the fusion."""
    name = name.removeprefix("fused ")
    while name not in layers and "/" in name:
        name = name.rstrip("/").rpartition("/")[0]
    return layers.get(name, "")


def _layers_of(file: ModelFile) -> tuple[dict[str, str], str]:
    """Node -> layer of the Model, where the file lies in the output of a run; fused nodes keep the first's name."""
    evidence_file = file.path.resolve().parent.parent / "evidence.json"
    if not evidence_file.is_file():
        return {}, "no evidence.json beside the file: operators are not joined to layers"
    try:
        evidence = load_evidence(evidence_file)
    except (StoreError, json.JSONDecodeError) as error:
        return {}, f"not joined to layers: {error}"
    for target in evidence.targets:
        for candidate in target.candidates:
            if candidate.artifact is not None and candidate.artifact.sha256 == file.sha256:
                layers = candidate.artifact.layers
                # LiteRT's operators are called like their outputs, and these like the layers; see its lowering.
                by_output = {item.layer: item.layer for item in layers} if file.kind == "tflite" else {}
                return {node: item.layer for item in layers for node in item.nodes} | by_output, ""
    return {}, f"{evidence_file} does not know this file: operators are not joined to layers"


def _job(action: str, file: ModelFile, rows: Path, options: BenchOptions, threads: int) -> dict[str, Any]:
    return {
        "action": action,
        "runtime": file.runtime,
        "artifact": str(file.path.resolve()),
        "inputs": str(rows),
        "threads": threads,
        "batch": options.batches[0],
        "precision": file.precision,
    }

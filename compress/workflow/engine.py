"""Engines that a worker builds where they will run, and what computes there beside the CPU."""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path

from compress.errors import LoweringError, WorkerError
from compress.hosts import open_host
from compress.hosts.calls import ask
from compress.runtimes.base import BuiltThere, Lowered
from compress.store.cache import Cache, digest, key
from compress.target import Target
from compress.worker.tensorrt_build import FLAGS, MANIFEST, PLAN, TIMINGS
from compress.workflow.files import ENGINE
from compress.workflow.plan import Plan, runtime, versions
from compress.workflow.progress import Progress

# A build times kernels; a large network on a small board takes this long.
TIMEOUT_S = 3600


def processor(target: Target, plan: Plan) -> str:
    """Returns the GPU that a target computes on, with the versions around it; empty where it is the CPU.

    Raises:
        LoweringError: If it does not work on the target's host: nothing of the target can then be measured.
    """
    return _ask(target, plan)[0] if "provider" in target.job_settings else ""


def built(lowered: Lowered, name: str, target: Target, plan: Plan, cache: Cache, progress: Progress) -> Lowered:
    """Returns what runs on a target: the file as it is, or the engine that its host builds out of it.

    The engine is kept under everything that decides it: the file, the GPU, TensorRT's version, the flags, the batch.
    Timings of kernels are kept a GPU and version, so that the next build times only what is new.

    Raises:
        LoweringError: If the file would be refused, or cannot be built on the host.
    """
    engine = runtime(target.runtime)
    if not isinstance(engine, BuiltThere):
        return lowered
    engine.check(lowered)
    gpu, version = _ask(target, plan)
    batch = plan.recipe.measure.batch
    place = {"gpu": gpu, "version": version, "versions": versions(target.runtime)}
    step = key("engine", file=digest(lowered.data), flags=dict(FLAGS), batch=batch, **place)
    kept = cache.get(step)
    if kept is not None:
        data = cache.require(kept["blobs"]["data"])
        return _engine(lowered, data, kept["manifest"])
    progress.step(f"{target.name}: building the engine of {name}")
    timings = key("timings", flags=dict(FLAGS), **place)
    with tempfile.TemporaryDirectory(prefix="edge-compress-") as folder:
        file, known, made = (Path(folder) / part for part in ("model.onnx", TIMINGS, "engine.zip"))
        file.write_bytes(lowered.data)
        job = {
            "action": "build",
            "runtime": target.runtime,
            "artifact": str(file),
            "outputs": str(made),
            "batch": batch,
        }
        earlier = cache.get(timings)
        if earlier is not None:
            known.write_bytes(cache.require(earlier["blobs"]["data"]))
            job["inputs"] = str(known)
        try:
            ask(open_host(target), job, TIMEOUT_S)
        except WorkerError as error:
            raise LoweringError(f"the engine cannot be built: {error.message}", error.hint) from error
        data, manifest, found = _parted(made.read_bytes())
    cache.put(timings, {}, data=found)
    cache.put(step, {"manifest": manifest}, data=data)
    return _engine(lowered, data, manifest)


def _engine(lowered: Lowered, data: bytes, manifest: dict[str, object]) -> Lowered:
    note = (
        f"engine for {manifest['gpu']} (compute capability {manifest['compute_capability']}) and TensorRT"
        f" {manifest['tensorrt']} alone, up to {manifest['batch']} rows a call"
    )
    return replace(lowered, data=data, suffix=ENGINE, notes=(*lowered.notes, note))


def _parted(data: bytes) -> tuple[bytes, dict[str, object], bytes]:
    """The archive that ships (manifest and plan), the manifest, and the timings, which stay here."""
    shipped = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(shipped, "w") as writer:
        for name in (MANIFEST, PLAN):
            writer.writestr(zipfile.ZipInfo(name), archive.read(name))
        manifest: dict[str, object] = json.loads(archive.read(MANIFEST))
        timings = archive.read(TIMINGS) if TIMINGS in archive.namelist() else b""
    return shipped.getvalue(), manifest, timings


def _ask(target: Target, plan: Plan) -> tuple[str, str]:
    """The processor of a target and its runtime's version there."""
    try:
        answer = ask(open_host(target), {"action": "empty", "runtime": target.runtime}, plan.recipe.measure.timeout_s)
    except WorkerError as error:
        raise LoweringError(error.message, _elsewhere(target, plan, error.hint)) from error
    return answer["processor"], answer["version"]


def _elsewhere(target: Target, plan: Plan, remedy: str) -> str:
    what = plan.where if plan.where.endswith(".toml") else "(the same arguments)"
    there = f"run this on the machine that has it: edge-compress run {what} --target {target.name}"
    return f"{remedy.rstrip('.')}; or {there}" if remedy else f"{there}."

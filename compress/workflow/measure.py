"""From artifacts to evidence of one target: quality, parity, latency, memory, placement, verdicts, choice."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.bench.conductor import BenchItem, BenchResult
from compress.errors import CompressError, StoreError
from compress.evaluate.parity import parity
from compress.evaluate.tasks import compare_task
from compress.evidence import (
    ArtifactInfo,
    Candidate,
    Choice,
    Latency,
    Leak,
    Memory,
    Metric,
    Placement,
    TargetEvidence,
    Verdict,
    from_json,
    to_json,
)
from compress.gate import judge
from compress.hosts import Host, answering_host, open_host
from compress.hosts.calls import describe, run_outputs
from compress.model.core import Model
from compress.model.onnx_beside import DataFile
from compress.search.choose import choose
from compress.store.cache import Cache, key
from compress.target import Target
from compress.workflow.arrays import keep_arrays, kept_arrays
from compress.workflow.as_file import RUNTIME, ask
from compress.workflow.build import Built
from compress.workflow.certify import certify, claimed
from compress.workflow.holdout import Holdout
from compress.workflow.layouts import transpositions
from compress.workflow.machines import known_as, unanswered
from compress.workflow.plan import Plan, versions
from compress.workflow.progress import Progress
from compress.workflow.review import review_candidate
from compress.workflow.timing import time_files

Arrays = dict[str, NDArray[np.generic]]
# Where the files that ship lie in a run.
ARTIFACTS = "artifacts"


@dataclass(frozen=True)
class Site:
    """What every measurement on one target has in common.

    `host` answers, `clock` takes times; they differ only where the target's host takes times alone.
    `machine` names the processor and its features, or what stands in for it, and `clocked` that of `clock`: figures of
    another machine are not reused.
    `asked` holds what a file answered to rows beside the test rows, for as long as this run lasts.
    """

    target: Target
    host: Host
    clock: Host
    plan: Plan
    holdout: Holdout
    cache: Cache
    machine: str
    clocked: str
    asked: dict[str, Arrays] = field(default_factory=dict)

    def key(self, step: str, **inputs: object) -> str:
        """The name of a step that ran in this target's runtime, on this host, on this machine."""
        return key(
            step,
            host=self.target.host,
            threads=self.target.threads,
            job=self.target.job_settings,
            machine=self.machine,
            versions=versions(self.target.runtime),
            **inputs,
        )

    @property
    def timeout_s(self) -> float:
        """How long a worker may take."""
        return self.plan.recipe.measure.timeout_s

    @property
    def timed(self) -> Site:
        """The same where times are taken."""
        return replace(self, host=self.clock, machine=self.clocked)


def open_site(target: Target, plan: Plan, holdout: Holdout, cache: Cache, machine: str) -> Site:
    """Returns the site of a target: its host, and who answers for it."""
    clock = open_host(target)
    host = answering_host(clock)
    clocked = known_as(clock, target.runtime) or machine
    return Site(target, host, clock, plan, holdout, cache, clocked if host is clock else machine, clocked)


def measure_target(
    built: Sequence[Built],
    target: Target,
    holdout: Holdout,
    plan: Plan,
    cache: Cache,
    machine: str,
    progress: Progress,
    files: dict[str, bytes | Path],
    leaks: tuple[Leak, ...] = (),
    gpu: str = "",
) -> TargetEvidence:
    """Measures every artifact of a target beside the first and decides which one ships.

    What is to be published beside the artifacts, the rows that flipped, is added to `files`. `gpu` names what computes
    beside the processor of the host.
    """
    site = open_site(target, plan, holdout, cache, f"{machine} {gpu}".strip())
    host = site.clock
    answers: dict[str, Arrays] = {}
    candidates: list[Candidate] = []
    flips: dict[str, bytes] = {}
    for item in built:
        try:
            if item.lowered is None:
                raise CompressError(item.error)
            progress.step(f"{target.name}: scoring {holdout.rows} rows with {item.scheme}")
            answers[item.scheme] = score(item, site)
            judged = judge_quality(item, built[0], answers, site)
            if built[0].scheme in answers:
                progress.step(f"{target.name}: reviewing {item.scheme}")
                judged = replace(judged, reviews=review_candidate(item, built[0], answers, site, flips))
            candidates.append(judged)
        except StoreError:
            # A full disk says nothing about the artifact.
            raise
        except CompressError as error:
            candidates.append(Candidate(item.scheme, _artifact(item, site), error=str(error)))
    files |= flips
    timed: dict[str, BenchResult] = {}
    device: dict[str, Any] = {}
    if host.tells_time:
        progress.step(f"{target.name}: measuring latency, {len(built)} artifacts interleaved")
        timed, device = _latency(built, candidates, site.timed, progress)
    candidates = [
        replace(
            candidate,
            latency=timed[candidate.scheme].latency,
            memory=timed[candidate.scheme].memory,
            error=candidate.error or timed[candidate.scheme].error,
        )
        if candidate.scheme in timed
        else candidate
        for candidate in candidates
    ]
    margins = {item.name: item.margin for item in holdout.questions if item.margin is not None}
    gate, sure = plan.recipe.gate, claimed(target, plan)

    def decide(found: Sequence[Candidate]) -> tuple[dict[str, Verdict], Choice]:
        verdicts = {item.scheme: judge(item, gate, target.budgets, margins, leaks, sure) for item in found}
        return verdicts, choose(found, verdicts, gate.objective, fallback=gate.fallback, timed=host.tells_time)

    candidates, verdicts, choice = certify(candidates, built, site, decide, progress)
    return TargetEvidence(
        target=target.name,
        runtime=target.runtime,
        settings=target.model_dump(mode="json", exclude={"name", "runtime"}, by_alias=True),
        candidates=tuple(candidates),
        verdicts=verdicts,
        choice=choice,
        machine=", ".join(part for part in (host.machine, gpu) if part),
        device=device,
        unanswered=unanswered(host),
    )


def _artifact(item: Built, site: Site, *notes: str) -> ArtifactInfo | None:
    if item.lowered is None:
        return None
    return ArtifactInfo(
        scheme=item.scheme,
        runtime=site.target.runtime,
        file=f"{ARTIFACTS}/{site.plan.recipe.name}.{site.target.name}.{item.scheme}{item.lowered.suffix}",
        sha256=item.sha,
        size_bytes=item.lowered.size_bytes,
        inputs=item.lowered.inputs,
        outputs=item.lowered.outputs,
        layers=item.lowered.outcomes,
        notes=(*item.lowered.notes, *(note for note in notes if note), *map(_said, item.lowered.beside)),
        beside=tuple(f"{ARTIFACTS}/{each.name}" for each in item.lowered.beside),
    )


def _said(item: DataFile) -> str:
    return f"its weights lie beside it in {item.name} ({item.size_bytes:,} bytes), which must ship with it"


def score(item: Built, site: Site) -> Arrays:
    """What the artifact answers on the test rows, in its own runtime, in a worker.

    As many rows a call as a device gives: a dynamic range is that of all rows of a call.
    """
    batch = site.plan.recipe.measure.batch
    step = site.key("outputs", artifact=item.sha, rows=site.holdout.fingerprint, batch=batch)
    kept = kept_arrays(site.cache, step)
    if kept is not None:
        return kept
    outputs = run_outputs(
        site.host,
        site.target.runtime,
        site.cache.path(item.sha),
        site.holdout.inputs,
        threads=site.target.threads,
        batch=batch,
        timeout_s=site.timeout_s,
    )
    keep_arrays(site.cache, step, outputs)
    return outputs


def judge_quality(item: Built, baseline: Built, answers: Mapping[str, Arrays], site: Site) -> Candidate:
    """Returns a candidate with its quality beside the baseline, its parity with the graph, and its placement."""
    holdout, recipe = site.holdout, site.plan.recipe
    got = answers[item.scheme]
    rows = holdout.parity_rows
    found = parity(
        _reference(item, site),
        {name: array[rows] for name, array in got.items()},
        name="graph" if isinstance(item.graph, Model) else "file",
        decisions={question.output: question.decision for question in holdout.questions},
    )
    metrics: list[Metric] = []
    for question in holdout.questions if baseline.scheme in answers else ():
        metrics += compare_task(
            question.kind,
            question.labels,
            answers[baseline.scheme][question.output],
            got[question.output],
            task=question.name,
            link=question.link,
            cutoff=question.cutoff,
            resamples=recipe.measure.resamples,
            seed=recipe.seed,
            where=f"{site.target.name}: {item.scheme}: output {question.output!r}",
        )
    placement = _placement(item, site)
    return Candidate(
        scheme=item.scheme,
        artifact=_artifact(item, site, transpositions(placement, item.graph)),
        metrics=tuple(metrics),
        parity=found,
        placement=placement,
    )


def _reference(item: Built, site: Site) -> Arrays:
    """What the graph itself answers on the parity rows: what the artifact must be close to."""
    rows = site.holdout.parity_rows
    step = key(
        "reference",
        model=item.graph.digest,
        rows=site.holdout.fingerprint,
        chosen=hashlib.sha256(rows.tobytes()).hexdigest(),
        versions=versions("torch" if isinstance(item.graph, Model) else RUNTIME),
    )
    kept = kept_arrays(site.cache, step)
    if kept is not None:
        return kept
    inputs = {name: array[rows] for name, array in site.holdout.inputs.items()}
    outputs = ask(item.graph, inputs, site.timeout_s)
    keep_arrays(site.cache, step, outputs)
    return outputs


def _placement(item: Built, site: Site) -> Placement:
    step = site.key("placement", artifact=item.sha, precision=item.precision)
    kept = site.cache.get(step)
    if kept is not None:
        restored: Placement = from_json(Placement, kept["placement"], step)
        return restored
    found = describe(
        site.host,
        site.target.runtime,
        site.cache.path(item.sha),
        precision=item.precision,
        threads=site.target.threads,
        timeout_s=site.timeout_s,
        inputs={name: array[:1] for name, array in site.holdout.inputs.items()},
    ).placement
    site.cache.put(step, {"placement": to_json(found)})
    return found


def _latency(
    built: Sequence[Built], candidates: Sequence[Candidate], site: Site, progress: Progress
) -> tuple[dict[str, BenchResult], dict[str, Any]]:
    """Measures all artifacts that answered, together: no figure is taken without its baseline in the same run.

    The second is what the host's machine said of itself before and after.
    """
    settings, recipe = site.plan.recipe.measure, site.plan.recipe
    working = [
        item
        for item, candidate in zip(built, candidates, strict=True)
        if item.lowered is not None and not candidate.error
    ]
    if not working:
        return {}, {}
    step = site.key(
        "latency",
        artifacts=[(item.scheme, item.sha, item.precision) for item in working],
        settings=settings.model_dump(mode="json"),
        seed=recipe.seed,
    )
    kept = site.cache.get(step)
    if kept is not None:
        return {
            name: BenchResult(
                latency=from_json(Latency, value["latency"], step) if value["latency"] else None,
                memory=from_json(Memory, value["memory"], step) if value["memory"] else None,
            )
            for name, value in kept["results"].items()
        }, kept.get("device", {})
    before = site.host.facts()
    items = [BenchItem(item.scheme, site.target.runtime, site.cache.path(item.sha), item.precision) for item in working]
    results = time_files(site.host, items, site.holdout.inputs, recipe, site.target.threads, progress)
    device = {"before": before, "after": site.host.facts()} if before else {}
    if not any(result.error for result in results.values()):
        site.cache.put(
            step,
            {
                "device": device,
                "results": {
                    name: {
                        "latency": to_json(result.latency) if result.latency else "",
                        "memory": to_json(result.memory) if result.memory else "",
                    }
                    for name, result in results.items()
                },
            },
        )
    return results, device

"""The passes of a recipe, one after the other. A finished one is kept, with the Model that it gave."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from compress.data.base import Dataset
from compress.errors import RecipeError
from compress.evidence import StepInfo, TrainingInfo, from_json, to_json
from compress.model.core import Model
from compress.model.cost import describe
from compress.model.pt2 import load_pt2
from compress.passes.base import PASSES, Change, Context, Meter, PassResult, Skip, Task, run_pass
from compress.recipe import PassConfig
from compress.store.cache import Cache, digest, key
from compress.workflow.plan import Plan, versions
from compress.workflow.progress import Progress


@dataclass(frozen=True)
class Passed:
    """The Model behind all passes, what each did, and the ranges that they found."""

    model: Model
    steps: tuple[StepInfo, ...]
    ranges: Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class _Record:
    """What is kept of a finished pass beside its Model."""

    lineage: tuple[str, ...]
    changed: tuple[Change, ...]
    skipped: tuple[Skip, ...]
    ranges: Mapping[str, tuple[float, float]]
    training: TrainingInfo | None


def run_passes(
    source: Model,
    plan: Plan,
    dataset: Dataset,
    tasks: tuple[Task, ...],
    cache: Cache | None,
    progress: Progress,
    measure: Mapping[str, Meter],
) -> Passed:
    """Carries out the passes of a recipe in order.

    No pass sees the test split. Without a cache nothing is kept.

    Raises:
        PassError: If a pass fails, or changes nothing.
        RecipeError: If a pass changes a graph whose ranges an earlier one found.
    """
    data = without_test_rows(dataset)
    model, steps = source, []
    ranges: Mapping[str, tuple[float, float]] = {}
    for index, config in enumerate(plan.recipe.passes):
        title = f"pass {index + 1} of {len(plan.recipe.passes)}"
        progress.step(f"{title}: {config.kind}")
        context = replace(_context(config, index, source, plan, title, progress), tasks=tasks, measure=measure)
        result = _run(config, model, data, context, cache)
        if ranges and result.changed:
            raise RecipeError(
                f"{plan.where}: passes[{index}] ({config.kind}) changes a graph whose ranges an earlier pass found",
                "let the pass that finds ranges be the last.",
            )
        ranges = ranges or result.ranges
        steps.append(step_info(config.kind, model, result))
        model = result.model
    return Passed(model, tuple(steps), ranges)


def without_test_rows(dataset: Dataset) -> Dataset:
    """Returns what a pass may see: test rows measure and decide nothing, so it cannot even ask for them."""
    return replace(dataset, splits={name: rows for name, rows in dataset.splits.items() if name != "test"})


def step_info(kind: str, before: Model, result: PassResult) -> StepInfo:
    """Returns what the evidence says of a pass."""
    return StepInfo(
        kind=kind,
        changed=tuple(f"{change.where}: {change.what}" for change in result.changed),
        skipped=tuple((skip.where, skip.reason) for skip in result.skipped),
        before=describe(before),
        after=describe(result.model),
        training=result.training,
    )


def _context(config: PassConfig, index: int, source: Model, plan: Plan, title: str, progress: Progress) -> Context:
    return Context(
        seed=plan.recipe.seed,
        options=config.options,
        where=f"{plan.where}: passes[{index}]",
        folder=plan.folder,
        original=source,
        schemes={scheme.name: scheme for scheme in plan.schemes},
        targets=plan.targets,
        say=lambda sentence: progress.step(f"{title}: {sentence}"),
    )


def _run(config: PassConfig, model: Model, data: Dataset, ctx: Context, cache: Cache | None) -> PassResult:
    if cache is None:
        return run_pass(config.kind, model, data, ctx, allow_no_change=config.allow_no_change)
    step = _key(config, model, data, ctx)
    kept = cache.get(step)
    if kept is None:
        # One folder for all passes: what a teacher answered serves the next one, too.
        work = cache.folder / "work"
        result = run_pass(config.kind, model, data, replace(ctx, work=work), allow_no_change=config.allow_no_change)
        kept = _keep(cache, step, result)
    record: _Record = from_json(_Record, kept["result"], step)
    if not record.changed:
        return PassResult(model, (), record.skipped, record.ranges, record.training)
    # Also when it was made just now: what goes on is what was kept, so that the next run names its steps alike.
    cache.require(kept["blobs"]["model"])
    program = load_pt2(cache.path(kept["blobs"]["model"])).program
    made = replace(model, program=program, lineage=record.lineage)
    return PassResult(made, record.changed, record.skipped, record.ranges, record.training)


def _keep(cache: Cache, step: str, result: PassResult) -> dict[str, Any]:
    record = _Record(result.model.lineage, result.changed, result.skipped, result.ranges, result.training)
    blobs = {"model": result.model.to_bytes()} if result.changed else {}
    return cache.put(step, {"result": to_json(record)}, **blobs)


def _key(config: PassConfig, model: Model, data: Dataset, ctx: Context) -> str:
    reads_targets = getattr(PASSES.load(config.kind), "reads_targets", False)
    return key(
        "pass",
        kind=config.kind,
        options=config.options,
        allow=config.allow_no_change,
        files=sorted(_files(config.options, ctx.folder)),
        model=model.digest,
        original=ctx.original.digest if ctx.original is not None else "",
        data=data.fingerprint(),
        splits={name: data.split_fingerprint(name) for name in data.splits},
        unlabelled=data.unlabelled.reader.digest() if data.unlabelled is not None else "",
        tasks=[repr(task) for task in ctx.tasks],
        targets=[repr(ctx.schemes), *(repr(target) for target in ctx.targets)] if reads_targets else [],
        machines=[meter.machine for meter in ctx.measure.values()] if reads_targets else [],
        seed=ctx.seed,
        versions=versions("torch"),
    )


def _files(value: object, folder: Path) -> Iterator[tuple[str, str]]:
    """Every file that options name, with its digest: another content is another step."""
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _files(item, folder)
    elif isinstance(value, str) and value:
        named = folder / (value.rpartition(":")[0] or value)
        paths = sorted(path for path in named.rglob("*") if path.is_file()) if named.is_dir() else [named]
        for path in paths:
            if path.is_file():
                yield value, digest(path.read_bytes())

"""From a plan to files: the Model, its passes, and each runtime's artifacts. Finished steps are reused."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import torch

from compress.calibrate import Method, Ranges, calibrate
from compress.data.base import Dataset
from compress.errors import LoweringError
from compress.evidence import StepInfo, from_json, to_json
from compress.model.belongings import carry
from compress.model.core import Model, TensorInfo
from compress.model.onnx_file import OnnxFile
from compress.model.silence import silenced
from compress.model.source import load_model
from compress.passes.base import Context, Meter, Task, run_pass
from compress.processors import adds_in_16_bits
from compress.recipe import QuantScheme, Recipe
from compress.runtimes.base import Lowered, TakesFiles, outcomes
from compress.store.cache import Cache, digest, key
from compress.target import Target
from compress.workflow.as_file import RUNTIME, not_possible, observe
from compress.workflow.passes import run_passes, step_info
from compress.workflow.plan import Plan, runtime, versions
from compress.workflow.progress import Progress


@dataclass(frozen=True)
class Opened:
    """The Model as it came (`source`), as it is measured (`original`, batch normalisation folded), and its rows."""

    source: Model | OnnxFile
    original: Model | OnnxFile
    folding: StepInfo | None
    dataset: Dataset


@dataclass(frozen=True)
class Models:
    """The original, the Model behind all passes, what each pass did.

    `ranges` are values of the compressed graph whose range a pass found: they replace calibrated ones.
    """

    original: Model | OnnxFile
    compressed: Model | OnnxFile
    steps: tuple[StepInfo, ...]
    dataset: Dataset
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        """Whether the passes made another Model."""
        return self.original.digest != self.compressed.digest

    def learned(self, model: Model | OnnxFile, calibrated: Ranges) -> Ranges:
        """Returns the ranges of a Model with those that a pass found, where it is the one that they hold for."""
        return calibrated.learned(self.ranges) if self.ranges and model is self.compressed else calibrated


@dataclass(frozen=True)
class Built:
    """One artifact, or why there is none. `graph` is the Model that it must answer like."""

    scheme: str
    graph: Model | OnnxFile
    lowered: Lowered | None
    sha: str
    error: str = ""

    @property
    def precision(self) -> Literal["float", "int8"]:
        """What the worker's placement is judged by: `int8` where a layer multiplies integers, else `float`."""
        return "float" if self.lowered is None else self.lowered.arithmetic


def open_model(plan: Plan, dataset: Dataset, progress: Progress) -> Opened:
    """Loads the Model and binds its inputs to the data. A file that is no graph stays as it is."""
    progress.step("exporting the model")
    specifications = [TensorInfo(item.name, item.shape, item.dtype) for item in dataset.reader.signature()]
    with silenced("torch"), torch.random.fork_rng(devices=[]):
        # A factory that draws its weights gives the same model again, so that the next run reuses this one's steps.
        torch.manual_seed(plan.recipe.seed)
        source = load_model(plan.recipe.model, specifications, plan.folder)
    if len(specifications) == 1 and specifications[0].name != source.signature.inputs[0].name:
        dataset = dataset.renamed({specifications[0].name: source.signature.inputs[0].name})
    source = carry(source, dataset, class_names(plan.recipe, dataset))
    if isinstance(source, OnnxFile):
        return Opened(source, source, None, dataset)
    folded, step = _fold(source, dataset, plan)
    return Opened(source, folded, step, dataset)


def build_models(
    opened: Opened,
    plan: Plan,
    tasks: tuple[Task, ...],
    cache: Cache | None,
    progress: Progress,
    measure: Mapping[str, Meter] | None = None,
) -> Models:
    """Runs the passes.

    Batch normalisation is folded before lowering, in the original as in the compressed Model: it keeps the
    function, and every runtime then quantizes the weights that it will multiply.

    Args:
        opened: What `open_model` gave.
        plan: The recipe.
        tasks: What the outputs answer.
        cache: Where finished passes are kept; None to keep none.
        progress: Told what is happening.
        measure: What measures on each target; None where nothing can be measured.
    """
    source, dataset = opened.source, opened.dataset
    if isinstance(source, OnnxFile):
        return Models(source, source, not_possible(source, plan), dataset)
    passed = run_passes(source, plan, dataset, tasks, cache, progress, measure or {})
    if passed.model is source:
        compressed, step = opened.original, opened.folding
    else:
        compressed, step = _fold(passed.model, dataset, plan)
    steps = (*passed.steps, step) if step is not None and (step.changed or step.skipped) else passed.steps
    return Models(opened.original, compressed, steps, dataset, passed.ranges)


def _fold(model: Model, dataset: Dataset, plan: Plan) -> tuple[Model, StepInfo]:
    result = run_pass("fold_batch_norm", model, dataset, Context(seed=plan.recipe.seed), allow_no_change=True)
    return result.model, step_info("fold_batch_norm", model, result)


def class_names(recipe: Recipe, dataset: Dataset) -> tuple[str, ...]:
    """Returns the names of the only task's classes, in the order of its scores, where the data gives them names."""
    config = recipe.task
    columns = recipe.data.label_columns
    if recipe.tasks or config.kind != "multiclass":
        return ()
    label = config.label or next(iter(dataset.labels))
    return tuple(dataset.categories.get(columns.get(label, label), ()))


def lower_float(model: Model | OnnxFile, name: str, cache: Cache, progress: Progress) -> Lowered:
    """Returns the float32 file of a runtime.

    Raises:
        LoweringError: If the runtime cannot take the model.
    """
    step = key("lower", model=model.digest, runtime=name, versions=versions(name))
    progress.step(f"lowering to {name}, float32")
    lowered = _restore(cache, step)
    if lowered is None:
        lowered = _lower(model, name)
        lowered = replace(lowered, outcomes=outcomes(lowered, (), {}))
        _keep(cache, step, lowered)
    return replace(lowered, graph=model)


def _lower(model: Model | OnnxFile, name: str) -> Lowered:
    engine = runtime(name)
    if isinstance(model, Model):
        return engine.lower(model)
    if not isinstance(engine, TakesFiles):
        raise LoweringError(
            f"{name} cannot take the file as it is: {model.reason}",
            "keep the ONNX Runtime targets, or export the model without these operators.",
        )
    return engine.take(model)


def quantize(
    lowered: Lowered, scheme: QuantScheme, ranges: Ranges | None, target: Target, cache: Cache, progress: Progress
) -> Lowered:
    """Returns the file with a scheme realised.

    Raises:
        LoweringError: If nothing of the scheme can be realised.
    """
    step = key(
        "quantize",
        file=digest(lowered.data),
        # A runtime may quantize the graph, of which its file does not tell everything.
        graph=lowered.graph.digest if lowered.graph is not None else "",
        scheme=scheme.model_dump(mode="json"),
        ranges=[ranges.digest, ranges.source] if ranges and scheme.needs_ranges else [],
        cpu=target.cpu,
        # What `native` means differs from machine to machine.
        careful=adds_in_16_bits(target.cpu),
        fusion=target.fusion,
        flavour=target.flavour,
        runtime=target.runtime,
        versions=versions(target.runtime),
    )
    progress.step(f"lowering to {target.runtime}, {scheme.name}")
    made = _restore(cache, step)
    if made is None:
        engine = runtime(target.runtime)
        for wanted in (scheme, *scheme.used):
            if wanted.dtype != "float32" and (wanted.dtype, wanted.activations) not in engine.schemes:
                kind = f"{wanted.dtype}"
                kind += "" if wanted.activations == "none" else f" with {wanted.activations} activations"
                raise LoweringError(f"{target.runtime} has no {kind}", "list what it has in the target's own schemes.")
        made = engine.quantize(lowered, scheme, ranges, target)
        _keep(cache, step, made)
    return made


def find_ranges(
    model: Model | OnnxFile,
    lowered: Lowered,
    dataset: Dataset,
    label: str | None,
    plan: Plan,
    cache: Cache,
    progress: Progress,
    method: Method | None = None,
) -> Ranges:
    """Returns the activation ranges over a stratified sample of the calibration split, streamed.

    Those of a graph are named by its values and serve every runtime; those of a file by the file's. `method` is the
    recipe's unless one is given.
    """
    settings = plan.recipe.calibration
    method = method or Method.of(settings)
    rows = dataset.sample("calibration", settings.rows, plan.recipe.seed, label)
    step = key(
        "calibrate",
        model=model.digest,
        data=dataset.fingerprint(),
        rows=hashlib.sha256(rows.tobytes()).hexdigest(),
        batch=settings.batch,
        method=str(method),
        versions=versions("torch" if isinstance(model, Model) else RUNTIME),
    )
    progress.step(f"calibrating on {len(rows)} rows, {method}")
    kept = cache.get(step)
    if kept is not None:
        return Ranges({name: (low, high) for name, (low, high) in kept["values"].items()}, kept["source"])
    batches = dataset.batches_of(rows, settings.batch)
    if isinstance(model, Model):
        ranges = calibrate(model, batches, method)
    else:
        ranges = observe(lowered, batches, method, plan.recipe.measure.timeout_s)
    source = f"{ranges.source} ({dataset.describe_sample('calibration', rows, label)})"
    cache.put(step, {"values": {name: list(pair) for name, pair in ranges.values.items()}, "source": source})
    return Ranges(ranges.values, source)


def build_target(
    models: Models, target: Target, plan: Plan, label: str | None, cache: Cache, progress: Progress
) -> tuple[Built, ...]:
    """Builds every scheme of a target; the first is the baseline, the original in float32.

    A scheme that fails is an error of that scheme. A runtime that cannot take the original is an error of the target.

    Raises:
        LoweringError: If the baseline cannot be lowered.
    """
    baseline = lower_float(models.original, target.runtime, cache, progress)
    name = "original" if models.changed else "float32"
    built = [Built(name, models.original, baseline, digest(baseline.data))]
    schemes = plan.schemes_for(target)
    try:
        floats = lower_float(models.compressed, target.runtime, cache, progress) if models.changed else baseline
    except LoweringError as error:
        return (*built, *(Built(scheme.name, models.compressed, None, "", str(error)) for scheme in schemes))
    if models.changed:
        built.append(Built("float32", models.compressed, floats, digest(floats.data)))
    for scheme in schemes[1:]:
        try:
            ranges = None
            if scheme.needs_ranges:
                found = find_ranges(models.compressed, floats, models.dataset, label, plan, cache, progress)
                ranges = models.learned(models.compressed, found)
            made = quantize(floats, scheme, ranges, target, cache, progress)
            built.append(Built(scheme.name, models.compressed, made, digest(made.data)))
        except LoweringError as error:
            built.append(Built(scheme.name, models.compressed, None, "", str(error)))
    return tuple(built)


def _keep(cache: Cache, step: str, lowered: Lowered) -> None:
    cache.put(step, {"lowered": to_json(replace(lowered, data=b"", graph=None))}, data=lowered.data)


def _restore(cache: Cache, step: str) -> Lowered | None:
    kept = cache.get(step)
    if kept is None:
        return None
    lowered: Lowered = from_json(Lowered, kept["lowered"], step)
    return replace(lowered, data=cache.require(kept["blobs"]["data"]))

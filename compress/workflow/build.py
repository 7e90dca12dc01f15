"""From a plan to files: the Model, its passes, and each runtime's artifacts. Finished steps are reused."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Literal

import torch

from compress.data.base import Dataset
from compress.errors import LoweringError
from compress.evidence import StepInfo, from_json, to_json
from compress.model.belongings import carry
from compress.model.core import Model, TensorInfo
from compress.model.cost import describe
from compress.model.onnx_file import OnnxFile
from compress.model.silence import silenced
from compress.model.source import load_model
from compress.passes.base import Context, run_pass
from compress.processors import adds_in_16_bits
from compress.recipe import QuantScheme, Recipe
from compress.runtimes.base import Lowered, TakesFiles, outcomes
from compress.runtimes.calibrate import Ranges, calibrate
from compress.store.cache import Cache, digest, key
from compress.target import Target
from compress.workflow.as_file import RUNTIME, not_possible, observe
from compress.workflow.plan import Plan, runtime, versions
from compress.workflow.progress import Progress
from compress.workflow.tasks import bind_tasks


@dataclass(frozen=True)
class Models:
    """The Model as it came, the Model behind all passes, and what each pass did."""

    original: Model | OnnxFile
    compressed: Model | OnnxFile
    steps: tuple[StepInfo, ...]
    dataset: Dataset

    @property
    def changed(self) -> bool:
        """Whether the passes made another Model."""
        return self.original.digest != self.compressed.digest


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
        """What the worker's placement is judged by: `int8` where a layer has integer weights, else `float`."""
        if self.lowered is None:
            return "float"
        return "int8" if any(item.precision == "int8" for item in self.lowered.outcomes) else "float"


def build_models(plan: Plan, dataset: Dataset, progress: Progress) -> Models:
    """Loads the Model, binds its inputs to the data and runs the passes. A file that is no graph stays as it is.

    Batch normalisation is folded before lowering, in the original as in the compressed Model: it keeps the
    function, and every runtime then quantizes the weights that it will multiply.
    """
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
        return Models(source, source, not_possible(source, plan), dataset)
    model, steps = source, []
    tasks = bind_tasks(source, dataset, plan) if plan.recipe.passes else ()
    for index, config in enumerate(plan.recipe.passes):
        progress.step(f"pass {index + 1} of {len(plan.recipe.passes)}: {config.kind}")
        context = Context(seed=plan.recipe.seed, options=config.options, tasks=tasks)
        model, step = _apply(config.kind, model, dataset, context, config.allow_no_change)
        steps.append(step)
    folding = Context(seed=plan.recipe.seed)
    compressed, step = _apply("fold_batch_norm", model, dataset, folding, True)
    if step.changed or step.skipped:
        steps.append(step)
    original = compressed if model is source else _apply("fold_batch_norm", source, dataset, folding, True)[0]
    return Models(original, compressed, tuple(steps), dataset)


def class_names(recipe: Recipe, dataset: Dataset) -> tuple[str, ...]:
    """Returns the names of the only task's classes, in the order of its scores, where the data gives them names."""
    config = recipe.task
    columns = recipe.data.label_columns
    if recipe.tasks or config.kind != "multiclass":
        return ()
    label = config.label or next(iter(dataset.labels))
    return tuple(dataset.categories.get(columns.get(label, label), ()))


def _apply(kind: str, model: Model, dataset: Dataset, context: Context, allow: bool) -> tuple[Model, StepInfo]:
    result = run_pass(kind, model, dataset, context, allow_no_change=allow)
    return result.model, StepInfo(
        kind=kind,
        changed=tuple(f"{change.where}: {change.what}" for change in result.changed),
        skipped=tuple((skip.where, skip.reason) for skip in result.skipped),
        before=describe(model),
        after=describe(result.model),
    )


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
        lowered = replace(lowered, outcomes=outcomes(lowered, (), "float32", {}))
        _keep(cache, step, lowered)
    return lowered


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
        scheme=scheme.model_dump(mode="json"),
        ranges=ranges.digest if ranges and scheme.activations == "static" else "",
        cpu=target.cpu,
        # What `native` means differs from machine to machine.
        careful=adds_in_16_bits(target.cpu),
        fusion=target.fusion,
        runtime=target.runtime,
        versions=versions(target.runtime),
    )
    progress.step(f"lowering to {target.runtime}, {scheme.name}")
    made = _restore(cache, step)
    if made is None:
        engine = runtime(target.runtime)
        if (scheme.dtype, scheme.activations) not in engine.schemes:
            kind = (
                scheme.dtype
                if scheme.activations == "none"
                else f"{scheme.dtype} with {scheme.activations} activations"
            )
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
) -> Ranges:
    """Returns the activation ranges over a stratified sample of the calibration split, streamed.

    Those of a graph are named by its values and serve every runtime; those of a file by the file's.
    """
    settings = plan.recipe.calibration
    rows = dataset.sample("calibration", settings.rows, plan.recipe.seed, label)
    step = key(
        "calibrate",
        model=model.digest,
        data=dataset.fingerprint(),
        rows=hashlib.sha256(rows.tobytes()).hexdigest(),
        batch=settings.batch,
        versions=versions("torch" if isinstance(model, Model) else RUNTIME),
    )
    progress.step(f"calibrating on {len(rows)} rows")
    kept = cache.get(step)
    if kept is not None:
        return Ranges({name: (low, high) for name, (low, high) in kept["values"].items()}, kept["source"])
    if isinstance(model, Model):
        ranges = calibrate(model, dataset.batches_of(rows, settings.batch))
    else:
        ranges = observe(lowered, dataset.reader.read(rows), settings.batch, plan.recipe.measure.timeout_s)
    cache.put(step, {"values": {name: list(pair) for name, pair in ranges.values.items()}, "source": ranges.source})
    return ranges


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
            ranges = (
                find_ranges(models.compressed, floats, models.dataset, label, plan, cache, progress)
                if scheme.activations == "static"
                else None
            )
            made = quantize(floats, scheme, ranges, target, cache, progress)
            built.append(Built(scheme.name, models.compressed, made, digest(made.data)))
        except LoweringError as error:
            built.append(Built(scheme.name, models.compressed, None, "", str(error)))
    return tuple(built)


def _keep(cache: Cache, step: str, lowered: Lowered) -> None:
    cache.put(step, {"lowered": to_json(replace(lowered, data=b""))}, data=lowered.data)


def _restore(cache: Cache, step: str) -> Lowered | None:
    kept = cache.get(step)
    if kept is None:
        return None
    lowered: Lowered = from_json(Lowered, kept["lowered"], step)
    return replace(lowered, data=cache.require(kept["blobs"]["data"]))

"""The main job: a recipe in, a published output folder out."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import compress
from compress.bench.environment import environment
from compress.errors import CompressError, LoweringError
from compress.evidence import (
    Choice,
    Environment,
    Evidence,
    GateStatus,
    Leak,
    TargetEvidence,
    from_json,
    load_evidence,
    to_json,
)
from compress.gate import overall
from compress.recipe import Recipe
from compress.report.card import render_card
from compress.report.html import render_html
from compress.report.markdown import render_markdown
from compress.runtimes.onnxruntime.ort_format import OPERATORS_SUFFIX
from compress.store.cache import Cache, digest, key
from compress.store.outdir import OutputFolder
from compress.target import Target
from compress.workflow.as_file import model_info
from compress.workflow.build import Built, Models, build_models, build_target, open_model
from compress.workflow.certify import places
from compress.workflow.engine import processor
from compress.workflow.holdout import Holdout, only_label, take_holdout, take_validation
from compress.workflow.measure import ARTIFACTS, measure_target
from compress.workflow.meter import meters
from compress.workflow.plan import PACKAGES, Plan, load_rows, make_plan, versions
from compress.workflow.progress import Progress
from compress.workflow.repair import Searched, search_target
from compress.workflow.subjects import known_leaks

# File of the run -> what writes it.
_REPORTS: dict[str, Callable[[Evidence], str]] = {
    "report.html": render_html,
    "report.md": render_markdown,
    "model_card.md": render_card,
}


@dataclass(frozen=True)
class Outcome:
    """What a run gave.

    Attributes:
        evidence: Everything measured.
        status: The gate's overall answer.
        exit_code: 0 pass, 1 gate failed, 3 inconclusive or incomparable.
        folder: The published run.
        reused: Number of steps whose results were taken from an earlier run.
        made: Number of steps that were carried out now.
    """

    evidence: Evidence
    status: GateStatus
    exit_code: int
    folder: Path
    reused: int
    made: int

    @property
    def ships(self) -> dict[str, str]:
        """Target -> the file that ships there, relative to the output folder; without targets where nothing does."""
        return {target.target: file for target in self.evidence.targets if (file := _shipped(target))}


def run(recipe: Recipe, folder: Path, out: Path, owner: str, where: str, progress: Progress) -> Outcome:
    """Compresses, exports, measures and publishes.

    Args:
        recipe: What to do.
        folder: The recipe's folder; its paths are relative to it.
        out: The output folder.
        owner: Whose folder it is: another recipe may not write there.
        where: The recipe's name for messages.
        progress: Told what is happening.

    Raises:
        CompressError: If the recipe, data, model, or output folder cannot be used. Nothing is published then.
    """
    plan = make_plan(recipe, folder, where)
    output = OutputFolder(out, owner)
    output.check()
    progress.step("reading the data")
    dataset, labels = load_rows(plan)
    opened = open_model(plan, dataset, progress)
    holdout = take_holdout(opened, labels, plan)
    searching = recipe.repair.enabled or bool(recipe.sensitivity.schemes)
    validation = take_validation(opened, labels, plan) if searching else None
    label = only_label(labels)
    # Claimed only now: data or a model that cannot be used leave no folder behind.
    with output.claimed():
        cache = output.cache
        machine = environment(sorted({name for target in plan.targets for name in PACKAGES.get(target.runtime, ())}))
        processor = f"{machine.machine.get('cpu')} {machine.machine.get('features')}"
        measure = meters(plan, opened.dataset, cache, processor, progress)
        models = build_models(opened, plan, holdout.tasks, cache, progress, measure)
        files: dict[str, bytes | Path] = {}
        targets = []
        progress.step("looking for test rows in other splits")
        leaks = known_leaks(models.dataset, cache, versions("torch"))
        for target in plan.targets:
            evidence, built = _one_target(
                models, target, plan, label, holdout, validation, cache, processor, progress, files, leaks
            )
            targets.append(evidence)
            files |= _files(evidence, built)
        machine = _when_timed(machine, cache)
        # Read where and what was measured last time: if every step was reused, the result is that one, unchanged.
        # Failures leave no step behind and attachments pass through none, so they are named beside the steps.
        run_key = key(
            "run",
            recipe=plan.digest,
            steps=sorted({*cache.reused, *cache.made}),
            errors=_errors(targets),
            attachments={name: digest(data) for name, data in models.compressed.attachments.items()},
            reports=sorted(_REPORTS),
        )
        previous = output.current_manifest()
        if previous is not None and previous.get("run_key") == run_key and not cache.made:
            evidence_file = load_evidence(out / "current" / "evidence.json")
            status, code = overall(evidence_file.targets)
            return Outcome(evidence_file, status, code, (out / "current").resolve(), len(set(cache.reused)), 0)
        whole = Evidence(
            name=recipe.name,
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            version=compress.__version__,
            recipe_digest=plan.digest,
            model=model_info(models.original),
            compressed=model_info(models.compressed),
            steps=models.steps,
            data=replace(models.dataset.info(label), leaks=leaks),
            targets=tuple(targets),
            environment=machine,
            places=places(plan),
        )
        status, code = overall(whole.targets)
        progress.step("writing the report")
        files["evidence.json"] = to_json(whole).encode()
        files |= {name: render(whole).encode() for name, render in _REPORTS.items()}
        # What must ship beside the model, whatever the target: its tokenizer, the names of its classes.
        files |= {f"artifacts/{recipe.name}.{name}": data for name, data in models.compressed.attachments.items()}
        published = output.publish(files, _manifest(plan, models, whole, status, run_key, files))
    return Outcome(whole, status, code, published, len(set(cache.reused) - set(cache.made)), len(set(cache.made)))


def _one_target(
    models: Models,
    target: Target,
    plan: Plan,
    label: str | None,
    holdout: Holdout,
    validation: Holdout | None,
    cache: Cache,
    machine: str,
    progress: Progress,
    files: dict[str, bytes | Path],
    leaks: tuple[Leak, ...],
) -> tuple[TargetEvidence, Sequence[Built]]:
    """An error of one target is that target's; the others' results are kept. `validation` rows are searched with."""
    try:
        built = build_target(models, target, plan, label, cache, progress)
        gpu = processor(target, plan)
    except LoweringError as error:
        settings = target.model_dump(mode="json", exclude={"name", "runtime"}, by_alias=True)
        choice = Choice(None, f"the original cannot be lowered: {error.message}")
        return TargetEvidence(target.name, target.runtime, settings, (), {}, choice, str(error)), ()
    found = Searched()
    if validation is not None:
        found = search_target(models, built, target, plan, label, validation, cache, machine, progress, gpu)
        built = (*built, *found.built)
    evidence = measure_target(built, target, holdout, plan, cache, machine, progress, files, leaks, gpu)
    return replace(evidence, sensitivities=found.sensitivities, repairs=found.repairs), built


def _when_timed(now: Environment, cache: Cache) -> Environment:
    """The machine as it was when the times were taken: those of an earlier run keep the warnings of that run."""
    timed = sorted({step for step in (*cache.reused, *cache.made) if step.startswith("latency-")})
    step = key("environment", timed=timed)
    kept = cache.get(step)
    if kept is not None:
        then: Environment = from_json(Environment, kept["environment"], step)
        return then
    cache.put(step, {"environment": to_json(now)})
    return now


def _errors(targets: Sequence[TargetEvidence]) -> list[tuple[str, str, str]]:
    """Where and why something failed: target, scheme (empty for the whole target), reason."""
    return [
        (target.target, scheme, error)
        for target in targets
        for scheme, error in [
            ("", target.error),
            *((item.scheme, item.error) for item in target.candidates),
            *((item.scheme, f"{place}: {why}") for item in target.candidates for place, why in item.unchecked),
        ]
        if error
    ]


def _files(evidence: TargetEvidence, built: Sequence[Built]) -> dict[str, bytes | Path]:
    made = {item.scheme: item.lowered for item in built if item.lowered is not None}
    files: dict[str, bytes | Path] = {}
    for candidate in evidence.candidates:
        if candidate.artifact is not None:
            lowered = made[candidate.scheme]
            files[candidate.artifact.file] = lowered.data
            files |= {f"{ARTIFACTS}/{item.name}": item.path for item in lowered.beside}
            stem = candidate.artifact.file.removesuffix(lowered.suffix)
            files |= {stem + suffix: text.encode() for suffix, text in lowered.texts}
    return files


def _shipped(target: TargetEvidence) -> str | None:
    chosen = (item.artifact for item in target.candidates if item.scheme == target.choice.scheme)
    return next((artifact.file for artifact in chosen if artifact is not None), None)


def _manifest(
    plan: Plan, models: Models, evidence: Evidence, status: GateStatus, run_key: str, files: Collection[str]
) -> dict[str, object]:
    ships = {target.target: _shipped(target) for target in evidence.targets}
    operators = {name: str(Path(file).with_suffix(OPERATORS_SUFFIX)) for name, file in ships.items() if file}
    return {
        "schema": 1,
        "name": evidence.name,
        "created": evidence.created,
        "version": evidence.version,
        "status": status,
        "ships": ships,
        # What a reduced build of the runtime must have, for those files that say it.
        "required_operators": {name: file for name, file in operators.items() if file in files},
        "attachments": [f"artifacts/{evidence.name}.{name}" for name in models.compressed.attachments],
        "run_key": run_key,
        "recipe": plan.recipe.model_dump(mode="json", by_alias=True),
        "recipe_digest": plan.digest,
        "targets": [target.model_dump(mode="json", by_alias=True) for target in plan.targets],
        "lineage": {"original": models.original.lineage, "compressed": models.compressed.lineage},
        "model_digest": {"original": models.original.digest, "compressed": models.compressed.digest},
        "data_fingerprint": evidence.data.fingerprint,
        "packages": dict(evidence.environment.packages),
    }


__all__ = ["CompressError", "Outcome", "run"]

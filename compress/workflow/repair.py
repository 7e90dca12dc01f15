"""Schemes that do not pass, repaired where that can be done; judged on validation rows, measured on test rows later."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from compress.errors import CompressError, StoreError
from compress.evidence import LayerOutcome, Repair, Sensitivity
from compress.model.core import Model
from compress.processors import adds_in_16_bits
from compress.recipe import CalibrationMethod, QuantScheme
from compress.runtimes.base import BuiltThere
from compress.search.ladder import Ladder, Score, Trial
from compress.search.sensitivity import back_to_float
from compress.store.cache import Cache
from compress.target import Target
from compress.workflow.attempts import Attempts
from compress.workflow.build import Built, Models
from compress.workflow.holdout import Holdout
from compress.workflow.measure import open_site
from compress.workflow.plan import Plan, runtime
from compress.workflow.progress import Progress
from compress.workflow.sensitivity import find_sensitivity

# The order in which calibration methods are tried: those that weigh errors before those that look at extremes alone.
_METHODS: tuple[CalibrationMethod, ...] = ("mse", "percentile", "entropy", "moving-average", "min-max")
# Weights keep to 7 bits where ONNX Runtime may meet a processor that adds in 16 bits.
_SEVEN, _EIGHT, _FOUR = 7, 8, 4
Change = tuple[str, Callable[[Trial], Trial]]


@dataclass(frozen=True)
class Searched:
    """What the search found on one target: new files beside the others, and how it came to them."""

    built: tuple[Built, ...] = ()
    sensitivities: tuple[Sensitivity, ...] = ()
    repairs: tuple[Repair, ...] = ()


def search_target(
    models: Models,
    built: Sequence[Built],
    target: Target,
    plan: Plan,
    label: str | None,
    validation: Holdout,
    cache: Cache,
    machine: str,
    progress: Progress,
    gpu: str = "",
) -> Searched:
    """Measures the sensitivity of layers where that is asked for, and repairs schemes that do not pass.

    Args:
        models: The Models of the run.
        built: The files of the target, the baseline first.
        target: Where they run.
        plan: The recipe.
        label: The label by which calibration rows are drawn.
        validation: The rows that decide here.
        cache: Finished steps.
        machine: The processor, for keys.
        progress: Told what is happening.
        gpu: What computes beside the processor, for keys.
    """
    if isinstance(runtime(target.runtime), BuiltThere):
        said = "not repaired: each attempt would need an engine of its own, built for minutes"
        wanted = [scheme.name for scheme in plan.schemes_for(target) if scheme.dtype.startswith("int")]
        return Searched(repairs=tuple(Repair(name, "", validation.split, validation.rows, (), said) for name in wanted))
    site = open_site(target, plan, validation, cache, f"{machine} {gpu}".strip())
    floats = next((item for item in built if item.scheme == "float32" and item.lowered is not None), None)
    found = Searched()
    for scheme in plan.schemes_for(target):
        made = next((item for item in built if item.scheme == scheme.name), None)
        if floats is None or made is None or made.lowered is None or not scheme.dtype.startswith("int"):
            continue
        attempts = Attempts(models, scheme, built[0], floats, site, label, progress)
        sensitivities: list[Sensitivity] = []
        if scheme.name in plan.recipe.sensitivity.schemes:
            sensitivities.append(find_sensitivity(attempts, Trial(), plan.recipe.sensitivity))
        if plan.recipe.repair.enabled:
            more, repair = _repair(attempts, sensitivities, {item.scheme for item in built})
            found = replace(found, built=(*found.built, *more), repairs=(*found.repairs, *repair))
        found = replace(found, sensitivities=(*found.sensitivities, *sensitivities))
    return found


def _repair(
    attempts: Attempts, sensitivities: list[Sensitivity], taken: set[str]
) -> tuple[tuple[Built, ...], tuple[Repair, ...]]:
    """Goes up the ladder for one scheme; nothing where it passes as it is."""
    holdout, recipe, name = attempts.site.holdout, attempts.site.plan.recipe, attempts.scheme.name
    attempts.progress.step(f"{attempts.site.target.name}: {name}: judging on {holdout.rows} {holdout.split} rows")
    try:
        first = attempts(Trial())
    except StoreError:
        raise
    except CompressError as error:
        repair = Repair(name, "", holdout.split, holdout.rows, (), f"not repaired: {error.message}")
        return (), (repair,)
    if first.status == "PASS":
        return (), ()
    ladder = Ladder(attempts, Trial(), first, recipe.repair.budget_s)
    _climb(ladder, attempts, sensitivities)
    built, steps = attempts.build(ladder.best)
    assert built.lowered is not None
    improved = ladder.best != Trial()
    candidate = _unused(f"{name}-repaired", taken) if improved else ""
    repair = Repair(
        scheme=name,
        candidate=candidate,
        split=holdout.split,
        rows=holdout.rows,
        steps=tuple(ladder.steps),
        outcome=_outcome(first, ladder),
        left_float=ladder.best.floats,
        passes=steps,
    )
    if not improved:
        return (), (repair,)
    outcomes = tuple(_explained(item, ladder.best.floats, sensitivities) for item in built.lowered.outcomes)
    notes = (*built.lowered.notes, f"made by the repair of {name}: {_how(ladder.best)}")
    lowered = replace(built.lowered, outcomes=outcomes, notes=notes)
    return (replace(built, scheme=candidate, lowered=lowered),), (repair,)


def _climb(ladder: Ladder, attempts: Attempts, sensitivities: list[Sensitivity]) -> None:
    """The rungs, in order; what cannot help this scheme says so."""
    scheme = attempts.scheme
    if scheme.needs_ranges:
        ladder.try_each("calibration", _methods(attempts))
    elif not ladder.done:
        ladder.skip("calibration", "another method", f"{scheme.name} needs no ranges")
    if not isinstance(attempts.models.compressed, Model):
        ladder.skip("conditioning", "passes on the graph", "the model stays a file that no pass can change")
    else:
        ladder.try_each("conditioning", _conditioning(attempts))
        ladder.try_each("bias correction", _bias(attempts))
    if not ladder.done and not ladder.spent:
        _fewest(ladder, attempts, sensitivities)
    if not ladder.done:
        _train(ladder, attempts.scheme)


def _methods(attempts: Attempts) -> Iterator[Change]:
    used = attempts.method(Trial()).name
    return ((name, functools.partial(_calibrated, name)) for name in _METHODS if name != used)


def _calibrated(method: CalibrationMethod, best: Trial) -> Trial:
    return replace(best, method=method)


def _conditioning(attempts: Attempts) -> Iterator[Change]:
    bits, granularity = _bits(attempts), attempts.scheme.granularity
    yield "equalize", lambda best: best.with_pass("equalize")
    yield (
        "equalize, ReLU6 replaced where few channels reach its bound",
        lambda best: best.with_pass("equalize", relu6="replace", beyond=0.02),
    )
    yield "smooth", lambda best: best.with_pass("smooth")
    yield f"clip_weights, {bits} bits", lambda best: best.with_pass("clip_weights", bits=bits, granularity=granularity)


def _bias(attempts: Attempts) -> Iterator[Change]:
    scheme, bits = attempts.scheme, _bits(attempts)
    static = scheme.activations == "static"

    def corrected(best: Trial) -> Trial:
        return best.with_pass(
            "correct_bias",
            bits=bits,
            granularity=scheme.granularity,
            activations="static" if static else "none",
            method=attempts.method(best).name,
            rows=attempts.site.plan.recipe.calibration.rows,
            include=scheme.include,
            exclude=scheme.exclude,
        )

    yield "correct_bias", corrected


def _fewest(ladder: Ladder, attempts: Attempts, sensitivities: list[Sensitivity]) -> None:
    """Layers back to float: their effect is measured on the file that is best so far, unless that was done already."""
    rung, settings = "layers back to float", attempts.site.plan.recipe.sensitivity
    built, _ = attempts.build(ladder.best)
    assert built.lowered is not None
    quantized = sum(item.precision != "float32" for item in built.lowered.outcomes)
    most = int(quantized * attempts.site.plan.recipe.repair.max_float)
    if most < 1:
        ladder.skip(rung, "any layer", f"of {quantized} quantized layers repair.max_float lets none go back")
        return
    if not sensitivities:
        started = ladder.clock()
        found = find_sensitivity(attempts, ladder.best, settings.model_copy(update={"mode": "alone"}))
        sensitivities.append(found)
        # It may take longer than all trials together, and would be for nothing if none of them followed.
        ladder.budget_s += ladder.clock() - started
    ladder.fewest(rung, back_to_float(sensitivities[0].layers), most)


def _train(ladder: Ladder, scheme: QuantScheme) -> None:
    """Quantization-aware training, where there are ranges to learn."""
    if scheme.activations == "static":
        ladder.try_each("training", [("qat", lambda best: best.with_pass("qat", scheme=scheme.name))])
    else:
        ladder.skip("training", "qat", f"{scheme.name} has no ranges to learn")


def _bits(attempts: Attempts) -> int:
    if attempts.scheme.dtype == "int4":
        return _FOUR
    target = attempts.site.target
    seven = target.runtime == "onnxruntime" and adds_in_16_bits(target.cpu) and target.flavour == "cpu"
    return _SEVEN if seven and attempts.scheme.activations != "none" else _EIGHT


def _outcome(first: Score, ladder: Ladder) -> str:
    if ladder.done:
        return f"repaired: {_how(ladder.best)}; before: {first.reason}"
    why = "the budget of time was spent" if ladder.spent else "nothing that was tried is enough"
    gained = "" if ladder.best == Trial() else f"; the best was {_how(ladder.best)}"
    return f"given up: {why}{gained}; still: {ladder.score.reason}"


def _how(trial: Trial) -> str:
    parts = [f"calibration by {trial.method}"] if trial.method else []
    parts += [kind for kind, _ in trial.passes]
    if trial.floats:
        parts.append(f"{len(trial.floats)} layer{'s' if len(trial.floats) > 1 else ''} in float")
    return ", ".join(parts) or "as it was"


def _explained(outcome: LayerOutcome, floats: tuple[str, ...], sensitivities: Sequence[Sensitivity]) -> LayerOutcome:
    """The outcome of a layer that the repair left in float, with the figure that was the reason."""
    if outcome.layer not in floats:
        return outcome
    effects = {item.layer: item for found in sensitivities for item in found.layers}
    effect = effects.get(outcome.layer)
    figure = f": alone it leaves {effect.sqnr_db:.1f} dB" if effect and effect.sqnr_db is not None else ""
    return replace(outcome, reason=f"left in float by the repair{figure}")


def _unused(name: str, taken: set[str]) -> str:
    number, result = 2, name
    while result in taken:
        result, number = f"{name}-{number}", number + 1
    return result

"""What each layer does to a scheme, measured on files in the target's own runtime, on validation rows."""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from compress.bench.duels import Fighter, Ring, in_turns
from compress.errors import CompressError, StoreError, WorkerError
from compress.evaluate.parity import parity
from compress.evidence import LayerEffect, Sensitivity, from_json, to_json
from compress.hosts.calls import run_outputs
from compress.recipe import QuantScheme, SensitivityConfig
from compress.runtimes.base import Lowered
from compress.search.ladder import Trial
from compress.search.sensitivity import most_harmful_first
from compress.workflow.attempts import Attempts, only_layer, without_layers
from compress.workflow.build import find_ranges, lower_float, quantize
from compress.workflow.measure import Arrays

# Processes and timed seconds of a layer: enough for an order, and there are many layers.
_PROCESSES, _SECONDS = 5, 0.1


def find_sensitivity(attempts: Attempts, trial: Trial, settings: SensitivityConfig) -> Sensitivity:
    """Returns the effect of every layer that a trial quantizes.

    Args:
        attempts: The scheme on its target.
        trial: How the whole scheme's file is made; conditioning and calibration are the same for every layer's file.
        settings: Rows, mode, and how many layers are timed.

    Raises:
        CompressError: If the whole scheme's file cannot be made or run.
    """
    site, progress = attempts.site, attempts.progress
    whole, _ = attempts.build(trial)
    assert whole.lowered is not None
    rows = _rows(attempts, settings.rows)
    said = f"{site.target.name}: {attempts.scheme.name}: sensitivity of its layers"
    progress.step(said)
    reference = _ask(attempts, attempts.floats.sha, rows)
    found = [item for item in whole.lowered.outcomes if item.precision != "float32"]
    effects = []
    for number, outcome in enumerate(found):
        scheme = (
            only_layer(attempts.scheme, outcome.layer)
            if settings.mode == "alone"
            else without_layers(attempts.scheme, (*trial.floats, outcome.layer))
        )
        effects.append(_effect(attempts, trial, scheme, outcome.layer, outcome.operator, reference, rows))
        progress.step(said)
        progress.advance(number + 1, len(found))
    ordered = most_harmful_first(effects)
    timed = _timed(attempts, trial, [item for item in ordered if not item.error][: settings.timed])
    return Sensitivity(
        attempts.scheme.name,
        settings.mode,
        site.holdout.split,
        len(next(iter(rows.values()))),
        tuple(timed.get(item.layer, item) for item in ordered),
    )


def _effect(
    attempts: Attempts,
    trial: Trial,
    scheme: QuantScheme,
    layer: str,
    operator: str,
    reference: Arrays,
    rows: Arrays,
) -> LayerEffect:
    try:
        file = _file(attempts, trial, scheme)
        step = attempts.site.key("effect", artifact=file, floats=attempts.floats.sha, rows=_digest(rows))
        kept = attempts.site.cache.get(step)
        if kept is not None:
            again: LayerEffect = from_json(LayerEffect, kept["effect"], step)
            return replace(again, layer=layer, operator=operator)
        decisions = {item.output: item.decision for item in attempts.site.holdout.questions}
        found = parity(reference, _ask(attempts, file, rows), name="float32", decisions=decisions)
        ratios = [item.sqnr_db for item in found if item.sqnr_db is not None]
        shares = [item.label_agreement for item in found if item.label_agreement is not None]
        effect = LayerEffect(layer, operator, min(ratios, default=None), min(shares, default=None))
        attempts.site.cache.put(step, {"effect": to_json(effect)})
        return effect
    except StoreError:
        raise
    except CompressError as error:
        return LayerEffect(layer, operator, None, None, error=error.message)


def _file(attempts: Attempts, trial: Trial, scheme: QuantScheme) -> str:
    """The sha of a file of another scheme, made as the trial says."""
    site = attempts.site
    model, _ = attempts.condition(trial)
    lowered: Lowered = lower_float(model, site.target.runtime, site.cache, attempts.progress)
    ranges = None
    if scheme.needs_ranges:
        found = find_ranges(
            model,
            lowered,
            attempts.models.dataset,
            attempts.label,
            site.plan,
            site.cache,
            attempts.progress,
            attempts.method(trial),
        )
        ranges = attempts.learned(trial, model, found)
    made = quantize(lowered, scheme, ranges, site.target, site.cache, attempts.progress)
    return hashlib.sha256(made.data).hexdigest()


def _timed(attempts: Attempts, trial: Trial, effects: Sequence[LayerEffect]) -> dict[str, LayerEffect]:
    """The effects with the time of the whole scheme with that layer in float, beside the whole scheme."""
    site, recipe = attempts.site, attempts.site.plan.recipe
    if not effects or not site.clock.tells_time:
        return {}
    whole, _ = attempts.build(trial)
    files = {}
    for item in effects:
        try:
            files[item.layer] = _file(attempts, trial, without_layers(attempts.scheme, (*trial.floats, item.layer)))
        except StoreError:
            raise
        except CompressError:
            # Its layer was the only one: without it there is no scheme to time.
            continue
    step = site.timed.key("layer-times", whole=whole.sha, files=files, seed=recipe.seed, rows=site.holdout.fingerprint)
    kept = site.cache.get(step)
    if kept is None:
        kept = {"times": _measure(attempts, whole.sha, files)}
        site.cache.put(step, kept)
    times: dict[str, Any] = kept["times"]
    return {
        item.layer: replace(item, float_ratio=times[item.layer][0], float_ms=times[item.layer][1])
        for item in effects
        if item.layer in times
    }


def _measure(attempts: Attempts, whole: str, files: dict[str, str]) -> dict[str, tuple[float, float]]:
    """Layer -> the ratio of times, in turns within a process, and the difference in milliseconds."""
    site, recipe = attempts.site, attempts.site.plan.recipe
    attempts.progress.step(f"{site.target.name}: {attempts.scheme.name}: timing {len(files)} layers in float")
    coin = np.random.default_rng(recipe.seed)
    found = {}
    with tempfile.TemporaryDirectory(prefix="edge-compress-") as folder:
        inputs = Path(folder) / "inputs.npz"
        batch = recipe.measure.batch
        first: Any = {name: array[:batch] for name, array in site.holdout.inputs.items()}
        np.savez(inputs, allow_pickle=False, **first)
        ring = Ring(site.target.runtime, inputs, batch, recipe.measure.timeout_s, _SECONDS)
        base = Fighter(site.cache.path(whole), site.target.threads)
        for done, (name, sha) in enumerate(files.items(), start=1):
            take = in_turns(site.clock, base, Fighter(site.cache.path(sha), site.target.threads), ring)
            try:
                samples = [take(bool(coin.integers(2))) for _ in range(_PROCESSES)]
            except WorkerError:
                continue
            ratio = math.exp(median(sample.log_ratio for sample in samples))
            base_ms = median((sample.judged_ms or (sample.baseline_ms,))[0] for sample in samples)
            found[name] = (ratio, (ratio - 1) * base_ms)
            attempts.progress.advance(done, len(files))
    return found


def _rows(attempts: Attempts, count: int) -> Arrays:
    """The first of the rows on which parity is measured: a sample in which every class is."""
    chosen = attempts.site.holdout.parity_rows
    spread = chosen[np.linspace(0, len(chosen) - 1, min(count, len(chosen))).astype(np.int64)]
    return {name: array[spread] for name, array in attempts.site.holdout.inputs.items()}


def _ask(attempts: Attempts, sha: str, rows: Arrays) -> Arrays:
    site = attempts.site
    return run_outputs(
        site.host,
        site.target.runtime,
        site.cache.path(sha),
        rows,
        threads=site.target.threads,
        batch=site.plan.recipe.measure.batch,
        timeout_s=site.timeout_s,
    )


def _digest(arrays: Arrays) -> str:
    hashed = hashlib.sha256()
    for name in sorted(arrays):
        hashed.update(name.encode() + np.ascontiguousarray(arrays[name]).tobytes())
    return hashed.hexdigest()

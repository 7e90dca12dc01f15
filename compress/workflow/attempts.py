"""One scheme on one target, made in another way and judged on rows that are not test rows."""

from __future__ import annotations

import glob
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from compress.calibrate import Method, Ranges
from compress.errors import LoweringError
from compress.evidence import Candidate, StepInfo, from_json, to_json
from compress.gate import judge
from compress.model.core import Model
from compress.model.onnx_file import OnnxFile
from compress.passes.base import Context, run_pass
from compress.recipe import GateConfig, QuantScheme
from compress.runtimes.base import Lowered
from compress.search.choose import loss
from compress.search.ladder import Score, Trial
from compress.store.cache import digest
from compress.target import Budgets
from compress.workflow.build import Built, Models, find_ranges, lower_float, quantize
from compress.workflow.kept import keep, kept
from compress.workflow.measure import Arrays, Site, judge_quality, score
from compress.workflow.passes import step_info, without_test_rows
from compress.workflow.progress import Progress
from compress.workflow.review import review_candidate

# Explanations cost as much as all else together, and are judged on the test rows anyway.
_NOT_JUDGED = {"max_attribution_drift": None, "max_reason_code_changes": None}


@dataclass
class Attempts:
    """Builds and judges trials of one scheme; finished ones are kept.

    Attributes:
        models: The Models of the run.
        scheme: What is repaired.
        baseline: The original's file.
        floats: The float32 file of the compressed Model.
        site: The target, with rows of the validation split.
        label: The label by which calibration rows are drawn.
        progress: Told what is happening.
    """

    models: Models
    scheme: QuantScheme
    baseline: Built
    floats: Built
    site: Site
    label: str | None
    progress: Progress
    answers: dict[str, Arrays] = field(default_factory=dict)
    _conditioned: dict[tuple[Any, ...], tuple[Model, tuple[StepInfo, ...]]] = field(default_factory=dict)
    _learned: dict[tuple[Any, ...], Mapping[str, tuple[float, float]]] = field(default_factory=dict)
    _made: dict[Trial, tuple[Built, tuple[StepInfo, ...]]] = field(default_factory=dict)

    def __call__(self, trial: Trial) -> Score:
        """Returns how a trial did.

        Raises:
            CompressError: If it cannot be built or run.
        """
        step = self.site.key(
            "attempt",
            model=self.models.compressed.digest,
            baseline=self.baseline.sha,
            scheme=self.scheme.model_dump(mode="json"),
            trial=[trial.method, trial.passes, trial.floats],
            rows=self.site.holdout.fingerprint,
            cpu=self.site.target.cpu,
            flavour=self.site.target.flavour,
            recipe=self.site.plan.recipe.model_dump(
                mode="json", include={"calibration", "gate", "evaluate", "measure", "seed", "task", "tasks", "segments"}
            ),
        )
        known = kept(self.site.cache, step)
        if known is not None:
            lowered, told = known
            steps = tuple(from_json(StepInfo, text, step) for text in told["steps"])
            self._made[trial] = (self._built(lowered), steps)
            # What went into it was used by this run, too: the same result has the same key.
            self.site.cache.reused.extend(told.get("used", ()))
            given: Score = Score(**told["score"])
            return given
        started, before = time.monotonic(), {*self.site.cache.made, *self.site.cache.reused}
        built, steps = self.build(trial)
        assert built.lowered is not None
        found = replace(self.judge(built), seconds=time.monotonic() - started)
        used = sorted({*self.site.cache.made, *self.site.cache.reused} - before)
        texts = [to_json(item) for item in steps]
        keep(self.site.cache, step, built.lowered, steps=texts, score=vars(found), used=used)
        return found

    def build(self, trial: Trial) -> tuple[Built, tuple[StepInfo, ...]]:
        """Returns the file of a trial and what its passes did."""
        if trial not in self._made:
            model, steps = self.condition(trial)
            plan, cache, dataset = self.site.plan, self.site.cache, self.models.dataset
            lowered = lower_float(model, self.site.target.runtime, cache, self.progress)
            scheme = without_layers(self.scheme, trial.floats)
            ranges = None
            if scheme.needs_ranges:
                method = self.method(trial)
                found = find_ranges(model, lowered, dataset, self.label, plan, cache, self.progress, method)
                ranges = self.learned(trial, model, found)
            made = quantize(lowered, scheme, ranges, self.site.target, cache, self.progress)
            self._made[trial] = (self._built(made), steps)
        return self._made[trial]

    def judge(self, built: Built) -> Score:
        """Returns how a file does on the rows of the site: the recipe's policy, without the device's budgets."""
        site, policy = self.site, self.site.plan.recipe.gate.model_copy(update=_NOT_JUDGED)
        if self.baseline.scheme not in self.answers:
            self.answers[self.baseline.scheme] = score(self.baseline, site)
        answers = {**self.answers, built.scheme: score(built, site)}
        candidate = judge_quality(built, self.baseline, answers, site)
        candidate = replace(candidate, reviews=review_candidate(built, self.baseline, answers, site, {}))
        margins = {item.name: item.margin for item in site.holdout.questions if item.margin is not None}
        return _scored(candidate, policy, margins)

    def _built(self, lowered: Lowered) -> Built:
        return Built(self.scheme.name, self.models.compressed, lowered, digest(lowered.data))

    def method(self, trial: Trial) -> Method:
        """Returns the calibration method of a trial."""
        settings = self.site.plan.recipe.calibration
        return replace(Method.of(settings), name=trial.method or settings.method)

    def condition(self, trial: Trial) -> tuple[Model, tuple[StepInfo, ...]]:
        """Returns the Model behind a trial's passes and what they did; what another trial did is not done again."""
        compressed = self.models.compressed
        if not trial.passes:
            return compressed, ()  # type: ignore[return-value]
        if not isinstance(compressed, Model):
            raise LoweringError(f"no pass can change the model: it stays a file, {compressed.reason}")
        if trial.passes not in self._conditioned:
            model, steps = self.condition(replace(trial, passes=trial.passes[:-1]))
            kind, options = trial.passes[-1]
            self.progress.step(f"{self.site.target.name}: {self.scheme.name}: {kind}")
            result = run_pass(kind, model, without_test_rows(self.models.dataset), self._context(dict(options)))
            self._learned[trial.passes] = result.ranges
            self._conditioned[trial.passes] = (result.model, (*steps, step_info(kind, model, result)))
        return self._conditioned[trial.passes]

    def learned(self, trial: Trial, model: Model | OnnxFile, calibrated: Ranges) -> Ranges:
        """Returns the ranges of a trial's Model with those that its last pass, or the recipe's passes, found."""
        if self._learned.get(trial.passes):
            return calibrated.learned(self._learned[trial.passes])
        return self.models.learned(model, calibrated)

    def _context(self, options: dict[str, Any]) -> Context:
        plan, original = self.site.plan, self.models.original
        return Context(
            seed=plan.recipe.seed,
            options=options,
            where="repair",
            folder=plan.folder,
            tasks=self.site.holdout.tasks,
            original=original if isinstance(original, Model) else None,
            schemes={self.scheme.name: self.scheme},
            targets=(self.site.target,),
        )


def without_layers(scheme: QuantScheme, names: tuple[str, ...]) -> QuantScheme:
    """Returns a scheme that leaves these layers in float, too."""
    return scheme.model_copy(update={"exclude": (*scheme.exclude, *(glob.escape(name) for name in names))})


def only_layer(scheme: QuantScheme, name: str) -> QuantScheme:
    """Returns a scheme that quantizes this layer alone."""
    return scheme.model_copy(update={"include": (glob.escape(name),), "exclude": ()})


def _scored(candidate: Candidate, policy: GateConfig, margins: dict[str, float]) -> Score:
    verdict = judge(candidate, policy, Budgets(), margins, ())
    noise = max((10 ** (-item.sqnr_db / 10) for item in candidate.parity if item.sqnr_db is not None), default=0.0)
    return Score(verdict.status, loss(candidate), noise, verdict.reason)

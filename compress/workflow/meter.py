"""What passes measure with: Models lowered as a run lowers them, and timed in turns in the target's worker."""

from __future__ import annotations

import functools
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from compress.bench.duels import Fighter, Ring, in_turns
from compress.bench.race import Sample
from compress.bench.statistics import ratio_interval
from compress.data.base import Dataset
from compress.evidence import from_json, to_json
from compress.hosts import Host, timing_host
from compress.model.core import Model
from compress.passes.base import Context, Meter, Timing, run_pass
from compress.store.cache import Cache, key
from compress.target import Target
from compress.workflow.build import finish, lower_float
from compress.workflow.engine import built
from compress.workflow.machines import known_as
from compress.workflow.plan import Plan, versions
from compress.workflow.progress import Progress, Silent

# Timed seconds of a process, both sides together.
SECONDS = 0.15
_LEVEL = 0.95
# Folded Models that are remembered: a baseline comes again at once, with its next candidate.
_FOLDED = 3


@dataclass
class TargetMeter:
    """Times pairs of Models on one target; see `compress.passes.base.Meter`.

    1. Batch normalisation is folded and the file is the float32 one, as where a run measures.
    2. A Model whose inputs are the data's gets calibration rows, never test rows; a part of one gets drawn ones.
    3. What was timed is kept under the digests of both Models, the target and the versions of its packages. The file of
       a baseline is kept, too, since it meets several candidates; that of a candidate is not.

    Attributes:
        on: The target.
        plan: How much is measured: rows a call, when a worker counts as hung, the seed.
        dataset: Where the rows come from.
        cache: Finished steps.
        machine: Processor and features: figures of another machine are not reused.
        progress: Told what is being timed.
    """

    on: Target
    plan: Plan
    dataset: Dataset
    cache: Cache
    machine: str
    progress: Progress
    _folded: dict[str, Model] = field(default_factory=dict, init=False, repr=False)

    @functools.cached_property
    def _host(self) -> Host:
        # Opened with the first pair: a target that takes no times is none that a pass must time on.
        return timing_host(self.on)

    @functools.cached_property
    def _there(self) -> str:
        return known_as(self._host, self.on.runtime)

    @property
    def target(self) -> str:
        """The target's name."""
        return self.on.name

    @property
    def width_multiple(self) -> int | None:
        """The multiple that widths keep to on this target; None where its file does not say."""
        return self.on.width_multiple

    def race(self, title: str, pairs: Sequence[tuple[Model, Model]], processes: int) -> list[Timing]:
        """Times each pair; see `Meter.race`."""
        self.progress.step(f"{self.on.name}: timing {title}")
        found = []
        for done, pair in enumerate(pairs, start=1):
            found.append(self._kept(pair, processes))
            self.progress.advance(done, len(pairs))
        return found

    def _kept(self, pair: tuple[Model, Model], processes: int) -> Timing:
        settings = self.plan.recipe.measure
        step = key(
            "duel",
            baseline=pair[0].digest,
            candidate=pair[1].digest,
            processes=processes,
            seconds=SECONDS,
            batch=settings.batch,
            seed=self.plan.recipe.seed,
            runtime=self.on.runtime,
            host=self.on.host,
            threads=self.on.threads,
            job=self.on.job_settings,
            format=[self.on.format, self.on.target_platform],
            cpu=self.on.cpu,
            machine=self._there or self.machine,
            versions=versions(self.on.runtime),
        )
        kept = self.cache.get(step)
        if kept is not None:
            timing: Timing = from_json(Timing, kept["timing"], step)
            return timing
        with tempfile.TemporaryDirectory(prefix="edge-compress-") as name:
            folder = Path(name)
            one = self._fighter(pair[0], folder / "one", self.cache)
            other = one if pair[0] is pair[1] else self._fighter(pair[1], folder / "other", Cache(folder / "cache"))
            ring = Ring(self.on.runtime, folder, settings.batch, settings.timeout_s, SECONDS)
            take = in_turns(self._host, one, other, ring)
            coin = np.random.default_rng(self.plan.recipe.seed)
            timing = _timing([take(bool(coin.integers(2))) for _ in range(processes)], self.plan.recipe.seed)
        self.cache.put(step, {"timing": to_json(timing)})
        return timing

    def _fighter(self, model: Model, folder: Path, cache: Cache) -> Fighter:
        folder.mkdir()
        if model.digest not in self._folded:
            folded = run_pass("fold_batch_norm", model, None, Context(), allow_no_change=True).model
            self._folded = {model.digest: folded, **dict([*self._folded.items()][:_FOLDED])}
        lowered = lower_float(self._folded[model.digest], self.on.runtime, cache, Silent())
        lowered = finish(lowered, self.on, cache, Silent())
        lowered = built(lowered, "float32", self.on, self.plan, cache, Silent())
        path, inputs = folder / f"model{lowered.suffix}", folder / "inputs.npz"
        path.write_bytes(lowered.data)
        for item in lowered.beside:
            item.lay(folder)
        np.savez(inputs, allow_pickle=False, **self._rows(model))
        return Fighter(path, self.on.threads, inputs)

    def _rows(self, model: Model) -> Mapping[str, NDArray[np.generic]]:
        batch = self.plan.recipe.measure.batch
        wanted = {item.name: item.shape for item in model.signature.inputs}
        if wanted == {item.name: item.shape for item in self.dataset.reader.signature()}:
            return self.dataset.reader.read(np.resize(self.dataset.split("calibration"), batch))
        random = np.random.default_rng(self.plan.recipe.seed)
        return {
            item.name: random.standard_normal((batch, *item.shape)).astype(item.dtype)
            if item.dtype.startswith("float")
            else np.ones((batch, *item.shape), item.dtype)
            for item in model.signature.inputs
        }


def meters(plan: Plan, dataset: Dataset, cache: Cache, machine: str, progress: Progress) -> dict[str, Meter]:
    """Returns what measures on each target of a recipe, in its order."""
    return {target.name: TargetMeter(target, plan, dataset, cache, machine, progress) for target in plan.targets}


def _timing(samples: Sequence[Sample], seed: int) -> Timing:
    """The times of both sides on the clock that judged them, and their ratio process by process."""
    judged = [sample.judged_ms or (sample.baseline_ms, sample.candidate_ms) for sample in samples]
    logs = [sample.log_ratio for sample in samples]
    interval = ratio_interval([1.0] * len(logs), [math.exp(value) for value in logs], level=_LEVEL, seed=seed)
    ratio, baseline_ms = math.exp(median(logs)), median(pair[0] for pair in judged)
    return Timing(baseline_ms, baseline_ms * ratio, ratio, interval.low, interval.high, len(samples))

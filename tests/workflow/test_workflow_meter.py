"""What passes measure with, on the real runtime, and a goal of time through a whole run."""

from __future__ import annotations

from typing import Any

import pytest
from tiny_project import Project, check_whole

from compress.bench.duels import Fighter
from compress.errors import RecipeError
from compress.passes.base import Context, Timing, run_pass
from compress.store.cache import Cache
from compress.workflow import meter as metering
from compress.workflow.build import open_model
from compress.workflow.meter import TargetMeter, meters
from compress.workflow.plan import load_rows, make_plan
from compress.workflow.progress import Silent

WIDE = {"model": {"arguments": {"width": 384}, "weights": None}, "schemes": ["float32"]}


class Told(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.titles: list[str] = []
        self.done: list[tuple[int, int]] = []

    def step(self, title: str) -> None:
        self.titles.append(title)

    def advance(self, done: int, total: int) -> None:
        self.done.append((done, total))


def measuring(project: Project, told: Told) -> tuple[TargetMeter, Any]:
    plan = make_plan(project.load(), project.folder, "recipe.toml")
    dataset, _ = load_rows(plan)
    source = open_model(plan, dataset, Silent())
    made = meters(plan, source.dataset, Cache(project.folder / "cache"), "a machine", told)
    meter = made["onnxruntime-cpu"]
    assert isinstance(meter, TargetMeter)
    return meter, source


def test_half_the_width_takes_less_time_and_is_timed_once(project: Project) -> None:
    told = Told()
    meter, source = measuring(project.change(**WIDE), told)
    half = run_pass("prune", source.source, None, Context(options={"ratio": 0.5})).model
    (timing,) = meter.race("the cut model", [(source.source, half)], 3)
    assert timing.low <= timing.ratio <= timing.high
    assert timing.ratio < 0.8
    assert timing.ms == pytest.approx(timing.baseline_ms * timing.ratio)
    assert (meter.target, meter.width_multiple) == ("onnxruntime-cpu", None)
    assert told.titles == ["onnxruntime-cpu: timing the cut model"]
    assert told.done == [(1, 1)]
    # A second meter over the same cache asks no worker.
    again, _ = measuring(project, told)
    assert again.race("the cut model", [(source.source, half)], 3) == [timing]
    assert len(again.cache.reused) == 1 and not again.cache.made
    # Files of candidates are not kept.
    assert not list((project.folder / "cache" / "objects").rglob("*.onnx"))


def test_another_machine_or_version_is_timed_anew(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told()
    meter, source = measuring(project.change(**WIDE), told)
    calls = []

    def timing(samples: object, seed: int) -> Timing:
        calls.append(samples)
        return Timing(1.0, 1.0, 1.0, 1.0, 1.0, 1)

    monkeypatch.setattr(metering, "in_turns", lambda host, one, other, ring: lambda flip: (one, other))
    monkeypatch.setattr(metering, "_timing", timing)
    pair = [(source.source, source.source)]
    for changes in ({}, {}, {"machine": "another"}):
        for key, value in changes.items():
            setattr(meter, key, value)
        meter.race("it", pair, 1)
    assert len(calls) == 2
    (fighters,) = calls[0]
    assert all(isinstance(side, Fighter) and side.inputs is not None for side in fighters)


@pytest.mark.slow
def test_a_speed_up_is_met_through_a_whole_run(project: Project) -> None:
    project.change(**WIDE, passes=[{"kind": "prune", "speedup": 1.5, "importance": "taylor", "importance_rows": 16}])
    outcome = project.run()
    evidence = project.evidence()
    (step,) = [step for step in evidence.steps if step.kind == "prune"]
    said = next(line for line in step.changed if line.startswith("latency on onnxruntime-cpu: "))
    assert "measured in turns" in said
    share = float(said.split("measured in turns: ")[1].split()[0])
    missed = [reason for where, reason in step.skipped if where == "speedup 1.5 on onnxruntime-cpu"]
    assert abs(share * 1.5 - 1) <= 0.051 or missed
    assert evidence.compressed.macs < evidence.model.macs
    assert any("taylor, cost" in line for line in step.changed)
    check_whole(project.out)
    assert outcome.made
    # Nothing is measured again, and the plan is the same.
    assert project.run().made == 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"ratio": 1.5}, r"recipe.toml: passes\[0\]: ratio must be less than 1; got 1.5"),
        ({"speedup": 2.0, "macs": 0.5}, "got macs and speedup"),
        ({"speedup": 2.0, "target": "litert-cpu"}, "the recipe has no target 'litert-cpu'"),
    ],
)
def test_options_that_cannot_be_are_told_first(project: Project, options: dict[str, Any], told: str) -> None:
    project.change(passes=[{"kind": "prune", **options}])
    with pytest.raises(RecipeError, match=told):
        project.run()

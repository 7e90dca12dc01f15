"""Passes that train, in a run: kept when finished, resumed when not, blind to the test rows, their ranges consumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tiny_project import Project

from compress.errors import RecipeError
from compress.recipe import BUILTIN_SCHEMES
from compress.store.cache import Cache
from compress.workflow import passes as running
from compress.workflow.build import Models, build_models, find_ranges, lower_float, open_model, quantize
from compress.workflow.holdout import take_holdout
from compress.workflow.plan import Plan, load_rows, make_plan
from compress.workflow.progress import Silent

TRAIN = {"kind": "train", "epochs": 3, "batch": 64, "learning_rate": 0.01, "allow_no_change": True, "device": "cpu"}
# Untrained weights, so that there is something to learn.
FRESH: dict[str, Any] = {"model": {"weights": None}}
QAT = {**TRAIN, "kind": "qat", "labels": 1.0, "monitor": "loss", "learning_rate": 0.01}


class Told(Silent):
    """Keeps what is said; ends the run at a sentence that holds `until`."""

    def __init__(self, until: str = "") -> None:
        self.said: list[str] = []
        self.until = until

    def step(self, title: str) -> None:
        self.said.append(title)
        if self.until and self.until in title:
            raise KeyboardInterrupt

    @property
    def epochs(self) -> int:
        return sum(", epoch " in title for title in self.said)


def built(project: Project, folder: Path | None, told: Told) -> tuple[Models, Plan]:
    plan = make_plan(project.load(), project.folder, "recipe.toml")
    dataset, labels = load_rows(plan)
    opened = open_model(plan, dataset, told)
    tasks = take_holdout(opened, labels, plan).tasks
    return build_models(opened, plan, tasks, Cache(folder) if folder else None, told), plan


def test_a_finished_pass_is_kept_and_gives_the_same_model(project: Project, tmp_path: Path) -> None:
    project.change(**FRESH, passes=[TRAIN])
    first, again = Told(), Told()
    one, _ = built(project, tmp_path / "cache", first)
    other, _ = built(project, tmp_path / "cache", again)
    assert (first.epochs, again.epochs) == (3, 0)
    assert one.compressed.digest == other.compressed.digest != one.original.digest
    assert one.steps == other.steps and one.steps[0].training is not None
    assert one.steps[0].training.scores[0].name == "auc"
    alone, _ = built(project, None, Told())
    assert alone.compressed.digest == one.compressed.digest
    # Another option is another step.
    project.change(**FRESH, passes=[{**TRAIN, "epochs": 2}])
    changed = Told()
    built(project, tmp_path / "cache", changed)
    assert changed.epochs == 2


def test_a_pass_that_was_interrupted_goes_on(project: Project, tmp_path: Path) -> None:
    project.change(**FRESH, passes=[TRAIN])
    whole, _ = built(project, None, Told())
    with pytest.raises(KeyboardInterrupt):
        built(project, tmp_path / "cache", Told(until="epoch 3 of 3"))
    rest = Told()
    resumed, _ = built(project, tmp_path / "cache", rest)
    assert rest.epochs == 1
    assert resumed.compressed.digest == whole.compressed.digest


def test_what_a_teacher_answered_serves_the_next_pass(project: Project, tmp_path: Path) -> None:
    distill = {**TRAIN, "kind": "distill", "epochs": 1}
    project.change(**FRESH, passes=[distill, {**distill, "temperature": 4.0}])
    told = Told()
    built(project, tmp_path / "cache", told)
    assert sum("the teacher answered" in title for title in told.said) == 1
    assert sum("the teacher's answers were there already" in title for title in told.said) == 1


def test_no_pass_sees_the_test_rows(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    real = running.run_pass

    def spied(kind: str, model: Any, data: Any, ctx: Any, **given: Any) -> Any:
        seen.append(sorted(data.splits))
        return real(kind, model, data, ctx, **given)

    monkeypatch.setattr(running, "run_pass", spied)
    project.change(**FRESH, passes=[TRAIN])
    built(project, None, Told())
    assert seen == [["calibration", "train", "validation"]]


def test_a_file_that_an_option_names_belongs_to_the_step(project: Project, tmp_path: Path) -> None:
    text = (project.folder / "model.py").read_text(encoding="utf-8")
    project.write("small.py", text.replace("width=16", "width=4"))
    project.change(**FRESH, passes=[{**TRAIN, "kind": "distill", "student": {"source": "small.py:build"}}])
    first, again, other = Told(), Told(), Told()
    built(project, tmp_path / "cache", first)
    built(project, tmp_path / "cache", again)
    project.write("small.py", text.replace("width=16", "width=5"))
    models, _ = built(project, tmp_path / "cache", other)
    assert first.epochs == other.epochs == 3 and again.epochs == 0
    assert models.compressed.program.state_dict["first.weight"].shape == (5, 6)


def test_trained_ranges_are_those_of_the_file(project: Project, tmp_path: Path) -> None:
    project.change(**FRESH, passes=[QAT], schemes=["float32", "int8-static"])
    models, plan = built(project, tmp_path / "cache", Told())
    again, _ = built(project, tmp_path / "cache", Told())
    assert models.ranges and dict(models.ranges) == dict(again.ranges)
    cache, silent = Cache(tmp_path / "files"), Silent()
    (target,) = plan.targets
    floats = lower_float(models.compressed, target.runtime, cache, silent)
    ranges = find_ranges(models.compressed, floats, models.dataset, None, plan, cache, silent)
    low, high = models.ranges["features"]
    assert ranges.values["features"] != (low, high)
    scheme = BUILTIN_SCHEMES["int8-static"]
    file = quantize(floats, scheme, ranges.learned(models.ranges), target, cache, silent)
    assert input_scale(file.data) == pytest.approx((high - low) / 255, rel=1e-5)
    assert "learned" in " ".join(file.notes)
    assert input_scale(quantize(floats, scheme, ranges, target, cache, silent).data) != pytest.approx(
        (high - low) / 255, rel=1e-3
    )


def input_scale(data: bytes) -> float:
    graph = onnx.load_from_string(data).graph
    node = next(node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] == "features")
    held = {item.name: item for item in graph.initializer}
    return float(numpy_helper.to_array(held[node.input[1]]))


@pytest.mark.parametrize("kind", ["train", "distill", "qat"])
def test_a_wrong_option_is_told_before_anything_is_read(project: Project, kind: str) -> None:
    project.change(
        data={"source": "not-there.csv"}, passes=[{"kind": "prune", "macs": 0.5}, {"kind": kind, "epoch": 2}]
    )
    with pytest.raises(RecipeError, match=rf"recipe.toml: passes\[1\]: {kind}: unknown key 'epoch'"):
        make_plan(project.load(), project.folder, "recipe.toml")


@pytest.mark.usefixtures("canned_latency")
def test_a_run_ships_what_was_trained_to_be_rounded(project: Project) -> None:
    project.change(**FRESH, passes=[QAT], schemes=["float32", "int8-static"]).run()
    evidence = project.evidence()
    (step,) = evidence.steps
    assert step.training is not None and any("ranges" in item for item in step.changed)
    static = evidence.targets[0].candidates[2].artifact
    assert static is not None and any("learned" in note for note in static.notes)
    models, _ = built(project, None, Told())
    low, high = models.ranges["features"]
    assert input_scale((project.out / static.file).read_bytes()) == pytest.approx((high - low) / 255, rel=1e-5)
    page = (project.out / "report.html").read_text(encoding="utf-8")
    assert "Validation rows, teacher beside student" in page and "auc of the validation rows" in page
    assert "| validation rows | teacher | before | after |" in (project.out / "report.md").read_text(encoding="utf-8")
    assert project.run().made == 0


def test_a_pass_behind_trained_ranges_is_refused(project: Project) -> None:
    project.change(**FRESH, passes=[QAT, TRAIN])
    with pytest.raises(RecipeError, match=r"passes\[1\] \(train\) changes a graph whose ranges an earlier pass found"):
        built(project, None, Told())


def test_rows_without_labels_come_from_a_second_file(project: Project) -> None:
    import pandas as pd

    frame = pd.read_csv(project.folder / "rows.csv")
    frame[["customer", "income", "debt", "age", "limit", "late", "months", "group"]].head(50).to_csv(
        project.folder / "more.csv", index=False
    )
    project.change(**FRESH, data={"unlabelled": "more.csv"}, passes=[{**TRAIN, "kind": "distill"}])
    models, plan = built(project, None, Told())
    more = models.dataset.unlabelled
    assert more is not None and more.rows == 50
    np.testing.assert_array_equal(
        more.reader.read(np.arange(50))["features"], models.dataset.reader.read(np.arange(50))["features"]
    )
    assert models.steps[0].training is not None
    assert models.steps[0].training.rows == len(models.dataset.split("train")) + 50
    # They are rows of the test split, too: whoever reads the report is told.
    from compress.workflow.subjects import find_leaks

    leak = next(item for item in find_leaks(models.dataset) if item.other == "unlabelled")
    assert 0 < leak.rows < 50
    frame.drop(columns="age").to_csv(project.folder / "more.csv", index=False)
    with pytest.raises(Exception, match=r"data.unlabelled: the input 'features' is \[6\] float32 in rows.csv, \[5\]"):
        load_rows(plan)

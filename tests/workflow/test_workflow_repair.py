"""Sensitivity and repair in the main job: measured on files, decided on validation rows, told in the report."""

from __future__ import annotations

import pytest

from compress.errors import RecipeError
from compress.search.ladder import Trial
from compress.workflow.attempts import Attempts

pytestmark = pytest.mark.usefixtures("canned_latency")

# The validation split has 78 rows: a rare loss up to 0.08 could lie among rows that it does not hold.
FEW_ROWS = {"auc_margin": 0.1}


def only(evidence):
    (target,) = evidence.targets
    return target


def test_a_scheme_that_fails_is_repaired_and_measured_on_the_test_rows(project):
    project.change(
        schemes=["float32", "int8-static"],
        gate={**FEW_ROWS, "min_sqnr_db": 44.0},
        repair={"enabled": True, "max_float": 0.7},
        sensitivity={"rows": 60, "timed": 2},
    ).run()
    target = only(project.evidence())
    (repair,) = target.repairs
    assert (repair.scheme, repair.candidate, repair.split) == ("int8-static", "int8-static-repaired", "validation")
    assert repair.outcome.startswith("repaired: ")
    rungs = list(dict.fromkeys(step.rung for step in repair.steps))
    assert rungs[0] == "calibration"
    assert [step.kept for step in repair.steps if step.status == "PASS"][-1:] == [True]
    assert [item.scheme for item in target.candidates] == ["float32", "int8-static", "int8-static-repaired"]
    repaired = target.candidates[-1]
    assert repaired.artifact is not None
    assert repaired.parity[0].sqnr_db > target.candidates[1].parity[0].sqnr_db
    assert target.verdicts["int8-static"].status == "FAIL"
    assert any("made by the repair of int8-static" in note for note in repaired.artifact.notes)
    floats = {item.layer: item.reason for item in repaired.artifact.layers if item.precision == "float32"}
    assert set(floats) == set(repair.left_float)
    assert all(reason.startswith("left in float by the repair: alone it leaves") for reason in floats.values())
    assert (project.out / "current" / repaired.artifact.file).is_file()
    report = (project.out / "report.md").read_text()
    assert "### Repair" in report
    assert repair.steps[0].tried in report
    page = (project.out / "report.html").read_text()
    assert "Attempts to repair int8-static, in order" in page


@pytest.mark.slow
def test_a_second_run_reuses_every_attempt(project, monkeypatch):
    changes = {
        "schemes": ["float32", "int8-static"],
        "gate": {"min_sqnr_db": 44.0},
        "repair": {"enabled": True, "max_float": 0.7},
        "sensitivity": {"rows": 60, "timed": 0},
    }
    project.change(**changes)
    first = project.run()
    judged = []
    monkeypatch.setattr(Attempts, "judge", lambda self, built: judged.append(built))
    second = project.run()
    assert not judged
    assert second.evidence == first.evidence


@pytest.mark.slow
def test_what_cannot_be_repaired_is_given_up_and_said_so(project):
    project.change(
        schemes=["float32", "int8-dynamic"],
        gate={"min_sqnr_db": 130.0},
        repair={"enabled": True, "max_float": 0.34},
        sensitivity={"rows": 40, "timed": 1},
    ).run()
    target = only(project.evidence())
    (repair,) = target.repairs
    assert repair.outcome.startswith("given up: nothing that was tried is enough")
    assert "less than the bound 130.0 dB" in repair.outcome
    reasons = {step.rung: step.reason for step in repair.steps if step.status is None}
    assert reasons["calibration"] == "int8-dynamic needs no ranges"
    assert reasons["training"] == "int8-dynamic has no ranges to learn"
    assert any(step.tried == "smooth" and "changed nothing" in step.reason for step in repair.steps)
    assert target.choice.scheme == "float32"


@pytest.mark.slow
def test_a_scheme_that_passes_is_left_alone(project):
    project.change(gate=FEW_ROWS, repair={"enabled": True}).run()
    assert only(project.evidence()).repairs == ()
    assert "### Repair" not in (project.out / "report.md").read_text()


def test_the_budget_ends_a_repair(project):
    project.change(
        schemes=["float32", "int8-static"], gate={"min_sqnr_db": 130.0}, repair={"enabled": True, "budget_s": 1e-9}
    ).run()
    (repair,) = only(project.evidence()).repairs
    assert repair.outcome.startswith("given up: the budget of time was spent")
    assert all(step.status is None for step in repair.steps)
    assert repair.candidate == ""


@pytest.mark.parametrize("mode", ["alone", "without"])
def test_the_sensitivity_of_every_quantized_layer_is_in_the_report(project, mode):
    project.change(
        schemes=["float32", "int8-static"],
        sensitivity={"schemes": ["int8-static"], "rows": 50, "timed": 2, "mode": mode},
    ).run()
    (found,) = only(project.evidence()).sensitivities
    assert (found.scheme, found.mode, found.split, found.rows) == ("int8-static", mode, "validation", 50)
    assert {item.layer for item in found.layers} == {"first", "second", "head"}
    assert all(item.sqnr_db > 10 and 0.5 < item.agreement <= 1 for item in found.layers)
    assert sum(item.float_ms is not None for item in found.layers) == 2
    ordered = [item.sqnr_db for item in found.layers]
    assert ordered == sorted(ordered)
    report = (project.out / "report.md").read_text()
    assert "### Sensitivity" in report
    assert "SQNR, alone quantized" in report if mode == "alone" else "SQNR, alone in float" in report
    assert "Layers of int8-static" in (project.out / "report.html").read_text()


def test_one_layer_alone_errs_less_than_all_of_them(project):
    project.change(
        schemes=["float32", "int8-static"], sensitivity={"schemes": ["int8-static"], "rows": 200, "timed": 0}
    ).run()
    target = only(project.evidence())
    (found,) = target.sensitivities
    whole = target.candidates[1].parity[0].sqnr_db
    assert all(item.sqnr_db > whole - 1 for item in found.layers)


def test_test_rows_decide_nothing(project):
    """Other labels of the test rows change no step of the repair."""
    changes = {
        "schemes": ["float32", "int8-static"],
        "gate": {"min_sqnr_db": 44.0},
        "repair": {"enabled": True, "max_float": 0.7},
        "sensitivity": {"rows": 60, "timed": 0},
        "data": {"split": {"by": "column", "column": "part"}},
    }
    import pandas as pd

    frame = pd.read_csv(project.folder / "rows.csv")
    parts = ["train", "calibration", "validation", "test"]
    frame["part"] = [parts[index % 4] for index in range(len(frame))]
    frame.to_csv(project.folder / "rows.csv", index=False)
    project.change(**changes).run()
    first = only(project.evidence()).repairs[0]
    frame.loc[frame["part"] == "test", "income"] *= 3
    frame.to_csv(project.folder / "rows.csv", index=False)
    project.run()
    second = only(project.evidence()).repairs[0]
    assert [(step.rung, step.tried, step.status, step.loss, step.sqnr_db) for step in first.steps] == [
        (step.rung, step.tried, step.status, step.loss, step.sqnr_db) for step in second.steps
    ]


def test_a_scheme_whose_layers_are_to_be_looked_at_must_be_an_integer_one_that_is_tried(project):
    with pytest.raises(RecipeError, match=r"sensitivity.schemes: 'float32' is no integer scheme"):
        project.change(sensitivity={"schemes": ["float32"]}).run()
    with pytest.raises(RecipeError, match=r"sensitivity.schemes: 'int4-weights' is no integer scheme of schemes"):
        project.change(sensitivity={"schemes": ["int4-weights"]}).run()


def test_a_trial_is_a_value():
    assert Trial().with_pass("a", x=1) == Trial(passes=(("a", (("x", 1),)),))

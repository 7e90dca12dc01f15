"""The main job on a small real model: what it leaves behind, and what a second run takes from the first."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from tiny_project import FEATURES, ROWS, Project, check_whole, rows, tree

from compress.evidence import Candidate, from_json, load_evidence, to_json
from compress.store.cache import key
from compress.workflow import plan as planning
from compress.workflow import run as running
from compress.workflow.build import Models, build_models, open_model
from compress.workflow.plan import load_rows, make_plan
from compress.workflow.progress import Silent

SCHEMES = ("float32", "int8-static", "int8-dynamic")


def test_a_run_leaves_a_whole_result(finished: Project) -> None:
    manifest = check_whole(finished.out)
    assert {path.name for path in finished.out.iterdir() if not path.name.startswith(".")} == {
        "artifacts",
        "current",
        "evidence.json",
        "manifest.json",
        "model_card.md",
        "report.html",
        "report.md",
        "runs",
    }
    assert {entry["path"] for entry in manifest["files"]} == {
        *(f"artifacts/tiny.onnxruntime-cpu.{scheme}.onnx" for scheme in SCHEMES),
        *(f"flips.onnxruntime-cpu.{scheme}.csv" for scheme in SCHEMES[1:]),
        "evidence.json",
        "model_card.md",
        "report.html",
        "report.md",
    }
    assert manifest["recipe"]["schemes"] == list(SCHEMES)
    assert manifest["lineage"]["original"][0] == "model.py:build"
    assert manifest["packages"].keys() >= {"torch", "onnxruntime"}
    assert manifest["ships"]["onnxruntime-cpu"] in {entry["path"] for entry in manifest["files"]}


def test_evidence_has_every_figure_of_every_scheme(finished: Project) -> None:
    evidence = finished.evidence()
    (target,) = evidence.targets
    assert tuple(item.scheme for item in target.candidates) == SCHEMES
    assert target.verdicts.keys() == set(SCHEMES)
    for candidate in target.candidates:
        _check_measured(candidate)
    static = target.candidates[1]
    assert static.artifact is not None
    assert {layer.layer: layer.precision for layer in static.artifact.layers} == {
        "first": "int8",
        "second": "int8",
        "head": "int8",
    }
    assert evidence.data.rows == ROWS
    assert sum(evidence.data.splits.values()) == ROWS
    assert len(set(evidence.data.split_fingerprints.values())) == 4
    assert from_json(type(evidence), to_json(evidence)) == evidence


def _check_measured(candidate: Candidate) -> None:
    assert not candidate.error
    auc = candidate.metric("auc")
    # The rows are made so that a trained model is clearly better than chance.
    assert auc is not None and auc.value is not None and auc.value > 0.8
    assert {item.name for item in candidate.metrics} >= {"gini", "ks", "log_loss", "brier", "accuracy", "agreement"}
    assert candidate.parity and candidate.parity[0].reference == "graph"
    assert candidate.latency is not None
    assert len(candidate.latency.samples) == candidate.latency.processes == 5
    assert all(times and min(times) > 0 for times in candidate.latency.samples)
    assert (candidate.latency.comparison is None) == (candidate.scheme == "float32")
    assert candidate.memory is not None and candidate.memory.peak_bytes > 0
    assert candidate.placement is not None and candidate.placement.total > 0


def test_artifacts_answer_as_the_evidence_says(finished: Project) -> None:
    plan = make_plan(finished.load(), finished.folder, "recipe.toml")
    dataset, labels = load_rows(plan)
    label = dataset.label(labels[""])
    test = dataset.split("test")
    features = dataset.reader.read(test)["features"]
    assert np.array_equal(features, rows()[FEATURES].to_numpy(np.float32)[test])
    for candidate in finished.evidence().targets[0].candidates:
        session = onnxruntime.InferenceSession(finished.out / f"artifacts/tiny.onnxruntime-cpu.{candidate.scheme}.onnx")
        # A row a call, as on a device: a dynamic range is that of all rows of a call.
        logits = np.concatenate([session.run(["logit"], {"features": row[None]})[0] for row in features])
        positive, negative = logits[label[test] == 1], logits[label[test] == 0]
        above = positive[:, None] - negative[None, :]
        auc = candidate.metric("auc")
        assert auc is not None and auc.value == pytest.approx(((above > 0) + 0.5 * (above == 0)).mean(), abs=1e-6)


def test_a_second_run_reuses_everything(finished: Project) -> None:
    before = tree(finished.out)
    outcome = finished.run()
    assert (outcome.made, outcome.reused > 0) == (0, True)
    assert outcome.folder == (finished.out / "current").resolve()
    assert tree(finished.out) == before


def test_a_damaged_result_is_made_again_from_finished_steps(finished: Project) -> None:
    report = finished.out / "current" / "report.md"
    text = report.read_text(encoding="utf-8")
    report.write_text("damaged", encoding="utf-8")
    outcome = finished.run()
    assert outcome.made == 0
    check_whole(finished.out)
    # What is written anew says the same, but for when it was written.
    again = (finished.out / "report.md").read_text(encoding="utf-8")
    assert [line for line in again.splitlines() if "Measured" not in line] == [
        line for line in text.splitlines() if "Measured" not in line
    ]


def test_a_damaged_artifact_in_the_cache_is_lowered_again(finished: Project) -> None:
    (target,) = finished.evidence().targets
    artifact = target.candidates[1].artifact
    assert artifact is not None
    (finished.out / ".cache" / "objects" / artifact.sha256[:2] / artifact.sha256).write_bytes(b"damaged")
    outcome = finished.run()
    assert outcome.made == 1
    assert check_whole(finished.out)
    again = finished.evidence().targets[0].candidates[1].artifact
    assert again is not None and again.sha256 == artifact.sha256


@pytest.mark.usefixtures("canned_latency")
def test_another_scheme_is_all_that_is_made(finished: Project) -> None:
    before = finished.evidence()
    finished.change(schemes=["float32", "float16", "int8-static", "int8-dynamic"])
    old = set((finished.out / ".cache" / "steps").iterdir())
    outcome = finished.run()
    made = sorted(path.name.partition("-")[0] for path in set((finished.out / ".cache" / "steps").iterdir()) - old)
    # Times are taken side by side, so those of all schemes are taken anew.
    assert made == ["environment", "latency", "outputs", "placement", "quantize", "review"]
    assert outcome.made == 6
    after = finished.evidence()
    assert [item.scheme for item in after.targets[0].candidates] == [
        "float32",
        "float16",
        "int8-static",
        "int8-dynamic",
    ]
    assert after.targets[0].candidates[2].metrics == before.targets[0].candidates[1].metrics
    assert len(list((finished.out / "runs").iterdir())) == 2


def test_a_change_of_the_gate_measures_nothing(finished: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    real = running.environment
    monkeypatch.setattr(running, "environment", lambda packages: replace(real(packages), warnings=("another day",)))
    before = finished.evidence()
    finished.change(gate={"min_sqnr_db": 1.0})
    outcome = finished.run()
    assert outcome.made == 0
    rules = {rule.rule for rule in finished.evidence().targets[0].verdicts["int8-static"].rules}
    assert "min_sqnr_db[logit]" in rules
    # The times are those of the first day, and so is what disturbed them.
    assert finished.evidence().environment == before.environment
    check_whole(finished.out)


def test_what_ships_beside_the_model_is_never_that_of_an_earlier_run(
    finished: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_classes(*given: Any) -> Models:
        models = build_models(*given)
        return replace(models, compressed=models.compressed.with_attachments({"classes.json": classes}))

    monkeypatch.setattr(running, "build_models", with_classes)
    for classes in (b'["no", "yes"]', b'["pays", "defaults"]'):
        assert finished.run().made == 0
        assert (finished.out / "artifacts" / "tiny.classes.json").read_bytes() == classes
        check_whole(finished.out)


@pytest.mark.usefixtures("canned_latency")
def test_other_rows_make_everything_that_depends_on_them_anew(finished: Project) -> None:
    frame = rows()
    frame.loc[0, "income"] += 1.0
    frame.to_csv(finished.folder / "rows.csv", index=False)
    before = finished.evidence()
    old = set((finished.out / ".cache" / "steps").iterdir())
    finished.run()
    made = {path.name.partition("-")[0] for path in set((finished.out / ".cache" / "steps").iterdir()) - old}
    assert {"calibrate", "outputs", "reference"} <= made
    assert "lower" not in made
    assert finished.evidence().data.fingerprint != before.data.fingerprint


@pytest.mark.usefixtures("canned_latency")
def test_another_version_of_a_package_makes_old_steps_stale(finished: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    before = finished.evidence()
    real = planning._version
    monkeypatch.setattr(planning, "_version", lambda package: "999" if package == "torch" else real(package))
    outcome = finished.run()
    assert outcome.reused == 0
    # What is made anew is the same, for it was the same torch.
    after = finished.evidence()
    assert after.targets[0].candidates[1].metrics == before.targets[0].candidates[1].metrics
    assert after.targets[0].candidates[1].artifact == before.targets[0].candidates[1].artifact


def test_the_budgets_of_the_device_fail_the_gate_and_keep_the_results(finished: Project) -> None:
    first = finished.manifest()
    finished.write("phone.toml", 'schema = 1\nruntime = "onnxruntime"\ncpu = "any"\n[budgets]\nsize_bytes = 10\n')
    outcome = finished.change(targets=["phone.toml"]).run()
    assert (outcome.status, outcome.exit_code, outcome.ships) == ("FAIL", 1, {})
    manifest = check_whole(finished.out)
    assert manifest["ships"] == {"phone": None}
    (target,) = load_evidence(finished.out / "evidence.json").targets
    assert target.choice.scheme is None
    assert "more than the bound 10 bytes" in target.choice.reason
    assert all(candidate.latency is not None for candidate in target.candidates)
    # What was approved before stays in place.
    runs = [json.loads((path / "manifest.json").read_bytes()) for path in (finished.out / "runs").iterdir()]
    assert first["run_key"] in {run["run_key"] for run in runs}
    approved = next(run for run in runs if run["run_key"] == first["run_key"])
    assert approved["status"] == "PASS"


def test_rows_that_do_not_tell_are_inconclusive(finished: Project) -> None:
    # Float equals itself exactly, so it ships; a margin of 0 is decided against int8 or not at all.
    outcome = finished.change(gate={"auc_margin": 0.0}).run()
    (target,) = finished.evidence().targets
    assert target.verdicts["float32"].status == "PASS"
    assert target.verdicts["int8-static"].status in {"INCONCLUSIVE", "FAIL"}
    assert target.choice.scheme == "float32"
    assert outcome.exit_code == 0


def test_a_baseline_that_misses_the_bound_is_a_failed_gate(finished: Project) -> None:
    # No artifact reaches 500 dB.
    outcome = finished.change(gate={"min_sqnr_db": 500.0}).run()
    assert (outcome.status, outcome.exit_code) == ("FAIL", 1)
    assert finished.evidence().targets[0].choice.scheme is None


def test_passes_are_recorded_and_the_original_stays_the_baseline(project: Project) -> None:
    project.write(
        "model.py",
        "from torch import nn\n"
        "class Scorer(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.layers = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))\n"
        "    def forward(self, features):\n"
        "        return {'logit': self.layers(features).squeeze(-1)}\n"
        "def build():\n"
        "    return Scorer()\n",
    )
    project.change(schemes=["float32"], model={"weights": None}, passes=[{"kind": "fold_batch_norm"}])
    plan = make_plan(project.load(), project.folder, "recipe.toml")
    models = build_models(open_model(plan, load_rows(plan)[0], Silent()), plan, (), None, Silent())
    assert [step.kind for step in models.steps] == ["fold_batch_norm"]
    assert models.steps[0].changed
    # Both are folded before they are lowered: they are the same model.
    assert not models.changed


def test_a_step_is_named_by_all_that_determines_it() -> None:
    assert key("run", a=1, b=2) == key("run", b=2, a=1)
    assert key("run", a=1) != key("run", a=2)

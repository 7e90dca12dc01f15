from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tiny_project import COEFFICIENTS, FEATURES, Project

from compress.cli import _answer, cli
from compress.evidence import TargetEvidence, from_json
from compress.workflow.plan import Plan, load_rows
from compress.workflow.subjects import find_leaks

CHANGES: dict[str, Any] = {
    "segments": {"band": {"column": "age", "bins": [-0.5, 0.5]}},
    "evaluate": {"segment_rows": 20, "cost": {"false_positive": 1.0, "false_negative": 4.0}},
    "gate": {"auc_margin": 0.05, "min_agreement": 0.9, "max_ece_increase": 0.2, "four_fifths": False},
}


@pytest.fixture
def scored(finished: Project) -> Project:
    """A project with score files: what a logistic rule says about every row, and the same but worse."""
    finished.change(**CHANGES)
    frame = pd.read_csv(finished.folder / "rows.csv")
    chance = 1 / (1 + np.exp(-(frame[FEATURES].to_numpy() @ COEFFICIENTS)))
    write(finished, "before.csv", frame["customer"], chance)
    random = np.random.default_rng(0)
    write(finished, "after.csv", frame["customer"], np.clip(chance + random.normal(0, 0.005, chance.size), 0, 1))
    write(finished, "shifted.csv", frame["customer"], np.clip(chance + 0.25, 0, 1))
    return finished


def write(project: Project, name: str, ids: Any, scores: Any) -> Path:
    path = project.folder / name
    # Another order: the ids decide.
    pd.DataFrame({"customer": ids, "score": scores}).sample(frac=1, random_state=1).to_csv(path, index=False)
    return path


def run(project: Project, candidate: Any, against: Any = "before.csv", *more: Any) -> int:
    arguments = [
        "evaluate",
        project.folder / candidate,
        "--against",
        project.folder / against,
        "--recipe",
        project.recipe,
        *more,
    ]
    return _answer(cli, [str(item) for item in arguments], "edge-compress")


def read(path: Path) -> TargetEvidence:
    found: TargetEvidence = from_json(TargetEvidence, path.read_bytes())
    return found


def test_score_files_are_judged_verdict_first(scored: Project, capsys: pytest.CaptureFixture[str]) -> None:
    out = scored.folder / "evidence.json"
    flips = scored.folder / "flips.csv"
    assert run(scored, "after.csv", "before.csv", "--json", out, "--flips", flips) == 0
    said = capsys.readouterr().out
    assert said.startswith("PASS: ")
    assert said.index("Metrics") < said.index("Decisions") < said.index("Segments") < said.index("Fairness")
    candidate = read(out).candidates[1]
    assert {item.column for item in candidate.reviews[0].segments} == {"group", "band"}
    assert candidate.reviews[0].robustness == ()
    flipped = pd.read_csv(flips)
    assert len(flipped) == candidate.reviews[0].decisions[0].flipped.count
    assert (flipped["baseline_decision"] != flipped["candidate_decision"]).all()
    assert {"id", "group", "band"} <= set(flipped)


def test_a_shifted_score_fails_with_exit_code_1(scored: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(scored, "shifted.csv") == 1
    said = capsys.readouterr().out
    assert said.startswith("FAIL: ")
    for rule in ("max_psi", "min_agreement"):
        assert f"FAIL {rule}:" in said


def test_a_model_file_is_judged_beside_a_score_file_and_beside_another(
    scored: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    files = sorted((scored.out / "artifacts").resolve().glob("*.onnx"))
    float32 = next(path for path in files if "float32" in path.name)
    int8 = next(path for path in files if "int8-static" in path.name)
    # One holds logits, the other probabilities: both are brought to probabilities.
    assert run(scored, float32, "before.csv", "--json", "-") in (0, 1, 3)
    evidence = json.loads(capsys.readouterr().out)
    metrics = {item["name"]: item for item in evidence["candidates"][1]["metrics"]}
    assert metrics["auc"]["value"] > 0.8
    code = run(scored, int8, float32, "--json", "-")
    evidence = json.loads(capsys.readouterr().out)
    assert code == 0, [r for v in evidence["verdicts"].values() for r in v["rules"] if r["status"] != "PASS"]
    (review,) = evidence["candidates"][1]["reviews"]
    assert len(review["robustness"]) == 4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda frame: frame.iloc[:-1], "test rows have no score"),
        (lambda frame: pd.concat([frame, frame.iloc[:2]]), "2 ids occur more than once"),
        (lambda frame: frame.assign(customer=frame["customer"] + 1), "ids are not in the recipe's data"),
        (
            lambda frame: frame.assign(score=np.where(frame["score"] > 0.5, np.nan, frame["score"])),
            "are missing, infinite",
        ),
        (lambda frame: frame.rename(columns={"customer": "client"}), "there is no column 'customer'"),
        (lambda frame: frame.assign(second=1, score=None).drop(columns="score").assign(third=2), "no column holds"),
    ],
)
def test_scores_that_cannot_be_aligned_are_an_error(
    scored: Project, change: Any, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = pd.read_csv(scored.folder / "before.csv").sort_values("customer")
    recipe = scored.load()
    dataset, _ = load_rows(Plan(recipe, scored.folder, "recipe", (), ()))
    # The last row must be one of the test split, so that it is missed.
    last = dataset.ids[dataset.split("test")][-1]
    frame = pd.concat([frame[frame["customer"].astype(str) != last], frame[frame["customer"].astype(str) == last]])
    change(frame).to_csv(scored.folder / "wrong.csv", index=False)
    assert run(scored, "wrong.csv") == 2
    assert said in capsys.readouterr().err


def test_one_file_beside_itself_and_files_of_no_kind_are_errors(
    scored: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(scored, "before.csv") == 2
    assert "named as candidate and as baseline" in capsys.readouterr().err
    assert run(scored, "recipe.toml") == 2
    assert run(scored, "nothing.onnx") == 2


def test_constant_scores_have_documented_values(scored: Project, capsys: pytest.CaptureFixture[str]) -> None:
    ids = pd.read_csv(scored.folder / "rows.csv")["customer"]
    write(scored, "constant.csv", ids, np.full(len(ids), 0.4))
    assert run(scored, "before.csv", "constant.csv", "--json", "-") in (1, 3)
    (review,) = json.loads(capsys.readouterr().out)["candidates"][1]["reviews"]
    assert review["bands"]["psi"] is None
    assert "same score" in review["bands"]["note"]


def test_rows_of_one_split_in_another_are_found(finished: Project) -> None:
    dataset, _ = load_rows(Plan(finished.load(), finished.folder, "recipe", (), ()))
    assert find_leaks(dataset) == ()
    frame = pd.read_csv(finished.folder / "rows.csv")
    test, train = dataset.split("test"), dataset.split("train")
    frame.loc[train[:30], FEATURES] = frame.loc[test[:30], FEATURES].to_numpy()
    frame.to_csv(finished.folder / "rows.csv", index=False)
    dataset, _ = load_rows(Plan(finished.load(), finished.folder, "recipe", (), ()))
    (leak,) = find_leaks(dataset)
    assert (leak.split, leak.other, leak.rows, leak.split_rows) == ("test", "train", 30, len(test))


def test_a_run_with_leaking_splits_fails_and_says_so(finished: Project) -> None:
    dataset, _ = load_rows(Plan(finished.load(), finished.folder, "recipe", (), ()))
    frame = pd.read_csv(finished.folder / "rows.csv")
    test, train = dataset.split("test"), dataset.split("train")
    frame.loc[train[:30], FEATURES] = frame.loc[test[:30], FEATURES].to_numpy()
    frame.to_csv(finished.folder / "rows.csv", index=False)
    outcome = finished.run()
    assert (outcome.status, outcome.exit_code) == ("FAIL", 1)
    (target,) = outcome.evidence.targets
    rules = {rule.rule: rule for rule in target.verdicts["int8-static"].rules}
    assert rules["leakage"].status == "FAIL"
    assert "are also in the train split" in rules["leakage"].reason
    assert outcome.evidence.data.leaks[0].rows == 30


def test_a_run_reviews_segments_time_and_explanations(finished: Project) -> None:
    frame = pd.read_csv(finished.folder / "rows.csv")
    frame["opened"] = [f"2026-{1 + index % 3:02d}-01" for index in range(len(frame))]
    frame.to_csv(finished.folder / "rows.csv", index=False)
    finished.change(
        data={"drop": ["group", "opened"]},
        segments=CHANGES["segments"],
        evaluate={"time": "opened", "segment_rows": 20, "folds": 3},
        explain={"rows": 40, "background": 8, "permutations": 1, "top_k": 3},
        gate={**CHANGES["gate"], "max_reason_code_changes": 0.9},
    )
    outcome = finished.run()
    (target,) = outcome.evidence.targets
    assert target.candidates[1].error == ""
    (review,) = target.candidates[1].reviews
    assert [item.name for item in review.periods] == ["2026-01", "2026-02", "2026-03"]
    assert review.folds[0].value is not None
    (explanation,) = review.explanations
    assert [item.feature for item in explanation.features] == FEATURES
    assert explanation.rows == 40
    assert explanation.drift < 0.3
    assert (finished.out / "current" / review.flips_file).exists()
    assert "Who is treated differently" in (finished.out / "report.md").read_text(encoding="utf-8")


def test_a_run_explains_by_lime_what_it_recalibrated(finished: Project) -> None:
    finished.change(
        schemes=["float32"],
        passes=[{"kind": "recalibrate", "method": "temperature", "allow_no_change": True}],
        data={"split": {"train": 0.3, "calibration": 0.4, "validation": 0.1, "test": 0.2}},
        explain={"method": "lime", "rows": 20, "samples": 40, "top_k": 2},
        gate={**CHANGES["gate"], "max_attribution_drift": None},
    )
    outcome = finished.run()
    assert [step.kind for step in outcome.evidence.steps] == ["recalibrate"]
    (target,) = outcome.evidence.targets
    (review,) = target.candidates[-1].reviews
    (explanation,) = review.explanations
    assert explanation.method == "LIME, 40 probes a row"
    assert explanation.rank_correlation == pytest.approx(1, abs=0.05)


def rules_of(project: Project, capsys: pytest.CaptureFixture[str], *arguments: Any) -> dict[str, dict[str, str]]:
    capsys.readouterr()
    run(project, *arguments, "--json", "-")
    (verdict,) = json.loads(capsys.readouterr().out)["verdicts"].values()
    return {rule["rule"]: rule for rule in verdict["rules"]}


@pytest.mark.usefixtures("canned_latency")
def test_what_files_cost_is_judged_where_a_bound_asks_for_it(
    scored: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    files = sorted((scored.out / "artifacts").resolve().glob("*.onnx"))
    float32 = next(path for path in files if "float32" in path.name)
    int8 = next(path for path in files if "int8-static" in path.name)
    assert not {"latency_ms", "max_latency_ms", "min_accelerated"} & set(rules_of(scored, capsys, int8, float32))
    bounds = {"max_latency_ms": 0.5, "max_size_bytes": 10, "min_accelerated": 0.01}
    scored.change(**{**CHANGES, "gate": {**CHANGES["gate"], **bounds}})
    found = rules_of(scored, capsys, int8, float32)
    assert found["max_latency_ms"]["reason"].startswith("takes 0.4 ms a call")
    assert {name: found[name]["status"] for name in bounds} == {
        "max_latency_ms": "PASS",
        "max_size_bytes": "FAIL",
        "min_accelerated": "PASS",
    }
    # The budgets of the recipe's target of that runtime hold, too.
    scored.write("phone.toml", 'schema = 1\nruntime = "onnxruntime"\n[budgets]\nlatency_ms = 0.1\n')
    scored.change(**{**CHANGES, "targets": ["phone.toml"]})
    assert rules_of(scored, capsys, int8, float32)["latency_ms"]["status"] == "FAIL"
    # A score file costs nothing: what is not judged is named.
    capsys.readouterr()
    run(scored, "after.csv")
    assert "latency_ms" not in rules_of(scored, capsys, "after.csv", "before.csv")
    scored.change(**{**CHANGES, "gate": {**CHANGES["gate"], **bounds}})
    run(scored, "after.csv")
    said = " ".join(capsys.readouterr().out.split())
    assert "not judged, a score file has none: max_latency_ms, max_size_bytes, min_accelerated" in said


def test_the_reports_of_two_score_files(scored: Project, capsys: pytest.CaptureFixture[str]) -> None:
    page, text = scored.folder / "page.html", scored.folder / "page.md"
    assert run(scored, "shifted.csv", "before.csv", "--html", page, "--markdown", text) == 1
    for path in (page, text):
        said = path.read_text(encoding="utf-8")
        assert "two files were compared as they are" in said
        assert "max_psi" in said
    assert f"html: {page}" in capsys.readouterr().out


def test_what_is_approved_is_a_baseline_and_is_checked_first(
    scored: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    from compress.workflow.approval import approve

    approve(scored.out, "Ada Byron <ada@bank.example>", override="for the test", ship={"onnxruntime-cpu": "float32"})
    registry = scored.folder / "approved"
    int8 = next(path for path in (scored.out / "artifacts").resolve().glob("*.onnx") if "int8-static" in path.name)

    def beside(named: str) -> int:
        arguments = ["evaluate", int8, "--against", named, "--recipe", scored.recipe, "--registry", registry]
        return _answer(cli, [str(item) for item in arguments], "edge-compress")

    assert beside("approved:tiny") == beside("approved:tiny@onnxruntime-cpu") == 0
    assert beside("approved:tinny") == 2
    assert "did you mean 'tiny'" in capsys.readouterr().err
    for path in (registry / "objects").rglob("*"):
        if path.is_file():
            path.chmod(0o600)
            path.write_bytes(path.read_bytes() + b" ")
    assert beside("approved:tiny") == 1
    assert "it is no baseline any more" in capsys.readouterr().err


def test_a_segment_of_a_column_that_is_not_there_is_told(finished: Project) -> None:
    finished.change(segments={"town": {"column": "tows"}})
    from compress.errors import CompressError

    with pytest.raises(CompressError, match="has no column 'tows'"):
        finished.run()

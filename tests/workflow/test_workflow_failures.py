"""What fails is an error of its scheme or its target; what is not its fault ends the run and leaves the last result."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_project import Project, check_whole, tree

from compress.errors import DataError, LoweringError, StoreError, WorkerError
from compress.runtimes.onnxruntime import OnnxRuntime
from compress.workflow import measure

Fails = Callable[[str, Exception], None]


def test_both_runtimes_are_measured(on_both: Project) -> None:
    evidence = on_both.evidence()
    assert [target.runtime for target in evidence.targets] == ["onnxruntime", "litert"]
    for target in evidence.targets:
        assert not target.error
        assert [item.scheme for item in target.candidates] == ["float32", "int8-static", "int8-dynamic"]
        for item in target.candidates:
            assert not item.error and item.latency and item.parity and item.placement and item.memory
            assert item.artifact and item.artifact.inputs == ("features",)
            assert item.artifact.outputs == ("logit",)
    check_whole(on_both.out)


@pytest.mark.usefixtures("canned_latency")
def test_a_runtime_that_cannot_take_the_model_keeps_the_other_targets_results(
    on_both: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise LoweringError("no form of aten.frobnicate is known", "replace it.")

    before = on_both.evidence().targets[1]
    monkeypatch.setattr(OnnxRuntime, "lower", fail)
    on_both.forget("lower")
    outcome = on_both.run()
    assert (outcome.status, outcome.exit_code) == ("INCOMPARABLE", 3)
    broken, fine = on_both.evidence().targets
    assert broken.candidates == ()
    assert broken.choice.scheme is None
    assert "aten.frobnicate" in broken.error and "aten.frobnicate" in broken.choice.reason
    assert fine.candidates == before.candidates
    assert fine.choice == before.choice
    manifest = check_whole(on_both.out)
    assert manifest["ships"]["onnxruntime-cpu"] is None
    assert manifest["ships"]["litert-cpu"]
    assert not list((on_both.out / "artifacts").glob("*.onnx"))


def test_a_failed_lowering_is_not_remembered(on_both: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise LoweringError("not today", "")

    on_both.forget("lower")
    with monkeypatch.context() as patched:
        patched.setattr(OnnxRuntime, "lower", fail)
        assert on_both.run().exit_code == 3
    outcome = on_both.run()
    assert outcome.made == 1
    assert not any(target.error for target in on_both.evidence().targets)


@pytest.mark.usefixtures("canned_latency")
def test_a_scheme_that_a_runtime_has_not_is_an_error_of_that_scheme(on_both: Project) -> None:
    outcome = on_both.change(
        targets=["onnxruntime-cpu"],
        schemes=["float32", "int8-static", "odd"],
        scheme={"odd": {"base": "int8-static", "exclude": ["*"]}},
    ).run()
    (target,) = on_both.evidence().targets
    odd = target.candidates[2]
    assert odd.scheme == "odd" and odd.artifact is None
    assert "realises nothing" in odd.error
    assert not target.candidates[1].error
    # What ships passed: another scheme's error is no failure of the gate.
    assert outcome.exit_code == 0


@pytest.mark.usefixtures("canned_latency")
def test_a_worker_that_crashes_for_one_scheme_is_an_error_of_that_candidate(
    finished: Project, fails_for: Fails
) -> None:
    artifact = finished.evidence().targets[0].candidates[1].artifact
    assert artifact is not None
    finished.forget("outputs")
    fails_for(artifact.sha256, WorkerError("the worker was killed by SIGSEGV"))
    outcome = finished.run()
    float32, static, dynamic = finished.evidence().targets[0].candidates
    assert "SIGSEGV" in static.error and static.latency is None
    assert finished.evidence().targets[0].verdicts["int8-static"].status == "INCOMPARABLE"
    for other in (float32, dynamic):
        assert not other.error and other.latency is not None and other.metrics
    assert outcome.exit_code == 0
    assert "SIGSEGV" in (finished.out / "report.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("canned_latency")
def test_a_baseline_that_crashes_leaves_nothing_to_compare(finished: Project, fails_for: Fails) -> None:
    artifact = finished.evidence().targets[0].candidates[0].artifact
    assert artifact is not None
    finished.forget("outputs")
    fails_for(artifact.sha256, WorkerError("the worker was killed by SIGSEGV"))
    outcome = finished.run()
    assert (outcome.status, outcome.exit_code) == ("INCOMPARABLE", 3)
    (target,) = finished.evidence().targets
    assert target.choice.scheme is None and "SIGSEGV" in target.choice.reason
    assert target.candidates[1].metrics == ()


@pytest.mark.usefixtures("canned_latency")
def test_a_failure_is_not_remembered(finished: Project, fails_for: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = finished.evidence().targets[0].candidates[1].artifact
    assert artifact is not None
    finished.forget("outputs")
    fails_for(artifact.sha256, WorkerError("out of memory"))
    finished.run()
    first = finished.manifest()
    # The same failure again: nothing has changed, so nothing is written.
    finished.run()
    assert finished.manifest() == first
    # Another failure of the same scheme is another result.
    fails_for(artifact.sha256, WorkerError("killed by SIGILL"))
    finished.run()
    assert "SIGILL" in finished.evidence().targets[0].candidates[1].error
    monkeypatch.undo()
    finished.run()
    assert not any(candidate.error for candidate in finished.evidence().targets[0].candidates)


def test_a_full_disk_ends_the_run_and_leaves_the_last_result(
    finished: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished.forget("outputs")
    before = tree(finished.out / "current")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match="No space left on device"):
            finished.run()
    assert tree(finished.out / "current") == before
    check_whole(finished.out)
    assert not [path for path in finished.out.rglob("*.tmp") if "/steps/" in str(path)]
    assert finished.run().exit_code == 0


def test_a_disk_that_fills_up_while_scoring_is_no_error_of_a_scheme(
    finished: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise StoreError("out/.cache: cannot be written: No space left on device", "free some space.")

    finished.forget("outputs")
    before = tree(finished.out / "current")
    monkeypatch.setattr(measure, "keep_arrays", full)
    with pytest.raises(StoreError):
        finished.run()
    assert tree(finished.out / "current") == before


@pytest.mark.usefixtures("canned_latency")
def test_answers_that_are_not_numbers_are_an_error_of_that_scheme(
    finished: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = measure.run_outputs
    artifact = finished.evidence().targets[0].candidates[2].artifact
    assert artifact is not None

    def spoilt(host: Any, runtime: str, path: Path, *given: Any, **settings: Any) -> Any:
        answers = real(host, runtime, path, *given, **settings)
        return (
            {name: values * float("nan") for name, values in answers.items()}
            if path.name == artifact.sha256
            else answers
        )

    finished.forget("outputs")
    monkeypatch.setattr(measure, "run_outputs", spoilt)
    outcome = finished.run()
    _, static, dynamic = finished.evidence().targets[0].candidates
    assert "NaN" in dynamic.error and not static.error
    assert outcome.exit_code == 0


def test_a_model_that_answers_nan_is_refused_before_anything_is_lowered(project: Project) -> None:
    project.write(
        "model.py",
        "import torch\n"
        "class Root(torch.nn.Module):\n"
        "    def forward(self, features):\n"
        "        return {'logit': features[:, 0].sqrt()}\n"
        "def build():\n"
        "    return Root()\n",
    )
    project.change(model={"weights": None})
    with pytest.raises(DataError, match=r"output 'logit' on \d+ calibration rows: \d+ of \d+ rows are NaN"):
        project.run()
    assert not project.out.exists()

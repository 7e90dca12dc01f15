"""A target whose file, processor, runtime or machine does not work: its own error, and the others' results are kept."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from broken_bytes import fuzzed
from tiny_project import Project, check_whole

from compress.errors import MissingPackageError, RecipeError
from compress.evidence import TargetEvidence
from compress.hosts.environments import OWN_PYTHONS
from compress.hosts.folders import SCHEMA
from compress.model.core import Model
from compress.runtimes.base import Lowered
from compress.runtimes.executorch import ExecuTorch
from compress.runtimes.litert import LiteRt
from compress.runtimes.onnxruntime import OnnxRuntime
from compress.runtimes.tflite_runtime import TfliteRuntime
from compress.target import Target, load_target
from compress.workflow.evaluate import evaluate
from compress.workflow.progress import Silent
from compress.workflow.run import Outcome

pytestmark = pytest.mark.usefixtures("canned_latency")
Damage = Callable[[bytes], bytes]


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def check_one_broke(project: Project, outcome: Outcome, *words: str) -> TargetEvidence:
    """The first target has its results and ships, the second has an error with these words, and nothing is passed."""
    fine, broken = project.evidence().targets
    assert fine.choice.scheme is not None and not fine.error
    assert all(item.metrics and not item.error for item in fine.candidates)
    told = " ".join([broken.error, broken.choice.reason, *(item.error for item in broken.candidates)])
    assert broken.choice.scheme is None
    for word in words:
        assert word in told, told
    assert (outcome.status, outcome.exit_code) == ("INCOMPARABLE", 3)
    manifest = check_whole(project.out)
    assert manifest["ships"][fine.target] and manifest["ships"][broken.target] is None
    report = (project.out / "report.md").read_text(encoding="utf-8")
    assert broken.target in report and words[0] in report
    return broken


def test_a_cut_tflite_is_an_error_of_its_target(finished: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    real = LiteRt.lower
    monkeypatch.setattr(LiteRt, "lower", lambda engine, model: damaged(real(engine, model), cut))
    monkeypatch.setattr(LiteRt, "quantize", lambda engine, lowered, *_: lowered)
    outcome = finished.change(targets=["onnxruntime-cpu", "litert-cpu"]).run()
    check_one_broke(finished, outcome, "LiteRT cannot open it")


def test_a_fuzzed_pte_is_an_error_of_its_target(finished: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("executorch")
    real = ExecuTorch.lower

    def lower(engine: ExecuTorch, model: Model) -> Lowered:
        # A byte in sixteen: some of them hold the program together.
        return damaged(real(engine, model), lambda data: fuzzed(data, seed=0, flips=len(data) // 16))

    monkeypatch.setattr(ExecuTorch, "lower", lower)
    outcome = finished.change(targets=["onnxruntime-cpu", "executorch-cpu"], schemes=["float32"]).run()
    check_one_broke(finished, outcome, "ExecuTorch cannot open it")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut, "cannot open it"),
        # The domain of an operator that the other processor's kernels are not registered for.
        (lambda data: data.replace(b"com.microsoft", b"com.microsofs"), "cannot open it"),
    ],
    ids=["cut", "another-architecture"],
)
def test_an_ort_that_does_not_open_is_an_error_of_its_target(
    finished: Project, monkeypatch: pytest.MonkeyPatch, damage: Damage, words: str
) -> None:
    real = OnnxRuntime.finish

    def finish(engine: OnnxRuntime, lowered: Lowered, target: Target) -> Lowered:
        return damaged(real(engine, lowered, target), damage)

    monkeypatch.setattr(OnnxRuntime, "finish", finish)
    outcome = finished.change(targets=["onnxruntime-cpu", "onnxruntime-mobile"]).run()
    check_one_broke(finished, outcome, words)


@pytest.mark.skipif(shutil.which("ssh") is None, reason="no ssh here: apt-get install openssh-client")
def test_a_machine_that_cannot_be_reached_is_an_error_of_its_target(finished: Project) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    finished.write("ssh_config", f"Host branch\n  HostName 127.0.0.1\n  Port {port}\n")
    finished.write(
        "branch.toml",
        'schema = 1\nruntime = "onnxruntime"\nhost = "ssh"\n[ssh]\naddress = "branch"\nconfig = "ssh_config"\n',
    )
    outcome = finished.change(targets=["onnxruntime-cpu", "branch.toml"]).run()
    check_one_broke(finished, outcome, "on branch: ")


@pytest.mark.parametrize(
    "text", ["schema = 1\n", 'schema = 1\nruntime = "onnxruntime"\nthread = 2\n', "not toml", "", None]
)
def test_a_target_file_that_is_wrong_ends_the_run_before_it_starts(finished: Project, text: str | None) -> None:
    if text is not None:
        finished.write("phone.toml", text)
    before = finished.manifest()
    with pytest.raises(RecipeError, match=r"phone\.toml") as caught:
        finished.change(targets=["onnxruntime-cpu", "phone.toml"]).run()
    assert caught.value.exit_code == 2
    assert finished.manifest() == before


def test_an_interpreter_that_aborts_is_an_error_of_its_target(
    finished: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As tflite-runtime does on some static int8 files: the process is gone, without an answer."""
    stand_in(tmp_path, "#!/bin/sh\necho 'F: aborted by a check' >&2\nkill -ABRT $$\n", monkeypatch)
    outcome = finished.change(targets=["onnxruntime-cpu", "tflite-runtime-cpu"]).run()
    check_one_broke(finished, outcome, "SIGABRT", "in tflite_runtime", "aborted by a check")


def test_a_runtime_whose_environment_is_missing_is_told_before_the_run_starts(
    finished: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_COMPRESS_CACHE", str(tmp_path / "empty"))
    with pytest.raises(MissingPackageError, match=r"tflite-runtime-cpu.* environment of its own") as caught:
        finished.change(targets=["onnxruntime-cpu", "tflite-runtime-cpu"]).run()
    assert caught.value.hint == "edge-compress doctor --setup tflite-runtime."
    assert caught.value.exit_code == 2


def test_an_operator_that_the_old_interpreter_has_not_is_an_error_of_its_target(
    finished: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, "#!/bin/sh\n", monkeypatch)
    newest = {"FULLY_CONNECTED": 2, "RESHAPE": 1}
    monkeypatch.setattr(TfliteRuntime, "interpreter", replace(TfliteRuntime.interpreter, newest=newest))
    outcome = finished.change(targets=["onnxruntime-cpu", "tflite-runtime-cpu"]).run()
    broken = check_one_broke(finished, outcome, "it needs FULLY_CONNECTED version", "it has up to 2")
    assert broken.candidates == ()


def test_the_old_interpreter_is_measured_beside_the_new_one(finished: Project, tflite_runtime: None) -> None:
    finished.change(targets=["litert-cpu", "tflite-runtime-cpu"], schemes=["float32", "float16", "int8-dynamic"]).run()
    for target in finished.evidence().targets:
        assert target.choice.scheme is not None
        for item in target.candidates:
            assert not item.error and item.placement and item.placement.path == "XNNPACK"
            assert item.parity[0].sqnr_db is not None and item.parity[0].sqnr_db > 25
    packages = finished.evidence().environment.packages
    assert packages["tflite-runtime"] == "2.14.0"
    # A file that LiteRT opens, too, is judged where the target says.
    files = [finished.out / "artifacts" / f"tiny.litert-cpu.{scheme}.tflite" for scheme in ("float16", "float32")]
    target = load_target("tflite-runtime-cpu", finished.folder)
    judged = evaluate(finished.load(), finished.folder, "recipe.toml", files[0], files[1], target, Silent())
    assert {item.artifact.runtime for item in judged.evidence.candidates if item.artifact} == {"tflite_runtime"}


def test_an_ort_ships_with_what_a_build_must_have(finished: Project) -> None:
    outcome = finished.change(targets=["onnxruntime-mobile"], schemes=["float32", "float16", "int8-dynamic"]).run()
    (target,) = finished.evidence().targets
    float32, float16, dynamic = target.candidates
    assert not float32.error and not dynamic.error
    assert "an .ort file cannot hold it" in float16.error and float16.artifact is None
    manifest = check_whole(finished.out)
    shipped = outcome.ships["onnxruntime-mobile"]
    assert shipped.endswith("tiny.onnxruntime-mobile.int8-dynamic.ort")
    operators = manifest["required_operators"]["onnxruntime-mobile"]
    assert operators == shipped.removesuffix(".ort") + ".required_operators.config"
    assert "com.microsoft;1;" in (finished.out / operators).read_text(encoding="utf-8")
    assert not any(path.suffix == ".onnx" for path in (finished.out / "artifacts").iterdir())
    # A second run reuses everything.
    assert finished.run().made == 0


def damaged(lowered: Lowered, damage: Damage) -> Lowered:
    return replace(lowered, data=damage(lowered.data))


def stand_in(folder: Path, program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment of tflite-runtime whose Python is a program of the test."""
    own = OWN_PYTHONS["tflite_runtime"]
    place = folder / "cache" / "environments" / own.name
    (place / "bin").mkdir(parents=True)
    manifest = {"schema": SCHEMA, "digest": "0" * 64, "python": "3.11", "requirements": own.requirements}
    (place / "manifest.json").write_text(json.dumps(manifest))
    (place / "bin" / "python").write_text(program)
    (place / "bin" / "python").chmod(0o755)
    monkeypatch.setenv("EDGE_COMPRESS_CACHE", str(folder / "cache"))

"""A whole run, an evaluation and a measurement on a phone, through stand-ins for adb and for its programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from phone_kit import Bench, Phones
from tiny_project import Project

from compress.cli import _answer, cli
from compress.evidence import TargetEvidence, from_json
from compress.hosts.local import LocalHost
from compress.workflow.machines import known_as

PROGRAM = """schema = 1
runtime = "onnxruntime"
host = "adb"
[budgets]
latency_ms = {latency_ms}
[adb]
benchmark_binary = "device:/data/local/tmp/bench/onnxruntime_perf_test"
cool_s = 0
"""
PYTHON = """schema = 1
runtime = "onnxruntime"
host = "adb"
[adb]
python = "python3"
cool_s = 0
"""


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    phones = Phones(tmp_path / "phones")
    monkeypatch.setenv("PATH", phones.path)
    monkeypatch.setenv("ADB_STAND_IN", str(phones.folder))
    return Bench(phones.add())


@pytest.fixture
def no_times_here(finished: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets this machine answer, and take no time; what other tests share was made before."""
    real = LocalHost.run

    def run(host, job, timeout_s):
        assert job["action"] in ("outputs", "describe"), f"{job['action']} was asked of this machine"
        return real(host, job, timeout_s)

    monkeypatch.setattr(LocalHost, "run", run)


def command(*arguments: object) -> int:
    return _answer(cli, [str(item) for item in arguments], "edge-compress")


def parts(project: Project) -> tuple[Path, Path]:
    files = sorted((project.out / "artifacts").resolve().glob("*.onnx"))
    return tuple(next(path for path in files if name in path.name) for name in ("float32", "int8-static"))


@pytest.mark.usefixtures("no_times_here")
def test_a_run_takes_times_there_and_says_what_it_did_not_check(bench: Bench, project: Project) -> None:
    bench.phone.battery(status="2")
    project.write("phone.toml", PROGRAM.format(latency_ms=1.6))
    outcome = project.change(targets=["phone.toml"], schemes=["float32"]).run()
    (target,) = outcome.evidence.targets
    assert target.machine.startswith("Acme Lite 4")
    assert [item.latency.median_ms for item in target.candidates] == pytest.approx([1.5])
    assert {item.latency.cpus for item in target.candidates} == {(3,)}
    assert all(item.metric("auc") and item.parity and item.placement for item in target.candidates)
    assert "because onnxruntime_perf_test takes times and gives no outputs" in target.unanswered
    for moment in ("before", "after"):
        facts = target.device[moment]
        assert (facts["serial"], facts["battery_percent"], facts["thermal_status"]) == ("A1", 85, "none")
    for name in ("report.md", "report.html"):
        text = (project.out / name).read_text()
        assert "quality, parity and placement were not checked there" in text
        assert "battery_percent" in text
        assert "it is charging, which warms it" in text
    # What was kept is read back with what the phone said then.
    bench.phone.thermal(3)
    project.forget("outputs")
    assert project.run().evidence.targets[0].device == target.device


@pytest.mark.usefixtures("no_times_here")
def test_a_phone_that_throttles_gives_no_verdict(bench: Bench, project: Project) -> None:
    bench.phone.thermal(3)
    project.write("phone.toml", PROGRAM.format(latency_ms=5))
    outcome = project.change(targets=["phone.toml"], schemes=["float32"]).run()
    (target,) = outcome.evidence.targets
    assert outcome.exit_code == 3
    assert target.verdicts["float32"].status == "INCOMPARABLE"
    assert "it throttles: its thermal status is 3 (severe)" in target.verdicts["float32"].reason


@pytest.mark.usefixtures("no_times_here")
def test_an_evaluation_is_timed_where_the_target_says(
    bench: Bench, finished: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    float32, int8 = parts(finished)
    bench.says(ms={"other": 3.0, str(int8.stat().st_size): 2.0})
    finished.write("phone.toml", PROGRAM.format(latency_ms=2.5))
    file = finished.folder / "found.json"
    options = ("--against", float32, "--recipe", finished.recipe, "--target", "phone.toml", "--json", file)
    assert command("evaluate", int8, *options) == 0
    said = capsys.readouterr().out
    assert "on Acme Lite 4" in said
    assert "not checked there" in said
    found: TargetEvidence = from_json(TargetEvidence, file.read_bytes())
    assert [item.latency.median_ms for item in found.candidates] == pytest.approx([3.0, 2.0])
    assert found.machine.startswith("Acme Lite 4")
    assert found.device["after"]["serial"] == "A1"
    assert "not checked there" in found.unanswered


def test_an_evaluation_is_answered_where_the_target_says(
    bench: Bench, finished: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalHost, "run", lambda *_: pytest.fail("this machine was asked"))
    finished.change(evaluate={"robustness_rows": 0}).write("phone.toml", PYTHON)
    float32, int8 = parts(finished)
    options = ("--against", float32, "--recipe", finished.recipe, "--target", "phone.toml", "--json", "-")
    assert command("evaluate", int8, *options) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["machine"].startswith("Acme Lite 4")
    assert found["unanswered"] == ""
    assert {item["name"]: item["value"] for item in found["candidates"][1]["metrics"]}["auc"] > 0.8
    assert bench.phone.left() == []


@pytest.mark.usefixtures("no_times_here")
def test_bench_names_the_phone(
    bench: Bench, finished: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished.folder)
    finished.write("phone.toml", PROGRAM.format(latency_ms=5))
    float32, int8 = parts(finished)
    bench.says(ms={"other": 3.0, str(int8.stat().st_size): 2.0})
    short = ("--target", "phone.toml", "--pairs", 5, "--seconds", 0.01, "--budget-s", 0, "--sparse", 0)
    assert command("bench", float32, int8, *short, "--json", "-") == 0
    found = json.loads(capsys.readouterr().out)
    machine = found["environment"]["machine"]
    assert machine["cpu"].startswith("Acme Lite 4")
    assert machine["after"]["battery_percent"] == 85
    assert list(found["environment"]["packages"]) == ["onnxruntime"]
    assert "rare calls and profiles are not taken there" in found["environment"]["warnings"][-1]
    times = [item["latency"] for item in found["artifacts"]]
    assert times[1]["comparison"]["ratio"] == pytest.approx(2 / 3)


def test_what_was_measured_with_another_program_is_not_taken_again(bench: Bench) -> None:
    host = bench.host("onnxruntime")
    before = known_as(host, "onnxruntime")
    assert before.startswith("Acme Lite 4, Unisoc SC9863A, arm64-v8a, Android 13 onnxruntime_perf_test sha256 ")
    assert known_as(host, "onnxruntime") == before
    program = bench.folder / "onnxruntime_perf_test"
    program.write_text(program.read_text() + "# newer\n")
    assert known_as(host, "onnxruntime") not in ("", before)
    assert known_as(LocalHost(), "onnxruntime") == ""
    host.close()

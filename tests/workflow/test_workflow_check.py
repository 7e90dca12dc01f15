from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from check_kit import Bench, LocalHost, children, write_model

from compress.bench.verdicts import CheckResult
from compress.errors import BusyError, CompressError, StoreError, WorkerError
from compress.workflow.baseline import Baselines, check_name, store_folder
from compress.workflow.progress import Silent
from compress.workflow.save_baseline import restore, save


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench(tmp_path / "project")
    monkeypatch.setattr(LocalHost, "run", lambda host, job, timeout_s: made.answer(job, timeout_s))
    made.save()
    return made


def baseline_file(bench: Bench) -> Path:
    return bench.folder / "benchmarks/baselines/onnxruntime-cpu/model.json"


def test_a_baseline_is_a_small_sorted_file_and_an_artifact_in_the_store(bench: Bench) -> None:
    text = baseline_file(bench).read_text()
    values = json.loads(text)
    assert text == json.dumps(values, indent=1, sort_keys=True) + "\n"
    entry = values["baselines"]["main"]
    assert (values["schema"], values["model"], values["target"]) == (1, "model", "onnxruntime-cpu")
    assert (entry["source"], entry["rows"], entry["threads"]) == ("model.onnx", "synthetic", 1)
    assert bench.baselines.store.blob(entry["sha256"]) == bench.file.read_bytes()
    assert len(text) < 4000
    assert str(bench.folder) not in text


def test_baselines_of_other_names_are_kept(bench: Bench) -> None:
    bench.change()
    bench.save("release-1")
    values = json.loads(baseline_file(bench).read_text())["baselines"]
    assert set(values) == {"main", "release-1"}
    assert values["main"]["sha256"] != values["release-1"]["sha256"]


def test_the_same_file_is_the_same_without_timing(bench: Bench) -> None:
    result = bench.check()
    assert result.exit_code == 0
    assert result.rows[0].verdict == "SAME"
    assert "byte for byte" in result.rows[0].notes[0]
    assert not any(job["action"] == "duel" for job in bench.jobs)


@pytest.mark.parametrize(
    ("ratio", "sd", "verdict", "code"),
    [(1.0, 0.003, "SAME", 0), (0.8, 0.003, "FASTER", 0), (1.1, 0.003, "SLOWER", 1), (1.02, 0.3, "UNKNOWN", 3)],
)
def test_verdicts_and_their_exit_codes(bench: Bench, ratio: float, sd: float, verdict: str, code: int) -> None:
    bench.change()
    bench.ratio, bench.sd = ratio, sd
    result = bench.check(budget_s=0.2 if verdict == "UNKNOWN" else 30)
    assert (result.rows[0].verdict, result.exit_code) == (verdict, code)
    assert result.rows[0].clock == "processor"
    assert result.rows[0].pairs >= 1


def test_a_tolerance_of_the_command_replaces_the_targets(bench: Bench) -> None:
    bench.change()
    bench.ratio = 1.1
    assert bench.row(tolerance=0.2).verdict == "SAME"


def test_the_tolerances_of_the_target_count(bench: Bench) -> None:
    targets = bench.folder / "targets"
    targets.mkdir()
    text = 'schema = 1\nruntime = "onnxruntime"\n[check]\nlatency = 0.2\nmemory = 1.0\n'
    (targets / "onnxruntime-cpu.toml").write_text(text)
    bench.change()
    bench.ratio, bench.memory["v2"] = 1.1, 3 << 20
    result = bench.check()
    assert (result.rows[0].verdict, result.rows[0].tolerance, result.exit_code) == ("SAME", 0.2, 0)


def broken(result: CheckResult) -> list[str]:
    return [rule.name for row in result.rows for rule in row.broken]


def test_memory_beyond_its_slack_fails_the_check(bench: Bench) -> None:
    bench.change()
    bench.memory["v2"] = 900 << 10
    assert bench.check().exit_code == 0
    bench.memory["v2"] = 3 << 20
    result = bench.check()
    assert (broken(result), result.exit_code) == (["memory"], 1)


def test_bytes_fail_the_check(bench: Bench) -> None:
    write_model(bench.file, "v2", width=64)
    assert broken(bench.check()) == ["bytes"]


def test_operators_and_fallback_are_rules_and_causes(bench: Bench) -> None:
    bench.operators["v2"] = [
        {"operator": "MatMul", "count": 2, "accelerated": False, "reason": "float kernel"},
        {"operator": "Transpose", "count": 1, "accelerated": True, "reason": ""},
    ]
    bench.change()
    result = bench.check()
    assert broken(result) == ["operators", "accelerated"]
    said = " | ".join(result.rows[0].causes)
    assert "Transpose 0 -> 1" in said
    assert "1 more operators that only move data" in said
    assert "100% -> 33%" in said
    assert "not MatMul" in said


def test_a_slower_load_fails_the_check(bench: Bench) -> None:
    bench.change()
    bench.load = 2.0
    assert broken(bench.check()) == ["load time"]


def test_an_artifact_that_is_gone_is_incomparable_and_can_be_restored(bench: Bench, tmp_path: Path) -> None:
    kept = tmp_path / "kept.onnx"
    shutil.copy(bench.file, kept)
    bench.change()
    shutil.rmtree(bench.folder / "store")
    result = bench.check()
    assert (result.rows[0].verdict, result.exit_code) == ("INCOMPARABLE", 3)
    assert "edge-compress baseline restore main --from" in result.rows[0].hint
    assert restore(bench.baselines, "main", []) == ([], ["model on onnxruntime-cpu"])
    assert restore(bench.baselines, "main", [bench.file]) == ([], ["model on onnxruntime-cpu"])
    assert restore(bench.baselines, "main", [kept]) == (["model on onnxruntime-cpu"], [])
    assert bench.check().exit_code == 0


def test_a_damaged_artifact_counts_as_gone(bench: Bench) -> None:
    bench.change()
    entry = json.loads(baseline_file(bench).read_text())["baselines"]["main"]
    bench.baselines.store.path(entry["sha256"]).write_bytes(b"other")
    assert bench.check().exit_code == 3


def test_nothing_to_compare_is_no_pass(bench: Bench) -> None:
    result = bench.check(against="none")
    assert (result.rows, result.exit_code) == ((), 3)


def test_a_candidate_that_is_gone_is_incomparable(bench: Bench) -> None:
    bench.file.unlink()
    row = bench.row()
    assert (row.verdict, row.exit_code) == ("INCOMPARABLE", 3)
    assert "there is no candidate" in row.error


def test_a_candidate_may_be_named_and_must_have_a_baseline(bench: Bench) -> None:
    other = write_model(bench.folder / "other.onnx", "v2")
    bench.ratio = 1.2
    assert bench.row(candidates={"model": other}).verdict == "SLOWER"
    with pytest.raises(StoreError, match="no baseline 'main' is of that model"):
        bench.check(candidates={"modle": other})


@pytest.mark.parametrize("action", ["latency", "duel", "describe", "empty"])
def test_a_worker_that_crashes_makes_the_row_incomparable(bench: Bench, action: str) -> None:
    bench.change()
    bench.crash[action] = WorkerError("the worker was killed by SIGSEGV", "a hint.")
    row = bench.row()
    assert (row.verdict, row.exit_code) == ("INCOMPARABLE", 3)
    assert "SIGSEGV" in row.error
    assert row.hint == "a hint."


def test_a_worker_that_hangs_is_ended_and_makes_the_row_incomparable(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "project")
    bench.save()
    bench.change()
    row = bench.row(timeout_s=0.01)
    assert (row.verdict, row.exit_code) == ("INCOMPARABLE", 3)
    assert "was ended after 0.01 s" in row.error
    assert children() == []


def test_packages_that_moved_since_are_named(bench: Bench) -> None:
    path = baseline_file(bench)
    path.write_text(json.dumps(_entry(json.loads(path.read_text()), packages={"onnxruntime": "1.0.0"})))
    note = bench.row().notes[-1]
    assert f"onnxruntime 1.0.0 -> {metadata.version('onnxruntime')}" in note
    assert "--python-baseline OLD --python-candidate NEW" in note


EDITS: dict[str, tuple[Any, str]] = {
    "an unknown key": (lambda v: v | {"extra": 1}, "unknown key 'extra'"),
    "a hash that is none": (lambda v: _entry(v, sha256="abc"), "sha256 must match"),
    "a time of zero": (lambda v: _figures(v, median_ms=0), "median_ms must be greater than 0"),
    "threads as text": (lambda v: _entry(v, threads="1"), "threads"),
    "another schema": (lambda v: v | {"schema": 2}, "schema"),
    "another model": (lambda v: v | {"model": "other"}, "says it is 'other'"),
}


def _entry(values: Any, **change: Any) -> Any:
    values["baselines"]["main"] |= change
    return values


def _figures(values: Any, **change: Any) -> Any:
    values["baselines"]["main"]["figures"] |= change
    return values


@pytest.mark.parametrize("name", EDITS)
def test_a_file_edited_by_hand_is_refused_by_name(bench: Bench, name: str) -> None:
    edit, message = EDITS[name]
    path = baseline_file(bench)
    path.write_text(json.dumps(edit(json.loads(path.read_text()))))
    with pytest.raises(StoreError) as error:
        bench.check()
    assert message in error.value.message
    assert "model.json" in error.value.message
    assert "baseline save" in error.value.hint
    assert error.value.exit_code == 2


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": NaN}', "\x00"])
def test_a_file_that_is_no_json_is_refused(bench: Bench, text: str) -> None:
    baseline_file(bench).write_text(text)
    with pytest.raises(StoreError, match=r"model\.json"):
        bench.check()


def test_a_hash_edited_by_hand_names_an_artifact_that_is_not_there(bench: Bench) -> None:
    bench.change()
    path = baseline_file(bench)
    path.write_text(json.dumps(_entry(json.loads(path.read_text()), sha256="0" * 64)))
    assert bench.check().exit_code == 3


def test_a_second_check_is_turned_away_and_nothing_is_measured(bench: Bench) -> None:
    with bench.baselines.locked(), pytest.raises(BusyError, match="nothing was measured") as error:
        Bench.check(bench)
    assert error.value.exit_code == 3
    assert bench.check().exit_code == 0


def test_a_source_outside_the_project_is_refused(bench: Bench, tmp_path: Path) -> None:
    outside = write_model(tmp_path / "outside.onnx", "v1")
    with pytest.raises(StoreError, match="lies outside the project"):
        save(bench.baselines, "main", [outside], (), Silent())


def test_nothing_that_ships_is_nothing_to_save(bench: Bench) -> None:
    with pytest.raises(StoreError, match="nothing to save"):
        save(bench.baselines, "main", [bench.file], ("litert-cpu",), Silent())
    (bench.folder / "empty").mkdir()
    with pytest.raises(StoreError, match="holds no finished run"):
        save(bench.baselines, "main", [bench.folder / "empty"], (), Silent())


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a" * 65, "a\nb"])
def test_a_name_that_would_leave_its_folder_is_refused(name: str) -> None:
    with pytest.raises(StoreError, match="is no name"):
        check_name(name, "baseline")


def test_the_store_is_given_or_named_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGE_COMPRESS_STORE", raising=False)
    assert store_folder(tmp_path, None) == tmp_path / ".edge-compress/baselines"
    monkeypatch.setenv("EDGE_COMPRESS_STORE", str(tmp_path / "cache"))
    assert store_folder(tmp_path, None) == tmp_path / "cache"
    assert store_folder(tmp_path, tmp_path / "given") == tmp_path / "given"


def test_a_clock_that_jumps_changes_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.change()
    jumps = iter(range(10**6))
    monkeypatch.setattr(time, "time", lambda: 1e9 * (1 + next(jumps) % 2))
    result = bench.check()
    assert (result.rows[0].verdict, result.rows[0].pairs) == ("SAME", 12)
    assert 0 <= result.seconds < 60


def test_two_interpreters_compare_answers_and_time(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "project")
    bench.save()
    row = bench.row(pythons=(sys.executable, sys.executable), budget_s=0)
    assert row.verdict == "UNKNOWN"  # no time was given
    assert row.rules[0].name == "answers"
    assert row.rules[0].text == "equal"
    version = metadata.version("onnxruntime")
    assert row.notes[0].count(f"onnxruntime {version}") == 2
    assert row.pairs == 1
    gone = bench.row(pythons=(sys.executable, str(tmp_path / "no-python")), budget_s=0)
    assert (gone.verdict, gone.exit_code) == ("INCOMPARABLE", 3)


def test_a_real_check_of_equal_models_leaves_no_process_and_no_file(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "project")
    bench.save()
    bench.change()
    row = bench.row(budget_s=0)
    assert row.pairs == 1
    assert row.verdict == "UNKNOWN"
    assert row.ratio is not None


def test_a_killed_check_leaves_nothing_and_whole_files(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "project")
    bench.save()
    bench.change()
    before = baseline_file(bench).read_bytes()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    environment = {**os.environ, "TMPDIR": str(scratch), "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "compress", "check", "--project", str(bench.folder), "--store"]
    process = subprocess.Popen(
        [*command, str(bench.folder / "store"), "--junit", str(tmp_path / "j.xml")],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not list(scratch.glob("edge-compress-*/job.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    assert list(scratch.glob("edge-compress-*")) == []
    assert not (tmp_path / "j.xml").exists()
    assert baseline_file(bench).read_bytes() == before
    with bench.baselines.locked():
        pass


def test_a_run_is_saved_per_target_and_compared_by_what_ships(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path / "project")
    monkeypatch.setattr(LocalHost, "run", lambda host, job, timeout_s: bench.answer(job, timeout_s))
    publish(bench, "v1")
    (saved,) = save(bench.baselines, "main", [bench.folder / "out"], (), Silent())
    assert (saved.model, saved.target, saved.entry.source) == ("credit", "onnxruntime-cpu", "out")
    publish(bench, "v2")
    bench.ratio = 1.3
    assert bench.row().verdict == "SLOWER"
    (bench.folder / "out/current/artifacts/credit.onnx").write_bytes(b"changed")
    assert "is not the file that its manifest names" in bench.row().error


def publish(bench: Bench, note: str) -> None:
    from compress.store.outdir import OutputFolder

    data = write_model(bench.folder / "scratch.onnx", note).read_bytes()
    manifest = {
        "name": "credit",
        "ships": {"onnxruntime-cpu": "artifacts/credit.onnx", "litert-cpu": None},
        "targets": [{"schema": 1, "name": "onnxruntime-cpu", "runtime": "onnxruntime"}],
    }
    output = OutputFolder(bench.folder / "out", "credit")
    with output.claimed():
        output.publish({"artifacts/credit.onnx": data}, manifest)


def test_errors_of_the_project_are_errors_of_the_tree() -> None:
    assert issubclass(BusyError, CompressError)
    assert isinstance(Baselines(Path(), Path()).folder, Path)


HOG = "while True: sum(range(10000))"


@pytest.mark.slow
def test_under_two_hogs_an_equal_model_is_never_accused_and_a_slow_one_never_passed(tmp_path: Path) -> None:
    sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
    from gate_models import write_models

    models = write_models(tmp_path / "models")
    bench = Bench(tmp_path / "project")
    bench.file.write_bytes(models["base"].read_bytes())
    bench.save()
    hogs = [subprocess.Popen([sys.executable, "-I", "-c", HOG]) for _ in range(2)]
    try:
        equal = bench.row(candidates={"model": models["equal"]})
        slow = bench.row(candidates={"model": models["plus10"]})
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
    assert equal.verdict != "SLOWER"
    assert equal.broken == ()
    assert slow.verdict in ("SLOWER", "UNKNOWN")
    assert slow.exit_code == 1  # more operators, whatever time says

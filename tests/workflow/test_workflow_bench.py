from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from check_kit import Bench, LocalHost, write_model

from compress.bench.findings import BenchFindings
from compress.errors import CompressError, ModelError, WorkerError
from compress.workflow.bench import BenchOptions, bench
from compress.workflow.progress import Silent

QUICK = {"pairs": 5, "budget_s": 5.0, "seconds": 0.02, "sparse_calls": 0}


@pytest.fixture
def canned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench(tmp_path)

    def answer(host: LocalHost, job: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        if job["action"] == "sparse":
            made.jobs.append(dict(job))
            return {"schema": 1, "calls_ms": [5.0, 4.0, 6.0]}
        if job["action"] == "profile":
            return {"schema": 1, "operators": [{"name": "first_layer", "operator": "MatMul", "ms": 0.5}], "calls": 20}
        return made.answer(job, timeout_s)

    monkeypatch.setattr(LocalHost, "run", answer)
    write_model(tmp_path / "second.onnx", "v2")
    return made


def found(folder: Path, *names: str, **options: Any) -> BenchFindings:
    paths = [folder / name for name in names or ("model.onnx", "second.onnx")]
    return bench(paths, BenchOptions(**{**QUICK, **options}), Silent())


def test_files_are_measured_beside_the_first(canned: Bench) -> None:
    canned.ratio = 1.2
    one, two = found(canned.folder).artifacts
    assert one.latency is not None
    assert one.latency.comparison is None
    assert two.latency is not None
    assert two.latency.comparison is not None
    assert two.latency.comparison.baseline == "model.onnx"
    assert two.latency.comparison.verdict == "SLOWER"
    assert two.latency.comparison.ratio == pytest.approx(1.2, rel=0.02)
    assert (one.latency.load_ms, one.latency.first_ms, one.latency.processes) == (8.0, 3.0, 5)
    assert one.memory is not None
    assert one.memory.above_empty_bytes == 4 << 20


def test_throughput_covers_every_batch_and_number_of_threads(canned: Bench) -> None:
    item = found(canned.folder, "model.onnx", batches=(1, 8), threads=(1, 2)).artifacts[0]
    assert [(each.batch, each.threads) for each in item.throughput] == [(1, 1), (8, 1), (1, 2), (8, 2)]
    assert item.throughput[1].rows_per_s == pytest.approx(8 / 0.002, rel=0.05)


def test_rare_calls_are_a_second_apart(canned: Bench) -> None:
    item = found(canned.folder, "model.onnx", sparse_calls=3).artifacts[0]
    assert item.sparse_ms == 5.0
    (job,) = [job for job in canned.jobs if job["action"] == "sparse"]
    assert (job["pause_s"], job["calls"]) == (1.0, 3)


def test_a_profile_says_when_it_cannot_name_layers(canned: Bench) -> None:
    item = found(canned.folder, "model.onnx", profile=True).artifacts[0]
    assert [(each.name, each.ms, each.layer) for each in item.operators] == [("first_layer", 0.5, "")]
    assert "no evidence.json beside" in item.profile_note


def test_a_file_that_cannot_be_measured_is_no_success(canned: Bench) -> None:
    canned.crash["latency"] = WorkerError("killed by SIGSEGV")
    result = found(canned.folder)
    assert result.exit_code == 3
    assert "SIGSEGV" in result.artifacts[0].error


def test_the_rows_are_named(canned: Bench) -> None:
    assert "synthetic" in found(canned.folder, "model.onnx").rows


def test_a_target_of_another_runtime_is_refused(canned: Bench) -> None:
    with pytest.raises(ModelError, match="is for onnxruntime; the target 'litert-cpu' is litert"):
        found(canned.folder, "model.onnx", target="litert-cpu")
    with pytest.raises(CompressError):
        found(canned.folder, "missing.onnx")


def test_no_times_are_taken_on_an_emulated_target(canned: Bench) -> None:
    target = canned.folder / "emulated.toml"
    target.write_text('schema = 1\nruntime = "onnxruntime"\nhost = "emulated"\ncpu = "haswell"\n')
    with pytest.raises(CompressError, match="the target 'emulated' is emulated: it gives answers, not speed"):
        found(canned.folder, target=str(target))
    assert not canned.jobs


def test_operators_are_joined_to_layers_of_the_run_that_made_them(finished: Any) -> None:
    folder = finished.folder / "out/artifacts"
    name = next(path.name for path in sorted(folder.iterdir()) if "float32" in path.name)
    item = found(folder, name, profile=True, recipe=finished.recipe).artifacts[0]
    assert {"first", "second", "head"} <= {each.layer for each in item.operators}
    assert item.profile_note == ""
    assert found(folder, name, recipe=finished.recipe).rows.startswith("the first 1 test rows")


@pytest.mark.parametrize("scheme", ["float32", "int8"])
def test_what_litert_ran_is_joined_to_layers(on_both: Any, scheme: str) -> None:
    folder = on_both.folder / "out/artifacts"
    name = next(path.name for path in sorted(folder.glob("*.tflite")) if scheme in path.name)
    item = found(folder, name, profile=True, recipe=on_both.recipe).artifacts[0]
    assert {"first", "second", "head"} <= {each.layer for each in item.operators}

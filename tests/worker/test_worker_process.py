"""The worker as it is deployed: a folder, run by an isolated Python, perhaps somewhere else."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import compress.worker
from compress.worker.arrays import read_arrays, write_arrays

FOLDER = Path(compress.worker.__file__).parent

# Runs the folder as `python -I FOLDER JOB.json` does, then tells what was imported.
DRIVER = """
import json, runpy, sys
folder, job, told = sys.argv[1:]
sys.argv = [folder, job]
try:
    runpy.run_path(folder, run_name="__main__")
except SystemExit as ended:
    code = ended.code
with open(told, "w") as file:
    json.dump({"code": code, "modules": sorted(sys.modules)}, file)
"""


def run(tmp_path: Path, folder: Path = FOLDER, **job: Any) -> tuple[int, dict[str, Any], str]:
    request, result = tmp_path / "job.json", tmp_path / "result.json"
    request.write_text(json.dumps({"schema": 1, "result": str(result), **job}))
    done = subprocess.run([sys.executable, "-I", str(folder), str(request)], capture_output=True, text=True, timeout=60)
    return done.returncode, json.loads(result.read_text()) if result.exists() else {}, done.stderr


@pytest.fixture
def inputs(tmp_path: Path, rows: dict[str, Any]) -> str:
    path = tmp_path / "inputs.npz"
    write_arrays(path, rows)
    return str(path)


def test_outputs_of_all_rows_are_written(tmp_path: Path, onnx_file: Path, inputs: str, score: Any) -> None:
    job = {"action": "outputs", "runtime": "onnxruntime", "artifact": str(onnx_file), "inputs": inputs, "batch": 3}
    code, result, _ = run(tmp_path, outputs=str(tmp_path / "out.npz"), **job)
    assert (code, result) == (0, {"schema": 1, "action": "outputs", "cpus": [], "rows": 7, "outputs": ["score"]})
    np.testing.assert_allclose(read_arrays(tmp_path / "out.npz")["score"], score, rtol=1e-5, atol=1e-5)


def test_latency_tells_load_first_answer_samples_and_memory(tmp_path: Path, onnx_file: Path, inputs: str) -> None:
    job = {"action": "latency", "runtime": "onnxruntime", "artifact": str(onnx_file), "inputs": inputs, "batch": 2}
    code, result, _ = run(tmp_path, seconds=0.05, warmup_s=0.01, cpus=[0], **job)
    assert code == 0
    # It says where it stayed.
    assert result["cpus"] == [0]
    assert result["load_ms"] > 0
    assert result["first_ms"] > 0
    assert result["calls_per_sample"] > 1
    assert len(result["samples_ms"]) >= 3
    assert min(result["samples_ms"]) > 0
    assert result["peak_rss_bytes"] > 1 << 20


def test_an_empty_worker_needs_less_memory_than_one_with_an_artifact(
    tmp_path: Path, onnx_file: Path, inputs: str
) -> None:
    _, empty, _ = run(tmp_path, action="empty", runtime="onnxruntime")
    job = {"action": "latency", "runtime": "onnxruntime", "artifact": str(onnx_file), "inputs": inputs}
    _, full, _ = run(tmp_path, seconds=0.01, **job)
    assert 1 << 20 < empty["peak_rss_bytes"] < full["peak_rss_bytes"]


def test_describe_gives_signature_and_placement(tmp_path: Path, onnx_file: Path) -> None:
    code, result, _ = run(tmp_path, action="describe", runtime="onnxruntime", artifact=str(onnx_file))
    assert code == 0
    assert result["inputs"] == {"x": {"shape": [None, 4], "dtype": "float32"}}
    assert result["outputs"] == {"score": {"shape": [None, 2], "dtype": "float32"}}
    assert {"operator": "Clip", "count": 1, "accelerated": True, "reason": ""} in result["placement"]["operators"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"artifact": "/nowhere/a.onnx"}, "a.onnx: ONNX Runtime"),
        ({"inputs": "/nowhere/i.npz"}, "i.npz: not readable"),
        ({"runtime": "onnx"}, "unknown runtime 'onnx'"),
        ({"batch": 8}, "holds 7 rows; the batch is 8"),
    ],
)
def test_an_error_is_an_answer_not_a_traceback(
    tmp_path: Path, onnx_file: Path, inputs: str, change: dict[str, Any], message: str
) -> None:
    job = {"action": "latency", "runtime": "onnxruntime", "artifact": str(onnx_file), "inputs": inputs}
    code, result, stderr = run(tmp_path, **{**job, **change})
    assert code == 1
    assert message in result["error"]["message"]
    assert "Traceback" not in stderr


def test_what_a_runtime_raises_while_running_is_an_answer_too(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "ids"], ["y"])],
        "lookup",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch"])],
        [helper.make_tensor("table", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0])],
    )
    artifact = tmp_path / "lookup.onnx"
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), artifact)
    write_arrays(tmp_path / "in.npz", {"ids": np.array([99])})
    job = {"runtime": "onnxruntime", "artifact": str(artifact), "inputs": str(tmp_path / "in.npz")}
    code, result, stderr = run(tmp_path, action="outputs", outputs=str(tmp_path / "out.npz"), **job)
    assert code == 1
    assert "indices element out of data bounds" in result["error"]["message"]
    assert "Traceback" not in stderr
    assert not (tmp_path / "out.npz").exists()


def test_a_job_that_cannot_be_read_is_said_on_stderr(tmp_path: Path) -> None:
    code, result, stderr = run(tmp_path, action="train", runtime="onnxruntime")
    assert (code, result) == (1, {})
    assert "action must be one of" in stderr
    assert "Traceback" not in stderr


def test_the_alarm_ends_a_worker_that_nobody_waits_for(tmp_path: Path, onnx_file: Path, inputs: str) -> None:
    job = {"action": "latency", "runtime": "onnxruntime", "artifact": str(onnx_file), "inputs": inputs}
    code, result, _ = run(tmp_path, seconds=50, limit_s=0.5, **job)
    assert code < 0
    assert result == {}


@pytest.mark.parametrize(("runtime", "other"), [("onnxruntime", "ai_edge_litert"), ("litert", "onnxruntime")])
def test_a_copied_worker_imports_its_runtime_and_nothing_of_ours(tmp_path: Path, runtime: str, other: str) -> None:
    folder = tmp_path / "elsewhere"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__"))
    job, told = tmp_path / "job.json", tmp_path / "told.json"
    job.write_text(
        json.dumps({"schema": 1, "action": "empty", "runtime": runtime, "result": str(tmp_path / "result.json")})
    )
    subprocess.run([sys.executable, "-I", "-c", DRIVER, str(folder), str(job), str(told)], check=True, timeout=60)
    seen = json.loads(told.read_text())
    tops = {name.partition(".")[0] for name in seen["modules"]}
    assert seen["code"] == 0
    assert "edge_worker" in tops
    assert not tops & {"compress", "torch", "tensorflow", "pydantic", "pandas", "onnx", other}


def test_files_of_the_folder_hide_no_other_modules(tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "zipfile.py").write_text("raise RuntimeError('this is not the zipfile of Python')")
    code, result, stderr = run(tmp_path, folder, action="empty", runtime="onnxruntime")
    assert (code, stderr) == (0, "")
    assert result["peak_rss_bytes"] > 1 << 20


def test_the_source_imports_only_the_standard_library_numpy_and_one_runtime() -> None:
    allowed = {*sys.stdlib_module_names, "numpy"}
    for path in FOLDER.glob("*.py"):
        outside = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                outside |= {name.name.partition(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                outside.add(str(node.module).partition(".")[0])
        outside -= allowed
        # ExecuTorch's Python package takes and gives tensors of torch: both are that runtime.
        if "executorch" in outside:
            outside.discard("torch")
        assert len(outside) <= 1, path
        # A session, or what one of them is made of: its runtime's name stands first.
        assert not outside or path.stem.endswith("_session") or path.stem.startswith(f"{min(outside)}_"), path

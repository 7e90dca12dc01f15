"""The engine's way around TensorRT: built, packed, refused elsewhere, and run. Its package here is `fake_tensorrt`."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpu_kit import compiled_driver, use_driver

from compress.worker.errors import JobError
from compress.worker.job import parse_job
from compress.worker.session import TensorSpec, open_session
from compress.worker.tensorrt_build import shapes


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    return compiled_driver(tmp_path_factory.mktemp("driver"))


@pytest.fixture(autouse=True)
def _gpu(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import fake_tensorrt

    use_driver(monkeypatch, library)
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt)
    monkeypatch.setattr(fake_tensorrt, "__version__", "10.9.0")


def built(onnx_file: Path, folder: Path, batch: int = 3, timings: Path | None = None) -> tuple[Path, dict[str, Any]]:
    from compress.worker.actions import perform

    made = folder / "tiny.plan.zip"
    job = {
        "schema": 1,
        "action": "build",
        "runtime": "tensorrt",
        "artifact": str(onnx_file),
        "outputs": str(made),
        "result": "",
        "batch": batch,
        **({"inputs": str(timings)} if timings else {}),
    }
    return made, perform(parse_job(job))["manifest"]


def test_the_manifest_states_what_the_engine_is_for(onnx_file: Path, tmp_path: Path) -> None:
    made, manifest = built(onnx_file, tmp_path)
    told = {key: manifest[key] for key in ("gpu", "compute_capability", "tensorrt", "batch")}
    assert told == {"gpu": "Fake GPU", "compute_capability": "8.7", "tensorrt": "10.9.0", "batch": 3}
    assert manifest["flags"] == {
        "strongly_typed": True,
        "tf32": False,
        "builder_optimization_level": 3,
        "avg_timing_iterations": 8,
        "workspace_bytes": 1 << 30,
    }
    with zipfile.ZipFile(made) as archive:
        assert archive.namelist() == ["manifest.json", "engine.plan", "timing.cache"]
        assert json.loads(archive.read("manifest.json")) == manifest
        assert json.loads(archive.read("engine.plan"))["shapes"] == {"x": [[1, 4], [3, 4], [3, 4]]}
        assert archive.read("timing.cache") == b"+timed"


def test_timings_of_an_earlier_build_are_used(onnx_file: Path, tmp_path: Path) -> None:
    known = tmp_path / "timing.cache"
    known.write_bytes(b"known")
    made, manifest = built(onnx_file, tmp_path, timings=known)
    assert manifest["timings_known_sha256"]
    with zipfile.ZipFile(made) as archive:
        assert archive.read("timing.cache") == b"known+timed"


def test_timings_of_another_gpu_are_left_alone(onnx_file: Path, tmp_path: Path) -> None:
    known = tmp_path / "timing.cache"
    known.write_bytes(b"of another GPU")
    made, _ = built(onnx_file, tmp_path, timings=known)
    with zipfile.ZipFile(made) as archive:
        assert archive.read("timing.cache") == b"+timed"


def test_every_row_is_answered_at_any_batch(onnx_file: Path, tmp_path: Path, rows: dict[str, Any], score: Any) -> None:
    with open_session("tensorrt", built(onnx_file, tmp_path)[0], 1, {"provider": "cuda"}) as session:
        assert session.inputs == {"x": TensorSpec((None, 4), "float32")}
        for count in (7, 1, 3, 4):
            made = session.run({"x": rows["x"][:count]})
            np.testing.assert_allclose(made["score"], score[:count], rtol=1e-5, atol=1e-5)


def test_prepared_calls_keep_their_rows(onnx_file: Path, tmp_path: Path, rows: dict[str, Any], score: Any) -> None:
    with open_session("tensorrt", built(onnx_file, tmp_path)[0], 1) as session:
        first, second = session.prepare({"x": rows["x"]}), session.prepare({"x": rows["x"][:2]})
        for call in (first, second, first, second):
            call()
        np.testing.assert_allclose(session.run({"x": rows["x"][2:4]})["score"], score[2:4], rtol=1e-5, atol=1e-5)


def test_layers_and_their_times_are_told(onnx_file: Path, tmp_path: Path, rows: dict[str, Any]) -> None:
    with open_session("tensorrt", built(onnx_file, tmp_path)[0], 1) as session:
        placement = session.placement("float")
        assert {item.operator: (item.count, item.accelerated) for item in placement.operators} == {
            "fused layer": (1, True),
            "layer": (1, True),
        }
        times = session.profile({"x": rows["x"][:1]}, 4)
        assert [(item.name, item.ms) for item in times] == [("first_layer + active", 0.5), ("second_layer", 0.25)]


def test_an_engine_is_refused_on_another_gpu_and_another_version(
    onnx_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _ = built(onnx_file, tmp_path)
    monkeypatch.setattr(sys.modules["tensorrt"], "__version__", "10.10.0")
    with pytest.raises(JobError, match=r"was built by TensorRT 10\.9\.0; here is 10\.10\.0") as error:
        open_session("tensorrt", made, 1)
    assert "edge-compress run" in error.value.hint
    with zipfile.ZipFile(made) as archive:
        manifest, plan = json.loads(archive.read("manifest.json")), archive.read("engine.plan")
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("manifest.json", json.dumps({**manifest, "gpu": "NVIDIA H100", "compute_capability": "9.0"}))
        archive.writestr("engine.plan", plan)
    with pytest.raises(JobError, match=r"built for NVIDIA H100 \(compute capability 9\.0\); here is Fake GPU"):
        open_session("tensorrt", made, 1)


@pytest.mark.parametrize("damage", ["cut", "other plan", "no manifest"])
def test_a_damaged_engine_is_named(damage: str, onnx_file: Path, tmp_path: Path) -> None:
    made, _ = built(onnx_file, tmp_path)
    data = made.read_bytes()
    if damage == "cut":
        made.write_bytes(data[: len(data) // 2])
    else:
        with zipfile.ZipFile(made, "w") as archive:
            archive.writestr("engine.plan", b"another")
            if damage == "other plan":
                archive.writestr("manifest.json", json.dumps({"plan_sha256": "0" * 64}))
    with pytest.raises(JobError, match=r"tiny\.plan\.zip: "):
        open_session("tensorrt", made, 1)


def test_what_tensorrt_refuses_is_named(onnx_file: Path, tmp_path: Path) -> None:
    import onnx

    for operator, said in (
        ("Det", r"refuses the network: Det \(active\): no importer registered"),
        ("Sin", "cannot build the engine: Could not find any implementation for node Sin"),
    ):
        proto = onnx.load(onnx_file)
        proto.graph.node[1].op_type = operator
        onnx.save(proto, tmp_path / "odd.onnx")
        with pytest.raises(JobError, match=said):
            built(tmp_path / "odd.onnx", tmp_path)


def test_an_old_or_missing_package_is_named(onnx_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["tensorrt"], "__version__", "8.6.1")
    with pytest.raises(JobError, match=r"TensorRT 8\.6\.1 is too old: 10 or newer is needed"):
        built(onnx_file, tmp_path)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(JobError, match="TensorRT cannot be imported here") as error:
        built(onnx_file, tmp_path)
    assert "python3-libnvinfer" in error.value.hint


def test_shapes_of_a_profile() -> None:
    assert shapes((-1, 3, 4), 8) == ((1, 3, 4), (8, 3, 4), (8, 3, 4))
    assert shapes((2, 3), 8) is None
    with pytest.raises(JobError, match="free dimension besides its batch"):
        shapes((-1, -1), 8)

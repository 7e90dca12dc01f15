"""Targets on a GPU: what they say where there is none, and how an engine is built, kept and asked where there is one.

The GPU is a driver compiled for the tests and a package `tensorrt` of theirs, in this process: see tests/worker.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import Workshop
from tiny_project import Project

from compress.errors import LoweringError, ModelError
from compress.hosts import calls
from compress.recipe import BUILTIN_SCHEMES, Recipe
from compress.store.cache import Cache
from compress.target import Target, load_target
from compress.worker.job import parse_job
from compress.workflow import engine
from compress.workflow.files import open_files
from compress.workflow.plan import Plan
from compress.workflow.progress import Silent

KIT = Path(__file__).resolve().parent.parent / "worker"
no_gpu = pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="there is a GPU")


@no_gpu
@pytest.mark.usefixtures("canned_latency")
def test_without_a_gpu_its_targets_say_what_to_do_and_the_others_are_measured(on_both: Project) -> None:
    names = ["onnxruntime-cpu", "torch-cpu", "tensorrt", "onnxruntime-cuda", "torch-cuda"]
    on_both.change(targets=names, schemes=["float32"])
    outcome = on_both.run()
    assert outcome.exit_code == 3
    found = {target.target: target for target in on_both.evidence().targets}
    for name in names[:2]:
        assert not found[name].error and found[name].candidates[0].metrics
    assert found["torch-cpu"].candidates[0].artifact.file.endswith(".pt2")
    for name in names[2:]:
        assert found[name].candidates == ()
        assert f"edge-compress run {on_both.recipe} --target {name}" in found[name].error
    assert "no NVIDIA GPU here" in found["tensorrt"].error


class InHere:
    """A host that does the job in this process, where the tests' package `tensorrt` can be imported."""

    tells_time = True
    machine = ""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def run(self, job: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        from compress.worker.actions import perform

        self.asked.append(job["action"])
        return {"schema": 1, **perform(parse_job({"schema": 1, "result": "", "provider": "cuda", **job}))}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InHere:
    monkeypatch.syspath_prepend(str(KIT))
    import fake_tensorrt
    from gpu_kit import compiled_driver, use_driver

    use_driver(monkeypatch, compiled_driver(tmp_path))
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt)
    made = InHere()
    monkeypatch.setattr(engine, "open_host", lambda target: made)
    return made


TARGET = load_target("tensorrt", Path())
RECIPE = Recipe.model_validate(
    {
        "schema": 1,
        "model": {"source": "m.py:f"},
        "data": {"source": "r.csv"},
        "targets": ["tensorrt"],
        "measure": {"batch": 4},
    }
)
PLAN = Plan(RECIPE, Path(), "recipe.toml", (TARGET,), RECIPE.quant_schemes())


@pytest.fixture(scope="module")
def workshop() -> Workshop:
    return Workshop()


def test_an_engine_is_built_once_and_answers_like_the_graph(host: InHere, workshop: Workshop, tmp_path: Path) -> None:
    cache, lowered = Cache(tmp_path / "cache"), workshop.lowered("tensorrt", "mlp")
    made = engine.built(lowered, "float32", TARGET, PLAN, cache, Silent())
    assert host.asked == ["empty", "build"]
    assert made.suffix == ".plan.zip"
    assert "engine for Fake GPU (compute capability 8.7) and TensorRT 10.9.0 alone, up to 4 rows a call" in made.notes
    again = engine.built(lowered, "float32", TARGET, PLAN, cache, Silent())
    assert again == made and host.asked == ["empty", "build", "empty"]
    path = tmp_path / "mlp.plan.zip"
    path.write_bytes(made.data)
    rows = workshop.tiny("mlp").rows(10)
    got = calls.run_outputs(host, "tensorrt", path, rows, threads=1, batch=10, timeout_s=60)
    wanted = workshop.tiny("mlp", fold=True).model.run(rows)
    np.testing.assert_allclose(got["score"], wanted["score"], rtol=1e-4, atol=1e-5)


def test_another_version_or_batch_builds_anew_and_timings_are_handed_on(
    host: InHere, workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(tmp_path / "cache")
    for name in ("mlp", "two-ways"):
        engine.built(workshop.lowered("tensorrt", name), "float32", TARGET, PLAN, cache, Silent())
    known = [cache.require(cache.get(step)["blobs"]["data"]) for step in cache.made if step.startswith("timings-")]
    assert known[-1] == b"+timed+timed"
    monkeypatch.setattr(sys.modules["tensorrt"], "__version__", "10.10.0")
    engine.built(workshop.lowered("tensorrt", "mlp"), "float32", TARGET, PLAN, cache, Silent())
    assert host.asked.count("build") == 3


def test_a_failed_build_is_an_error_of_its_scheme(host: InHere, workshop: Workshop, tmp_path: Path) -> None:
    lowered = workshop.artifact("onnxruntime", "conv", BUILTIN_SCHEMES["int8-static"])
    with pytest.raises(LoweringError, match="TensorRT would refuse the network"):
        engine.built(lowered, "int8-static", TARGET, PLAN, Cache(tmp_path / "cache"), Silent())
    assert host.asked == []


def test_an_engine_that_lies_about_is_not_measured(host: InHere, workshop: Workshop, tmp_path: Path) -> None:
    made = engine.built(workshop.lowered("tensorrt", "mlp"), "float32", TARGET, PLAN, Cache(tmp_path / "c"), Silent())
    path = tmp_path / f"mlp{made.suffix}"
    path.write_bytes(made.data)
    with pytest.raises(ModelError, match="an engine is machine code for one GPU"):
        open_files([path])


def test_other_runtimes_keep_their_files(workshop: Workshop, tmp_path: Path) -> None:
    target = Target.model_validate({"schema": 1, "name": "cpu", "runtime": "onnxruntime"})
    lowered = workshop.lowered("onnxruntime", "mlp")
    assert engine.built(lowered, "float32", target, PLAN, Cache(tmp_path), Silent()) is lowered
    assert engine.processor(target, PLAN) == ""

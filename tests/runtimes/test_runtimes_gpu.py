"""On a real GPU: files are lowered, built and run in workers there, and answer like the graph. `pytest -m gpu -rs`."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import engine, sqnr_db

from compress.bench.conductor import BenchItem
from compress.errors import CompressError, WorkerError
from compress.hosts import open_host
from compress.hosts.calls import ask, describe, run_outputs
from compress.recipe import BUILTIN_SCHEMES, Recipe
from compress.store.cache import Cache
from compress.target import Target, load_target
from compress.workflow.engine import built
from compress.workflow.plan import Plan
from compress.workflow.progress import Silent
from compress.workflow.timing import time_files

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(1800)]

TARGETS = [
    "torch-cuda",
    "torch-compile-cuda",
    "onnxruntime-cuda",
    "onnxruntime-tensorrt",
    "onnxruntime-rtx",
    "tensorrt",
]
FLOORS_DB = {"float32": 80, "float16": 45, "int8-static": 20}
RECIPE = Recipe.model_validate(
    {
        "schema": 1,
        "model": {"source": "m.py:f"},
        "data": {"source": "r.csv"},
        "targets": ["tensorrt"],
        "measure": {"batch": 8, "pairs": 5, "max_pairs": 5, "seconds": 0.05, "timeout_s": 900},
    }
)


@pytest.fixture(scope="module", params=TARGETS)
def place(request: pytest.FixtureRequest) -> Target:
    """A target that works here; one whose packages are not installed is skipped, with what would bring them."""
    target = load_target(request.param, Path())
    try:
        answer = ask(open_host(target), {"action": "empty", "runtime": target.runtime}, 300)
    except WorkerError as error:
        pytest.skip(f"{error.message}: {error.hint}")
    assert answer["processor"] and answer["version"]
    return target


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("cache"))


def artifact(workshop: Any, place: Target, name: str, scheme: str, cache: Cache, folder: Path) -> Path:
    lowered, wanted = workshop.lowered(place.runtime, name), BUILTIN_SCHEMES[scheme]
    if wanted.dtype != "float32":
        if (wanted.dtype, wanted.activations) not in engine(place.runtime).schemes:
            pytest.skip(f"{place.runtime} has no {scheme}")
        lowered = engine(place.runtime).quantize(lowered, wanted, workshop.ranges(name), place)
    plan = Plan(RECIPE, Path(), "recipe.toml", (place,), RECIPE.quant_schemes())
    made = built(lowered, scheme, place, plan, cache, Silent())
    path = folder / f"{name}.{scheme}{made.suffix}"
    path.write_bytes(made.data)
    return path


@pytest.mark.parametrize("scheme", FLOORS_DB)
@pytest.mark.parametrize("name", ["mlp", "conv", "attention", "two-ways"])
def test_a_file_answers_like_the_graph(
    workshop: Any, place: Target, name: str, scheme: str, cache: Cache, tmp_path: Path
) -> None:
    path = artifact(workshop, place, name, scheme, cache, tmp_path)
    rows = workshop.tiny(name).rows(21, seed=1)
    wanted = workshop.tiny(name, fold=True).model.run(rows)
    for batch in (1, 8, 21):
        got = run_outputs(open_host(place), place.runtime, path, rows, threads=1, batch=batch, timeout_s=900)
        for output, array in wanted.items():
            assert got[output].shape == array.shape and got[output].dtype == np.float32
            assert sqnr_db(array, got[output]) > FLOORS_DB[scheme], (output, batch)


def test_operators_run_on_the_gpu(workshop: Any, place: Target, cache: Cache, tmp_path: Path) -> None:
    path = artifact(workshop, place, "conv", "float32", cache, tmp_path)
    found = describe(open_host(place), place.runtime, path, precision="float", threads=1, timeout_s=900).placement
    assert "CPU" not in found.path and "cpu" not in found.path
    assert sum(item.count for item in found.operators if item.accelerated) > 0
    assert all(item.accelerated or item.reason for item in found.operators)


def test_schemes_are_timed_beside_each_other(workshop: Any, place: Target, cache: Cache, tmp_path: Path) -> None:
    paths = [artifact(workshop, place, "conv", scheme, cache, tmp_path) for scheme in ("float32", "float16")]
    items = [BenchItem(path.name, place.runtime, path) for path in paths]
    results = time_files(open_host(place), items, workshop.tiny("conv").rows(8), RECIPE, 1, Silent())
    for result in results.values():
        assert not result.error and result.latency is not None and result.latency.median_ms > 0


def test_operators_are_timed(workshop: Any, place: Target, cache: Cache, tmp_path: Path) -> None:
    if place.compile:
        pytest.skip("a compiled graph has no single operators")
    path, rows = artifact(workshop, place, "mlp", "float32", cache, tmp_path), tmp_path / "rows.npz"
    np.savez(rows, **workshop.tiny("mlp").rows(8))
    job = {"action": "profile", "artifact": str(path), "inputs": str(rows), "batch": 8, "calls": 10}
    times = ask(open_host(place), {**job, "runtime": place.runtime}, 900)["operators"]
    assert times and all(item["ms"] >= 0 for item in times)


def test_an_engine_is_refused_where_its_manifest_does_not_hold(
    workshop: Any, place: Target, cache: Cache, tmp_path: Path
) -> None:
    if place.runtime != "tensorrt":
        pytest.skip("only TensorRT's files are engines")
    path = artifact(workshop, place, "mlp", "float32", cache, tmp_path)
    with zipfile.ZipFile(path) as archive:
        manifest, plan = json.loads(archive.read("manifest.json")), archive.read("engine.plan")
    for key, value, said in (("gpu", "Another GPU", "built for Another GPU"), ("tensorrt", "9.9.9", "TensorRT 9.9.9")):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("manifest.json", json.dumps({**manifest, key: value}))
            archive.writestr("engine.plan", plan)
        with pytest.raises(CompressError, match=said):
            describe(open_host(place), "tensorrt", path, precision="float", threads=1, timeout_s=300)

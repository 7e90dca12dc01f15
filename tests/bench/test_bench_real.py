"""One small measurement from end to end, with real workers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compress.bench import BenchItem, measure
from compress.hosts.local import LocalHost


def chain(path: Path, layers: int) -> Path:
    """`layers` products with a 256 x 256 matrix."""
    matrix = np.random.default_rng(0).normal(size=(256, 256)).astype(np.float32) / 16
    names = ["x", *(f"h{number}" for number in range(layers - 1)), "y"]
    graph = helper.make_graph(
        [helper.make_node("MatMul", [names[at], "matrix"], [names[at + 1]]) for at in range(layers)],
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 256])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 256])],
        [numpy_helper.from_array(matrix, "matrix")],
    )
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def test_more_arithmetic_is_slower_and_a_broken_file_is_an_error(tmp_path: Path) -> None:
    np.savez(tmp_path / "inputs.npz", x=np.ones((64, 256), np.float32))
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    items = [
        BenchItem("float32", "onnxruntime", chain(tmp_path / "one.onnx", 1)),
        BenchItem("long", "onnxruntime", chain(tmp_path / "many.onnx", 12)),
        BenchItem("broken", "onnxruntime", tmp_path / "broken.onnx"),
    ]
    results = measure(
        LocalHost(),
        items,
        tmp_path / "inputs.npz",
        threads=1,
        batch=64,
        seconds=0.03,
        pairs=5,
        max_pairs=5,
        tolerance=0.02,
        seed=0,
        timeout_s=60,
    )
    long, baseline = results["long"].latency, results["float32"].latency
    assert long is not None
    assert baseline is not None
    assert long.comparison is not None
    assert long.comparison.verdict == "SLOWER"
    assert long.median_ms > baseline.median_ms
    assert min(baseline.load_ms, baseline.first_ms) > 0
    memory = results["long"].memory
    assert memory is not None
    assert memory.above_empty_bytes > 0
    assert "broken.onnx: ONNX Runtime" in results["broken"].error


def test_the_result_goes_to_json_and_back(tmp_path: Path) -> None:
    from compress.evidence import Latency, from_json, to_json

    np.savez(tmp_path / "inputs.npz", x=np.ones((1, 256), np.float32))
    items = [BenchItem("float32", "onnxruntime", chain(tmp_path / "one.onnx", 1))]
    settings = {"threads": 1, "batch": 1, "seconds": 0.01, "pairs": 5, "max_pairs": 5, "tolerance": 0.02}
    result = measure(LocalHost(), items, tmp_path / "inputs.npz", **settings, seed=0, timeout_s=60)["float32"]
    assert result.latency is not None
    assert from_json(Latency, to_json(result.latency)) == result.latency
    assert result.latency.p90_ms is None
    assert result.latency.median_ms == pytest.approx(np.median([np.median(times) for times in result.latency.samples]))

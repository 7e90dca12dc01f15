"""Tiny artifacts, built when a test first asks for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROWS = 7


@pytest.fixture(scope="session")
def weights() -> dict[str, Any]:
    """What the tiny model computes with: `score = clip(x @ first, 0, 6) @ second`."""
    random = np.random.default_rng(0)
    return {
        "first": random.normal(size=(4, 8)).astype(np.float32),
        "second": random.normal(size=(8, 2)).astype(np.float32),
    }


@pytest.fixture(scope="session")
def rows() -> dict[str, Any]:
    return {"x": np.random.default_rng(1).normal(size=(ROWS, 4)).astype(np.float32)}


@pytest.fixture(scope="session")
def score(weights: dict[str, Any], rows: dict[str, Any]) -> Any:
    return np.clip(rows["x"] @ weights["first"], 0, 6) @ weights["second"]


def two_matmuls(path: Path, weights: dict[str, Any], batch: int | str) -> Path:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    bounds = {"low": np.float32(0), "high": np.float32(6)}
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "first"], ["hidden"], "first_layer"),
            helper.make_node("Clip", ["hidden", "low", "high"], ["active"], "active"),
            helper.make_node("MatMul", ["active", "second"], ["score"], "second_layer"),
        ],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 4])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, [batch, 2])],
        [numpy_helper.from_array(value, name) for name, value in {**weights, **bounds}.items()],
    )
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


@pytest.fixture(scope="session")
def onnx_file(tmp_path_factory: pytest.TempPathFactory, weights: dict[str, Any]) -> Path:
    """The tiny model with a free batch."""
    return two_matmuls(tmp_path_factory.mktemp("onnx") / "tiny.onnx", weights, "batch")


@pytest.fixture(scope="session")
def onnx_batch2_file(tmp_path_factory: pytest.TempPathFactory, weights: dict[str, Any]) -> Path:
    """The tiny model for exactly two rows."""
    return two_matmuls(tmp_path_factory.mktemp("onnx") / "tiny2.onnx", weights, 2)


@pytest.fixture(scope="session")
def onnx_int8_file(onnx_file: Path) -> Path:
    """The tiny model with its first layer in dynamic int8 and its second left in float."""
    from onnxruntime.quantization import quantize_dynamic

    path = onnx_file.with_name("tiny-int8.onnx")
    quantize_dynamic(str(onnx_file), str(path), nodes_to_exclude=["second_layer"])
    return path


@pytest.fixture(scope="session")
def tflite_files(tmp_path_factory: pytest.TempPathFactory, weights: dict[str, Any]) -> dict[str, Path]:
    """`fixed`: the tiny model for one row; `ids`: a look-up of 64-bit ids before it; `free`: linear, any batch."""
    import litert_torch
    import torch

    class Tiny(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Parameter(torch.from_numpy(weights["first"].T.copy()))
            self.second = torch.nn.Parameter(torch.from_numpy(weights["second"].T.copy()))

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            hidden = torch.nn.functional.linear(x, self.first)
            return {"score": torch.nn.functional.linear(torch.nn.functional.relu6(hidden), self.second)}

    class Linear(Tiny):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            # litert-torch 0.10 cannot convert a pointwise operator between two linear ones with a free batch.
            return {"score": torch.nn.functional.linear(torch.nn.functional.linear(x, self.first), self.second)}

    class LookUp(Tiny):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.nn.Embedding.from_pretrained(torch.arange(12.0).reshape(3, 4))

        def forward(self, ids: torch.Tensor, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return super().forward(x + self.table(ids))

    folder = tmp_path_factory.mktemp("tflite")
    x, ids = torch.zeros(2, 4), torch.ones(1, dtype=torch.int64)
    batch = {"x": {0: torch.export.Dim("batch", min=1, max=64)}}
    made = {
        "fixed": litert_torch.convert(Tiny().eval(), sample_kwargs={"x": x[:1]}),
        "free": litert_torch.convert(Linear().eval(), sample_kwargs={"x": x}, dynamic_shapes=batch),
        "ids": litert_torch.convert(LookUp().eval(), sample_kwargs={"ids": ids, "x": x[:1]}),
    }
    paths = {name: folder / f"{name}.tflite" for name in made}
    for name, model in made.items():
        model.export(str(paths[name]))
    return paths

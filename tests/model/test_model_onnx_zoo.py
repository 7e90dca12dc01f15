"""Every member of the zoo comes back from its own ONNX file with its answers, its layers and its arithmetic."""

import numpy as np
import pytest
import torch
from onnx_kit import parity

from compress import zoo
from compress.model.core import TensorInfo
from compress.model.cost import cost
from compress.model.factory import export_module
from compress.model.layers import layers
from compress.model.onnx_import import load_onnx
from compress.runtimes.onnxruntime.export import export

ROWS = 3
TASKS = ["default:binary", "delinquency:3", "growth:regression"]
RANDOM = np.random.default_rng(0)
IMAGES = {"image": RANDOM.normal(size=(ROWS, 3, 96, 96)).astype(np.float32)}
FEATURES = RANDOM.normal(size=(ROWS, 12)).astype(np.float32)
FEATURES[0, 3] = np.nan
SERIES = RANDOM.normal(size=(ROWS, 12, 6)).astype(np.float32)
SERIES[0, :5] = np.nan
IDS = RANDOM.integers(1, 500, (ROWS, 32))
MASK = (np.arange(32) < np.array([[32], [20], [4]])).astype(np.int64)

MEMBERS = [
    *((name, {}, IMAGES) for name in ("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "efficientnet_b0")),
    (
        "ft_transformer",
        {"numeric": 12, "categories": [3, 5]},
        {"numeric": FEATURES, "categories": np.array([[0, 1], [2, 4], [-1, 5]])},
    ),
    ("transaction_transformer", {"features_per_step": 6, "steps": 12}, {"transactions": SERIES}),
    ("lstm_baseline", {"features_per_step": 6, "steps": 12}, {"transactions": SERIES}),
    ("compact_bert", {"vocabulary": 500}, {"input_ids": IDS * MASK, "attention_mask": MASK}),
    *(
        (name, {"features": 12, "tasks": TASKS, "sharing": sharing}, {"features": FEATURES})
        for name in ("multitask_mlp", "multitask_transformer")
        for sharing in ("hard", "soft")
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments", "feeds"), MEMBERS, ids=[f"{item[0]}-{at}" for at, item in enumerate(MEMBERS)]
)
def test_member_comes_back_from_its_file(name, arguments, feeds, tmp_path):
    torch.manual_seed(0)
    module = getattr(zoo, name)(**arguments).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += torch.randn_like(parameter) * (0.1 if parameter.dim() == 1 else 0.01)
    infos = [TensorInfo(key, array.shape[1:], str(array.dtype)) for key, array in feeds.items()]
    model = export_module(module, infos, (), name)
    path = tmp_path / "model.onnx"
    path.write_bytes(export(model).data)
    imported = load_onnx(path)
    assert parity(path, feeds, tmp_path, imported=imported) <= 1e-4
    assert [item.name for item in imported.signature.outputs] == [item.name for item in model.signature.outputs]
    assert sorted(layer.operator for layer in layers(imported)) == sorted(layer.operator for layer in layers(model))
    assert cost(imported).macs == cost(model).macs

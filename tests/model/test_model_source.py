from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from compress.errors import ModelError, UnsafeFileError
from compress.model.core import TensorInfo
from compress.model.onnx_file import OnnxFile
from compress.model.source import load_model
from compress.recipe import ModelConfig

FACTORY = """
from torch import nn

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.left = nn.Linear(4, 3)
        self.right = nn.Linear(5, 3)
    def forward(self, zeta, alpha):
        return {"score": self.left(zeta) + self.right(alpha)}

def build():
    return Two()

def single():
    return nn.Linear(4, 2)
"""
ZETA, ALPHA = TensorInfo("zeta", (4,), "float32"), TensorInfo("alpha", (5,), "float32")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "net.py").write_text(FACTORY)
    return tmp_path


def load(folder, inputs, **config):
    return load_model(ModelConfig.model_validate(config), inputs, folder)


def archived(folder, source, *inputs):
    model = load(folder, inputs, source=source)
    (folder / "model.pt2").write_bytes(model.to_bytes())
    return model


def test_a_factory_becomes_a_model(folder):
    model = load(folder, [ALPHA, ZETA], source="net.py:build")
    assert model.signature.inputs == (ZETA, ALPHA)
    assert model.lineage == ("net.py:build",)


def test_an_archive_gives_the_same_model_whatever_the_order_of_the_data(folder):
    model = archived(folder, "net.py:build", ZETA, ALPHA)
    torch.manual_seed(0)
    again = load(folder, [ALPHA, ZETA], source="model.pt2")
    assert again.signature == model.signature
    rows = {"zeta": np.ones((2, 4), np.float32), "alpha": np.ones((2, 5), np.float32)}
    np.testing.assert_array_equal(again.run(rows)["score"], model.run(rows)["score"])


def test_the_only_input_of_an_archive_may_have_any_name(folder):
    archived(folder, "net.py:single", TensorInfo("input", (4,), "float32"))
    model = load(folder, [TensorInfo("features", (4,), "float32")], source="model.pt2")
    assert [item.name for item in model.signature.inputs] == ["input"]


MISFITS = {
    "one missing": ([ZETA], "nothing feeds the model's input 'alpha'", "the data gives: zeta"),
    "one misspelt": ([ZETA, TensorInfo("alhpa", (5,), "float32")], "the model has no input 'alhpa'", "mean 'alpha'"),
    "one too many": (
        [ZETA, ALPHA, TensorInfo("beta", (1,), "float32")],
        "the model has no input 'beta'",
        "alpha, zeta",
    ),
    "one too wide": (
        [ZETA, TensorInfo("alpha", (6,), "float32")],
        r"'alpha' is [batch, 5], the data gives [batch, 6]",
        "drop",
    ),
    "nothing": ([], "nothing feeds the model's input 'zeta'", "the data gives: nothing"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_data_that_does_not_fit_an_archive_is_told(folder, case):
    inputs, message, hint = MISFITS[case]
    archived(folder, "net.py:build", ZETA, ALPHA)
    with pytest.raises(ModelError) as caught:
        load(folder, inputs, source="model.pt2")
    assert message in caught.value.message
    assert caught.value.message.startswith("model.pt2: ")
    assert hint in caught.value.hint


def test_an_archive_holds_its_own_weights(folder):
    archived(folder, "net.py:build", ZETA, ALPHA)
    with pytest.raises(ModelError, match=r"model\.weights: a \.pt2 holds its own weights"):
        load(folder, [ZETA, ALPHA], source="model.pt2", weights="w.pth")


def test_a_file_that_is_no_source_is_told_by_its_content(folder):
    torch.save(nn.Linear(2, 2).state_dict(), folder / "weights.pth")
    with pytest.raises(ModelError, match=r"model\.source: weights\.pth is not a source") as caught:
        load(folder, [ZETA], source="weights.pth")
    assert "file.py:function" in caught.value.hint


@pytest.fixture
def onnx_file(tmp_path):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["score"], name="product")]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in ("x", "unread")],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(np.ones((4, 2), np.float32), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_rows_may_bring_an_input_that_the_file_declares_and_nothing_reads(tmp_path, onnx_file):
    onnx.save(onnx_file, tmp_path / "model.onnx")
    x, unread = TensorInfo("x", (4,), "float32"), TensorInfo("unread", (4,), "float32")
    model = load(tmp_path, [unread, x], source="model.onnx")
    assert model.signature.inputs == (x,)
    with pytest.raises(ModelError, match="no input 'other'"):
        load(tmp_path, [x, TensorInfo("other", (4,), "float32")], source="model.onnx")


def test_a_file_that_stays_a_file_may_not_read_outside_its_folder(tmp_path, onnx_file):
    onnx_file.graph.node[0].op_type, onnx_file.graph.node[0].domain = "FusedMatMul", "com.microsoft"
    onnx_file.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    onnx.save(onnx_file, tmp_path / "model.onnx", save_as_external_data=True, location="w.data", size_threshold=1)
    x = TensorInfo("x", (4,), "float32")
    assert isinstance(load(tmp_path, [x], source="model.onnx"), OnnxFile)
    (tmp_path / "w.data").rename(tmp_path / "elsewhere")
    (tmp_path / "w.data").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsafeFileError, match="link"):
        load(tmp_path, [x], source="model.onnx")


@pytest.mark.parametrize(
    ("name", "content", "kind"), [("m.tflite", b"\x1c\0\0\0TFL3", "tflite"), ("m.pte", b"\x1c\0\0\0ET12", "pte")]
)
def test_a_file_of_a_runtime_is_measured_not_compressed(tmp_path, name, content, kind):
    (tmp_path / name).write_bytes(content + bytes(64))
    with pytest.raises(ModelError, match=rf"is a file for a runtime \({kind}\)") as caught:
        load_model(ModelConfig(source=name), [], tmp_path)
    assert "evaluate" in caught.value.hint

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from compress.errors import ModelError
from compress.worker.session import TensorSpec
from compress.workflow.files import open_files, synthetic_inputs


def small(path, dtype=np.float32):
    weight = np.arange(12).reshape(3, 4).astype(dtype)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    if dtype is np.int8:
        nodes = [
            helper.make_node("Cast", ["w"], ["f"], to=TensorProto.FLOAT),
            helper.make_node("MatMul", ["x", "f"], ["y"]),
        ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    path.parent.mkdir(exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_a_file_is_known_by_its_content(tmp_path):
    (found,) = open_files([small(tmp_path / "model.bin")])
    assert (found.runtime, found.name, found.precision) == ("onnxruntime", "model.bin", "float")
    assert found.size_bytes == (tmp_path / "model.bin").stat().st_size


def test_integer_weights_make_an_integer_file(tmp_path):
    (found,) = open_files([small(tmp_path / "model.onnx", np.int8)])
    assert found.precision == "int8"


def test_equal_names_are_told_apart_by_their_folders(tmp_path):
    paths = [small(tmp_path / "a" / "m.onnx"), small(tmp_path / "b" / "m.onnx")]
    assert [item.name for item in open_files(paths)] == [str(path) for path in paths]


def test_the_same_file_twice_is_refused(tmp_path):
    path = small(tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="named twice"):
        open_files([path, path])


@pytest.mark.parametrize(("content", "said"), [(b"", "empty"), (b"PK\x03\x04", "zip")])
def test_what_no_runtime_opens_is_refused(tmp_path, content, said):
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=said):
        open_files([path])


def test_made_inputs_have_the_shape_and_type_that_the_file_asks_for():
    specs = {
        "x": TensorSpec((None, 3, None), "float32"),
        "ids": TensorSpec((1, 5), "int64"),
        "m": TensorSpec((None,), "bool"),
    }
    made = synthetic_inputs(specs, 4, seed=0)
    assert {name: (array.shape, str(array.dtype)) for name, array in made.items()} == {
        "x": ((4, 3, 1), "float32"),
        "ids": ((4, 5), "int64"),
        "m": ((4,), "bool"),
    }
    assert set(np.unique(made["ids"])) <= {0, 1}
    again = synthetic_inputs(specs, 4, seed=0)
    assert all(np.array_equal(made[name], again[name]) for name in made)


def test_a_program_of_executorch_is_known_by_its_content(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(b"\0\0\0\0ET12xx")
    (found,) = open_files([path])
    assert (found.runtime, found.size_bytes) == ("executorch", 10)

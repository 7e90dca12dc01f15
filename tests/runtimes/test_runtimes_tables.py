"""Large tables of embeddings become integers; small ones stay float, and products that share a table stay right."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from inside import holds
from tiny_models import answers, built, engine, exported, sqnr_db, target
from torch import nn

from compress.calibrate import calibrate
from compress.model.core import Signature, TensorInfo
from compress.model.layers import layers
from compress.model.onnx_file import OnnxFile
from compress.recipe import BUILTIN_SCHEMES, LayerRule
from compress.runtimes.base import SMALL_TABLE, SMALLEST_TABLE

ROWS, WIDTH = 1100, 64
WITH_TABLES = ("onnxruntime", "litert", "tflite_runtime")
INTEGERS = ("int8-static", "int8-dynamic", "int8-weights", "int4-dynamic")


class Tokens(nn.Module):
    """A large table, whose rows differ a thousandfold in size, a small one, and two products."""

    def __init__(self) -> None:
        super().__init__()
        self.large = nn.Embedding(ROWS, WIDTH)
        self.small = nn.Embedding(8, WIDTH)
        self.hidden = nn.Linear(WIDTH, WIDTH)
        self.out = nn.Linear(WIDTH, 3)
        with torch.no_grad():
            self.large.weight *= torch.logspace(-3, 0, ROWS)[:, None]

    def forward(self, ids, kinds):
        read = nn.functional.layer_norm(self.large(ids), (WIDTH,)) + self.small(kinds)
        return self.out(torch.relu(self.hidden(read)).mean(dim=1))


class Tied(nn.Module):
    """Scores of every row of the table that was looked up in."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(ROWS, WIDTH)

    def forward(self, ids):
        return nn.functional.linear(self.table(ids).mean(dim=1), self.table.weight)


def tokens(module=None):
    random = np.random.default_rng(0)
    rows = {"ids": random.integers(0, ROWS, (64, 12)), "kinds": random.integers(0, 8, (64, 12))}
    return exported(module or built(Tokens), rows), rows


def quantized(runtime, model, rows, scheme, **changed):
    lowered = engine(runtime).lower(model)
    scheme = BUILTIN_SCHEMES[scheme].model_copy(update=changed)
    return lowered, engine(runtime).quantize(lowered, scheme, calibrate(model, [rows]), target(runtime))


@pytest.mark.parametrize("scheme", INTEGERS)
@pytest.mark.parametrize("runtime", WITH_TABLES)
@pytest.mark.usefixtures("tflite_runtime")
def test_a_large_table_becomes_integers_by_any_integer_scheme(runtime, scheme):
    model, rows = tokens()
    lowered, file = quantized(runtime, model, rows, scheme)
    found = {item.layer: item for item in file.outcomes}
    assert ROWS * WIDTH >= SMALLEST_TABLE
    assert (found["large"].precision, found["large"].reason) == ("int8", "")
    assert (found["small"].precision, found["small"].reason) == ("float32", SMALL_TABLE)
    large = next(layer for layer in layers(model) if layer.name == "large")
    assert not holds(runtime, file.data, model, large, np.float32)
    assert holds(runtime, file.data, model, large, np.int8)
    assert len(lowered.data) - len(file.data) > 2.9 * ROWS * WIDTH
    shared = "table" if runtime == "tflite_runtime" else "row"
    assert f"tables int8 with a scale a {shared}, widened row by row when they are looked up" in file.notes


@pytest.mark.parametrize(("scheme", "floor_db"), [("int8-static", 30), ("int8-dynamic", 30), ("int8-weights", 35)])
@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_rows_of_any_size_keep_their_digits(runtime, scheme, floor_db):
    """A layer normalisation brings rows to one size: one scale for the table would leave zeros of the small ones."""
    model, rows = tokens()
    _, file = quantized(runtime, model, rows, scheme)
    assert sqnr_db(model.run(rows)["output"], answers(runtime, file.data, rows)["output"]) > floor_db


@pytest.mark.usefixtures("tflite_runtime")
def test_the_old_interpreter_gets_the_scale_that_it_reads():
    module = built(Tokens)
    with torch.no_grad():
        module.large.weight /= torch.logspace(-3, 0, ROWS)[:, None]
    model, rows = tokens(module)
    _, file = quantized("tflite_runtime", model, rows, "int8-dynamic")
    assert sqnr_db(model.run(rows)["output"], answers("tflite_runtime", file.data, rows)["output"]) > 25


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_one_scale_a_tensor_is_one_for_the_table(runtime):
    model, rows = tokens()
    _, file = quantized(runtime, model, rows, "int8-weights", name="mine", granularity="tensor")
    assert "tables int8 with a scale a table, widened row by row when they are looked up" in file.notes
    # Rows a thousandth of the largest are lost; what comes out is still of the right form.
    assert np.isfinite(answers(runtime, file.data, rows)["output"]).all()


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_a_table_may_be_left_out(runtime):
    model, rows = tokens()
    _, file = quantized(runtime, model, rows, "int8-dynamic", name="mine", exclude=("large",))
    found = {item.layer: item for item in file.outcomes}
    assert (found["large"].precision, found["large"].reason) == ("float32", "excluded by 'large'")
    large = next(layer for layer in layers(model) if layer.name == "large")
    assert holds(runtime, file.data, model, large, np.float32)


@pytest.mark.parametrize("scheme", ["int8-dynamic", "int8-weights"])
@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_a_table_that_is_also_multiplied_by(runtime, scheme):
    rows = {"ids": np.random.default_rng(1).integers(0, ROWS, (32, 5))}
    model = exported(built(Tied), rows)
    _, file = quantized(runtime, model, rows, scheme)
    assert {item.precision for item in file.outcomes} == {"int8"}
    assert sqnr_db(model.run(rows)["output"], answers(runtime, file.data, rows)["output"]) > 30


@pytest.mark.parametrize(("axis", "precision"), [(0, "int8"), (1, "float32")])
def test_a_file_from_elsewhere_may_look_up_columns(axis, precision):
    import onnx
    from onnx import helper, numpy_helper

    random = np.random.default_rng(2)
    table = random.standard_normal((ROWS, WIDTH)).astype(np.float32)
    weight = random.standard_normal((WIDTH if axis == 0 else ROWS, 4)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["read"], name="look", axis=axis),
        *([helper.make_node("Transpose", ["read"], ["turned"], name="turn", perm=[1, 0])] if axis else []),
        helper.make_node("MatMul", ["turned" if axis else "read", "weight"], ["output"], name="product"),
    ]
    graph = helper.make_graph(
        nodes,
        "columns",
        [helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, ["batch"])],
        [helper.make_tensor_value_info("output", onnx.TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(weight, "weight")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    data = proto.SerializeToString()
    signature = Signature((TensorInfo("ids", (), "int64"),), (TensorInfo("output", (4,), "float32"),))
    lowered = engine("onnxruntime").take(OnnxFile(data, signature, ("test",), ()))
    file = engine("onnxruntime").quantize(lowered, BUILTIN_SCHEMES["int8-weights"], None, target("onnxruntime"))
    look = next(item for item in file.outcomes if item.operator == "embedding")
    assert look.precision == precision
    assert look.reason == ("" if axis == 0 else "it does not look up whole rows")
    rows = {"ids": random.integers(0, WIDTH, 16)}
    wanted = (table[rows["ids"]] if axis == 0 else table[:, rows["ids"]].T) @ weight
    assert sqnr_db(wanted, answers("onnxruntime", file.data, rows)["output"]) > 30


def test_a_file_for_a_gpu_keeps_its_tables():
    model, rows = tokens()
    engine_ = engine("onnxruntime")
    place = target("onnxruntime").model_copy(update={"flavour": "tensorrt"})
    file = engine_.quantize(engine_.lower(model), BUILTIN_SCHEMES["int8-static"], calibrate(model, [rows]), place)
    large = next(item for item in file.outcomes if item.layer == "large")
    assert (large.precision, large.reason) == (
        "float32",
        "a table stays float where a GPU computes: it multiplies nothing",
    )


def test_a_rule_may_halve_the_table_of_a_file_for_a_gpu():
    model, rows = tokens()
    engine_ = engine("onnxruntime")
    place = target("onnxruntime").model_copy(update={"flavour": "tensorrt"})
    halved = (LayerRule(layers=("large",), use="float16"),)
    scheme = BUILTIN_SCHEMES["int8-static"].model_copy(update={"name": "mine", "rules": halved})
    file = engine_.quantize(engine_.lower(model), scheme, calibrate(model, [rows]), place)
    assert next(item.precision for item in file.outcomes if item.layer == "large") == "float16"

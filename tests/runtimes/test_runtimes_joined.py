from __future__ import annotations

import numpy as np
import onnx
import pytest
from tiny_models import answers, built, engine, exported, normal, sqnr_db, target
from torch import nn

from compress.calibrate import calibrate
from compress.recipe import BUILTIN_SCHEMES
from compress.runtimes.base import Joined, carried
from compress.runtimes.litert.flatbuffer import DEQUANTIZE, INT8, code, read

STATIC = BUILTIN_SCHEMES["int8-static"]
ADD, RESIZE, PAD, MEAN, QUANTIZE = 0, 23, 34, 40, 114


def step(name, *inputs):
    return Joined(name, "Add", inputs, name, ((name, name),))


def test_only_what_gets_integers_and_hands_them_on_is_carried():
    chain = (step("x", "a", "b"), step("y", "x", "c"), step("z", "y", "float"), step("end", "y", "a"))
    assert [item.node for item in carried(chain, {"a", "b", "c"}, {"y"})] == ["x", "y"]
    assert [item.node for item in carried(chain, {"a", "b", "c"}, {"x"})] == ["x"]
    assert carried(chain, {"a", "c"}, {"y"}) == ()
    assert carried(chain, {"a", "b", "c"}, set()) == ()


def test_what_only_moves_elements_moves_integers_before_and_behind_a_layer():
    def move(name, given):
        return Joined(name, "PAD", (given,), name, ((name, name),), moves=True)

    before = (move("turned", "image"), move("padded", "turned"))
    assert carried(before, set(), {"padded"}) == before
    assert carried(before, set(), {"elsewhere"}) == ()
    behind = (step("sum", "a", "b"), move("back", "sum"), step("mean", "back"))
    assert carried(behind, {"a", "b"}, {"mean"}) == behind
    # Without a reader of integers the sum stays in float, and so does what moves it.
    assert carried(behind, {"a", "b"}, set()) == ()
    assert [item.node for item in carried(behind[1:], {"sum"}, set())] == ["back"]


def test_an_onnx_file_adds_integers_between_convolutions(corner):
    made = corner("onnxruntime", "residual")
    assert len(made.lowered.joined) == 3
    graph = onnx.load_from_string(made.quantized(STATIC).data).graph
    whole = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    rounded = {node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    sums = [node for node in graph.node if node.op_type == "Add"]
    assert [whole.issuperset(node.input) and node.output[0] in rounded for node in sums] == [True, True, False]
    # The activation behind a sum is part of the rounding.
    assert not any(node.op_type == "Relu" for node in graph.node)


def test_a_tflite_file_adds_pads_and_averages_integers_between_convolutions(corner):
    flat = read(corner("litert", "residual").quantized(STATIC).data)
    graph = flat.subgraphs[0]

    def kinds(wanted):
        found = [operator for operator in graph.operators if code(flat, operator) == wanted]
        return [graph.tensors[operator.outputs[0]].type == INT8 for operator in found]

    assert kinds(ADD) == [True, True, True]
    # The image is rounded before it is padded.
    assert kinds(PAD)
    assert all(kinds(PAD))
    assert kinds(MEAN) == [True]


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_a_branch_in_float_leaves_its_sums_in_float(runtime, corner):
    made = corner(runtime, "residual")
    scheme = STATIC.model_copy(update={"exclude": ("first",)})
    file = made.quantized(scheme)
    outcome = {item.layer: item.precision for item in file.outcomes}
    assert outcome["first"] == "float32"
    assert outcome["second"] == "int8"
    got = answers(runtime, file.data, made.rows)
    for name, wanted in made.answers.items():
        assert sqnr_db(wanted, got[name]) > 20


@pytest.mark.parametrize("name", ["residual", "shapes", "encoder", "shared"])
@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_no_integer_becomes_a_number_only_to_be_rounded_again(runtime, name, corner):
    data = corner(runtime, name).quantized(STATIC).data
    if runtime == "onnxruntime":
        graph = onnx.load_from_string(data).graph
        whole = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
        again = [node.name for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] in whole]
    else:
        flat = read(data)
        operators = flat.subgraphs[0].operators
        whole = {int(item.outputs[0]) for item in operators if code(flat, item) == DEQUANTIZE}
        again = [item for item in operators if code(flat, item) == QUANTIZE and int(item.inputs[0]) in whole]
    assert not again


@pytest.mark.parametrize(("size", "integer"), [(12, True), (4, False)])
def test_what_enlarges_an_image_for_a_convolution_runs_on_integers(size, integer):
    rows = {"input": normal(3, 6, 6)(np.random.default_rng(0), 40)}
    resize = nn.Upsample(size=(size, size), mode="bilinear")
    model = exported(built(lambda: nn.Sequential(resize, nn.Conv2d(3, 8, 3), nn.ReLU())), rows)
    lowered = engine("litert").lower(model)
    file = engine("litert").quantize(lowered, STATIC, calibrate(model, [rows]), target("litert"))
    flat = read(file.data)
    graph = flat.subgraphs[0]
    (made,) = [graph.tensors[item.outputs[0]].type for item in graph.operators if code(flat, item) == RESIZE]
    assert (made == INT8) is integer
    assert sqnr_db(model.run(rows)["output"], answers("litert", file.data, rows)["output"]) > 30

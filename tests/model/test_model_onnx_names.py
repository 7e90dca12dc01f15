import numpy as np
import pytest
import torch
from onnx import helper
from onnx_kit import parity, proto, save, values

from compress.model.layers import layers
from compress.model.onnx_import import load_onnx
from compress.model.onnx_import.paths import clean, readable, split, stripped

X = {"x": values(3, 6)}


def node(kind, inputs, output, name="", **attributes):
    return helper.make_node(kind, inputs.split(" "), output.split(" "), name=name, **attributes)


def imported(nodes, constants, tmp_path, feeds=None, outputs=("y",), opset=17):
    model = proto(nodes, feeds or X, outputs, constants, opset)
    result = load_onnx(save(model, tmp_path))
    assert parity(model, feeds or X, tmp_path, imported=result) < 1e-5
    return result


def parameters(model):
    return set(model.program.graph_signature.parameters)


def test_readable_names_stay(tmp_path):
    constants = {"features.0.0.weight": values(4, 6), "features.0.0.bias": values(4)}
    model = imported([node("Gemm", "x features.0.0.weight features.0.0.bias", "y", transB=1)], constants, tmp_path)
    assert parameters(model) == set(constants)
    assert [layer.name for layer in layers(model)] == ["features.0.0"]


@pytest.mark.parametrize(
    ("weight", "bias", "name", "wanted"),
    [
        ("onnx::MatMul_123", "onnx::Add_4", "/encoder/layer.0/attention/self/query/MatMul",
         "encoder.layer.0.attention.self.query"),
        ("onnx::MatMul_123", "onnx::Add_4", "/features/features.0/MatMul_7", "features.0"),
        ("onnx::MatMul_123", "head.2.bias", "MatMul_9", "head.2"),
        ("val_76", "onnx::Add_4", "node_linear_3", "linear_3"),
        ("fc1_weight", "fc1_bias", "", "fc1"),
        ("W1", "b1", "", "W1"),
        ("conv2d_0.w_0_deepcopy_3", "p2o.pd_op.reshape.0.0", "Conv.0", "conv2d_0"),
        ("dense/kernel/ReadVariableOp:0", "123", "model/dense/MatMul", "model.dense"),
        ("onnx::MatMul_123", "onnx::Add_4", "/a/type/forward/MatMul", "a.type_.forward_"),
    ],
)  # fmt: skip
def test_weights_are_named_after_their_file_or_their_node(weight, bias, name, wanted, tmp_path):
    nodes = [node("MatMul", f"x {weight}", "m", name), node("Add", f"{bias} m", "y")]
    model = imported(nodes, {weight: values(6, 4), bias: values(4)}, tmp_path)
    assert [layer.name for layer in layers(model)] == [wanted]
    layer = layers(model)[0]
    assert layer.shape == (4, 6)
    assert layer.bias is not None
    assert layer.bias.rpartition(".")[0] == wanted


def test_nodes_of_one_module_get_layers_of_their_own(tmp_path):
    constants = {f"onnx::MatMul_{at}": values(6, 6, seed=at) for at in range(3)}
    nodes = [
        node("MatMul", "x onnx::MatMul_0", "a", "/attention/MatMul"),
        node("MatMul", "a onnx::MatMul_1", "b", "/attention/MatMul_1"),
        node("MatMul", "b onnx::MatMul_2", "y", "/attention/MatMul_2"),
    ]
    names = [layer.name for layer in layers(imported(nodes, constants, tmp_path))]
    assert names == ["attention", "attention.MatMul_1", "attention.MatMul_2"]


def test_name_that_is_a_module_elsewhere_is_made_longer(tmp_path):
    constants = {"a.b": values(6, 6), "a.b.weight": values(6, 6, seed=1), "a": values(6, seed=2)}
    nodes = [node("MatMul", "x a.b", "m"), node("MatMul", "m a.b.weight", "n"), node("Mul", "n a", "y")]
    names = [layer.weight for layer in layers(imported(nodes, constants, tmp_path))]
    assert len(set(names)) == 2


def test_a_weight_read_twice_is_one_weight(tmp_path):
    nodes = [node("MatMul", "x shared.weight", "m"), node("MatMul", "m shared.weight", "y")]
    model = imported(nodes, {"shared.weight": values(6, 6)}, tmp_path)
    assert parameters(model) == {"shared.weight"}
    assert [layer.name for layer in layers(model)] == ["shared", "shared#2"]


@pytest.mark.parametrize("form", ["transpose node", "transposed read"])
def test_an_output_layer_tied_to_its_table_stays_tied(form, tmp_path):
    feeds = {"i": np.array([[1, 2], [3, 4], [0, 7]])}
    nodes = [node("Gather", "table.weight i", "e")]
    if form == "transpose node":
        nodes += [node("Transpose", "table.weight", "t", perm=[1, 0]), node("MatMul", "e t", "y")]
    else:
        nodes += [node("ReduceMean", "e", "m", axes=[1], keepdims=0), node("Gemm", "m table.weight", "y", transB=1)]
    model = imported(nodes, {"table.weight": values(8, 6)}, tmp_path, feeds)
    assert parameters(model) == {"table.weight"}
    assert [layer.operator for layer in layers(model)] == ["embedding", "linear"]


def test_second_name_of_a_matrix_is_the_same_weight(tmp_path):
    nodes = [
        node("Identity", "first.weight", "second.weight"),
        node("MatMul", "x first.weight", "m"),
        node("MatMul", "m second.weight", "y"),
    ]
    assert parameters(imported(nodes, {"first.weight": values(6, 6)}, tmp_path)) == {"first.weight"}


def test_vectors_that_an_exporter_stored_once_are_taken_apart(tmp_path):
    nodes = [
        node("Identity", "norm1.bias", "norm2.bias"),
        node("LayerNormalization", "x norm1.weight norm1.bias", "a", "/norm1/LayerNormalization"),
        node("LayerNormalization", "a norm1.weight norm2.bias", "y", "/norm2/LayerNormalization"),
    ]
    model = imported(nodes, {"norm1.weight": values(6), "norm1.bias": values(6)}, tmp_path)
    assert parameters(model) == {"norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"}


def test_constants_that_are_not_trained_are_buffers(tmp_path):
    constants = {
        "mean": values(6),
        "onnx::Div_2": values(6, low=0.5),
        "gamma.weight": values(6),
        "mask": values(6) > 0,
        "low": values(6),
    }
    nodes = [
        node("Sub", "x mean", "a"),
        node("Div", "a onnx::Div_2", "b", "/scale/Div"),
        node("Relu", "b", "r"),
        node("Mul", "r gamma.weight", "c"),
        node("Where", "mask c low", "y"),
    ]
    model = imported(nodes, constants, tmp_path)
    assert parameters(model) == {"gamma.weight"}
    assert set(model.program.graph_signature.buffers) >= {"mean", "scale.constant"}


def test_a_single_number_is_no_weight_unless_it_is_named_like_one(tmp_path):
    nodes = [node("Relu", "x", "r"), node("Mul", "r half", "a"), node("Mul", "a block.alpha", "y")]
    model = imported(nodes, {"half": np.float32(0.5), "block.alpha": np.float32(0.7)}, tmp_path)
    assert parameters(model) == {"block.alpha"}


def test_one_output_keeps_its_weight_and_bias(tmp_path):
    nodes = [node("Gemm", "x head.weight head.bias", "y", transB=1)]
    model = imported(nodes, {"head.weight": values(1, 6), "head.bias": values(1)}, tmp_path)
    assert parameters(model) == {"head.weight", "head.bias"}


@pytest.mark.parametrize("shape", [(4, 1, 1), (1, 4, 1, 1)])
def test_vector_added_to_a_convolution_is_its_bias(shape, tmp_path):
    feeds = {"x": values(3, 3, 5, 5)}
    nodes = [node("Conv", "x c.weight", "m"), node("Add", "m c.bias", "y")]
    model = imported(nodes, {"c.weight": values(4, 3, 3, 3), "c.bias": values(*shape)}, tmp_path, feeds)
    assert layers(model)[0].bias == "c.bias"
    assert {str(item.target) for item in model.program.graph.nodes if item.op == "call_function"} == {
        "aten.conv2d.default"
    }


@pytest.mark.parametrize(
    "nodes",
    [
        [node("MatMul", "x w", "m"), node("Add", "m b", "a"), node("Mul", "m a", "y")],
        [node("MatMul", "x w", "m"), node("Add", "m c", "y")],
        [node("MatMul", "x w", "m"), node("Add", "m m", "y")],
    ],
)
def test_sum_that_is_no_bias_stays_a_sum(nodes, tmp_path):
    model = imported(nodes, {"w": values(6, 4), "b": values(4), "c": values(1, 4)}, tmp_path)
    assert [layer.bias for layer in layers(model)] == [None]


def test_product_that_is_also_an_output_keeps_its_value(tmp_path):
    nodes = [node("MatMul", "x w", "m"), node("Add", "m b", "y")]
    imported(nodes, {"w": values(6, 4), "b": values(4)}, tmp_path, outputs=("m", "y"))


def test_activation_behind_a_layer_is_found_fused(tmp_path):
    nodes = [node("Gemm", "x w b", "m"), node("Clip", "m zero six", "y")]
    constants = {"w": values(6, 4), "b": values(4), "zero": np.float32(0), "six": np.float32(6)}
    assert layers(imported(nodes, constants, tmp_path))[0].fused is not None


def test_module_paths_that_the_exporter_noted_are_used(tmp_path):
    multiply = node("MatMul", "x val_3", "y", "node_linear_4")
    multiply.metadata_props.add(key="pkg.torch.onnx.name_scopes", value="['', 'head', 'head.out', 'linear_4']")
    assert [layer.name for layer in layers(imported([multiply], {"val_3": values(6, 4)}, tmp_path))] == ["head.out"]


def test_weights_of_recurrent_layers_carry_torch_names(tmp_path):
    feeds = {"x": values(3, 5, 6)}
    nodes = [
        node("Transpose", "x", "t", perm=[1, 0, 2]),
        node("LSTM", "t onnx::LSTM_1 onnx::LSTM_2", "a", "/rnn/LSTM", hidden_size=4),
        node("Transpose", "a", "y", perm=[2, 0, 1, 3]),
    ]
    constants = {"onnx::LSTM_1": values(1, 16, 6), "onnx::LSTM_2": values(1, 16, 4)}
    found = parameters(imported(nodes, constants, tmp_path, feeds))
    assert found == {f"rnn.{kind}_{side}_l0" for kind in ("weight", "bias") for side in ("ih", "hh")}


def test_names_of_inputs_become_names_of_the_graph(tmp_path):
    feeds = {"x:0": values(3, 6), "2nd input": values(3, 6), "self": values(3, 6)}
    nodes = [helper.make_node("Add", ["x:0", "2nd input"], ["a"]), helper.make_node("Add", ["a", "self"], ["y"])]
    model = imported(nodes, {}, tmp_path, feeds)
    assert [item.name for item in model.signature.inputs] == list(feeds)
    assert next(iter(model.program.graph_signature.user_inputs)) == "x_0"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.b", True),
        ("layer.0.w_1", True),
        ("a", False),
        ("onnx::Add_1", False),
        ("a/b", False),
        ("p2o.x.y", False),
        (".a", False),
    ],
)
def test_readable(name, expected):
    assert readable(name) is expected


def test_paths():
    assert split("/enc/enc.0/sub/MatMul") == ["enc", "0", "sub", "MatMul"]
    assert stripped("conv.weight_bias_deepcopy_3:0") == "conv.bias"
    assert clean(["a-b", "", "training", "x" * 500]) == ["a_b", "_", "training_", "x" * 100]
    module = torch.nn.Module()
    for part in clean(["forward", "_parameters", "half", "0"]):
        module.add_module(part, torch.nn.Module())

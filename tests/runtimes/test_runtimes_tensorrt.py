"""What TensorRT is given: a network that it takes, types where they are safe, and a refusal before anybody builds."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiny_models import answers, engine, exported, sqnr_db, target
from torch import Tensor, nn

from compress.errors import LoweringError
from compress.recipe import BUILTIN_SCHEMES
from compress.runtimes.base import BuiltThere
from compress.runtimes.tensorrt.network import check
from compress.target import Target

HALF, STATIC = BUILTIN_SCHEMES["float16"], BUILTIN_SCHEMES["int8-static"]


@pytest.mark.parametrize("scheme", [BUILTIN_SCHEMES["float32"], HALF, STATIC], ids=lambda item: item.name)
@pytest.mark.parametrize("name", ["mlp", "conv", "attention", "two-ways"])
def test_our_networks_are_taken(workshop: Any, name: str, scheme: Any) -> None:
    runtime = engine("tensorrt")
    assert isinstance(runtime, BuiltThere)
    runtime.check(workshop.artifact("tensorrt", name, scheme))


@pytest.mark.parametrize("name", ["conv", "attention"])
def test_files_for_a_cpu_would_be_refused(workshop: Any, name: str) -> None:
    with pytest.raises(LoweringError, match=r"TensorRT would refuse the network: .*(of int8|zero point|32 bits)"):
        check(workshop.artifact("onnxruntime", name, STATIC).data)


def network(*nodes: Any, inputs: Any = None, held: Any = ()) -> bytes:
    graph = helper.make_graph(
        list(nodes),
        "main",
        [inputs or helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in dict(held).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]).SerializeToString()


def test_each_refusal_names_the_node_and_the_reason() -> None:
    odd = helper.make_node("Det", ["x"], ["y"], "odd")
    with pytest.raises(LoweringError, match=r"Det \(odd\) has no form in TensorRT") as error:
        check(network(odd))
    assert 'provider = "tensorrt"' in error.value.hint
    own = helper.make_node("FusedGemm", ["x", "x"], ["y"], "fused", domain="com.microsoft")
    with pytest.raises(LoweringError, match=r"FusedGemm \(fused\) is of com\.microsoft"):
        check(network(own))
    inner = helper.make_graph(
        [helper.make_node("Unique", ["x"], ["z"], "deep")], "then", [], [helper.make_tensor_value_info("z", 1, None)]
    )
    branch = helper.make_node("If", ["yes"], ["y"], "branch", then_branch=inner, else_branch=inner)
    with pytest.raises(LoweringError, match=r"Unique \(deep\)"):
        check(network(branch, held={"yes": np.array(True)}))
    free = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "length"])
    with pytest.raises(LoweringError, match="'x' has a free dimension besides its batch"):
        check(network(helper.make_node("Relu", ["x"], ["y"]), inputs=free))
    double = helper.make_tensor_value_info("x", TensorProto.DOUBLE, ["batch", 4])
    with pytest.raises(LoweringError, match="'x' is double"):
        check(network(helper.make_node("Relu", ["x"], ["y"]), inputs=double))


def test_quantization_that_it_does_not_take_is_named() -> None:
    held = {"scale": np.float32(0.1), "zero": np.int8(3), "bias": np.arange(4, dtype=np.int32), "none": np.int32(0)}
    pair = helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], "round")
    back = helper.make_node("DequantizeLinear", ["bias", "scale", "none"], ["y"], "bias")
    with pytest.raises(LoweringError) as error:
        check(network(pair, back, held=held))
    assert "QuantizeLinear (round) has a zero point other than 0" in error.value.message
    assert "DequantizeLinear (bias) reads a bias of 32 bits" in error.value.message


class Raw(nn.Module):
    """Amounts that no half holds, normalised, between them and the outside a convolution-free chain of layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(3, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, income: Tensor) -> Tensor:
        hidden = self.first((income - 250_000.0) / 90_000.0).relu()
        return self.head(hidden + self.second(hidden).relu()).softmax(-1)


def test_halves_begin_behind_the_normalisation_and_end_before_the_softmax() -> None:
    rows = {"income": np.random.default_rng(0).uniform(70_000, 500_000, (40, 3)).astype(np.float32)}
    model = exported(Raw().eval(), rows)
    file = engine("tensorrt").quantize(engine("tensorrt").lower(model), HALF, None, target("tensorrt"))
    graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(file.data), check_type=True).graph
    types = {item.name: item.type.tensor_type.elem_type for item in (*graph.value_info, *graph.input, *graph.output)}
    computes = {node.name: types[node.output[0]] for node in graph.node if node.op_type in ("Gemm", "Relu", "Add")}
    assert computes and set(computes.values()) == {TensorProto.FLOAT16}
    outside = {node.op_type: types[node.output[0]] for node in graph.node if node.op_type in ("Sub", "Div", "Softmax")}
    assert set(outside) == {"Sub", "Div", "Softmax"} and set(outside.values()) == {TensorProto.FLOAT}
    # One way in and one way out: between two layers nothing is cast.
    assert sum(node.op_type == "Cast" for node in graph.node) == 2
    assert sqnr_db(model.run(rows)["output"], answers("tensorrt", file.data, rows)["output"]) > 50


def test_a_weight_that_no_half_holds_stays_float() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    module[0].weight.data[0, 0] = 1e6
    model = exported(module, {"input": np.zeros((2, 3), np.float32)})
    file = engine("tensorrt").quantize(engine("tensorrt").lower(model), HALF, None, target("tensorrt"))
    told = {item.layer: (item.precision, item.reason) for item in file.outcomes}
    assert told == {
        "0": ("float32", "a weight of it is larger than a half can hold"),
        "2": ("float16", ""),
    }


@pytest.mark.parametrize(("provider", "computes"), [("cpu", False), ("cuda", True), ("tensorrt", False)])
def test_only_providers_that_take_the_files_types_compute_halves(workshop: Any, provider: str, computes: bool) -> None:
    flavour = {"flavour": "tensorrt"} if provider == "tensorrt" else {}
    place = Target.model_validate(
        {"schema": 1, "runtime": "onnxruntime", "provider": provider, "fusion": False, **flavour}
    )
    file = engine("onnxruntime").quantize(workshop.lowered("onnxruntime", "mlp"), HALF, None, place)
    assert any("compute in halves" in note for note in file.notes) == computes

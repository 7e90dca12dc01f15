"""Mixed schemes, patterns by operator, weights that are only stored, and the flavour for TensorRT."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from inside import holds
from onnx import TensorProto, numpy_helper
from tiny_models import answers, built, engine, exported, normal, sqnr_db, target
from torch import nn

from compress.calibrate import calibrate
from compress.calibrate.fake import fake_weight
from compress.errors import CompressError, LoweringError
from compress.model.core import state
from compress.model.layers import layers
from compress.recipe import BUILTIN_SCHEMES, LayerRule
from compress.runtimes.onnxruntime.blocks import pack, unpack
from compress.target import Target

RUNTIMES = pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])


def mixed(base, *rules, **changes):
    given_rules = tuple(LayerRule(layers=tuple(patterns), use=use) for patterns, use in rules)
    return BUILTIN_SCHEMES[base].model_copy(update={"name": "mixed", "rules": given_rules, **changes})


def precisions(file):
    return {item.layer: item.precision for item in file.outcomes}


@RUNTIMES
def test_rules_give_layers_other_schemes_and_the_last_that_matches_counts(workshop, runtime):
    scheme = mixed(
        "int8-static", (["q", "k", "head"], "int8-dynamic"), (["out"], "float16"), (["head"], "float32"), exclude=("v",)
    )
    file = workshop.artifact(runtime, "attention", scheme)
    assert precisions(file) == {
        **dict.fromkeys(("lift", "q", "k"), "int8"), "out": "float16", "v": "float32", "head": "float32",
        "codes": "float32",
    }  # fmt: skip
    reasons = {item.layer: item.reason for item in file.outcomes}
    assert reasons["head"] == "a rule of the scheme leaves it in float32"
    assert reasons["v"] == "excluded by 'v'"
    assert file.arithmetic == "int8"
    model = workshop.tiny("attention").model
    kinds = {"int8": np.int8, "float16": np.float16, "float32": np.float32}
    for layer in layers(model):
        assert holds(runtime, file.data, model, layer, kinds[precisions(file)[layer.name]]), layer.name
    rows = workshop.tiny("attention").rows(40, seed=1)
    assert sqnr_db(model.run(rows)["logit"], answers(runtime, file.data, rows)["logit"]) > 20
    said = " ".join(file.notes)
    assert "ranges: min-max over 256 rows" in said
    assert "found at run time" in said
    assert "float16" in said


@RUNTIMES
@pytest.mark.parametrize("use", ["float16", "int8-weights", "int4-weights"])
def test_a_layer_is_stored_smaller_beside_dynamic_products(workshop, runtime, use):
    """ONNX Runtime's dynamic quantizer rewrites the products that it leaves in float, too."""
    file = workshop.artifact(runtime, "mlp", mixed("int8-dynamic", (["middle"], use), exclude=("score",)))
    assert precisions(file) == {"up": "int8", "middle": BUILTIN_SCHEMES[use].dtype, "score": "float32"}
    rows = workshop.tiny("mlp").rows(40, seed=1)
    wanted = workshop.tiny("mlp").model.run(rows)["score"]
    assert sqnr_db(wanted, answers(runtime, file.data, rows)["score"]) > 8


@RUNTIMES
def test_a_weight_only_scheme_computes_in_float(workshop, runtime):
    file = workshop.artifact(runtime, "conv", BUILTIN_SCHEMES["int8-weights"])
    assert file.arithmetic == "float"
    assert set(precisions(file).values()) == {"int8"}
    rows = workshop.tiny("conv").rows(40, seed=1)
    static = workshop.artifact(runtime, "conv", BUILTIN_SCHEMES["int8-static"])
    wanted = workshop.tiny("conv").model.run(rows)["output"]
    got = sqnr_db(wanted, answers(runtime, file.data, rows)["output"])
    assert got > sqnr_db(wanted, answers(runtime, static.data, rows)["output"]) + 3


def test_onnx_runtime_widens_stored_weights_when_it_opens_the_file(workshop, tmp_path):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "opened.onnx")
    file = workshop.artifact("onnxruntime", "conv", BUILTIN_SCHEMES["int8-weights"])
    onnxruntime.InferenceSession(file.data, options, providers=["CPUExecutionProvider"])
    opened = onnx.load(tmp_path / "opened.onnx").graph
    assert not {"Cast", "Mul", "DequantizeLinear"} & {node.op_type for node in opened.node}
    assert not any(item.data_type == TensorProto.INT8 for item in opened.initializer)


@RUNTIMES
def test_layers_are_named_by_their_operator(workshop, runtime):
    scheme = BUILTIN_SCHEMES["int8-static"].model_copy(update={"name": "mine", "exclude": ("operator:conv2d",)})
    file = workshop.artifact(runtime, "conv", scheme)
    assert precisions(file) == {"stem": "float32", "depth": "float32", "point": "float32", "head": "int8"}
    with pytest.raises(CompressError, match=r"the pattern 'operator:conv3d' matches no layer") as caught:
        workshop.artifact(runtime, "conv", scheme.model_copy(update={"exclude": ("operator:conv3d",)}))
    assert "did you mean 'conv2d'" in caught.value.hint


@RUNTIMES
def test_a_rule_that_matches_nothing_and_rules_that_leave_nothing_are_errors(workshop, runtime):
    with pytest.raises(CompressError, match=r"scheme.mixed.rules\[0\].layers: the pattern 'midle' matches no layer"):
        workshop.artifact(runtime, "mlp", mixed("int8-static", (["midle"], "float32")))
    with pytest.raises(LoweringError, match="realises nothing: a rule of the scheme leaves it in float32"):
        workshop.artifact(runtime, "mlp", mixed("int8-static", (["*"], "float32")))


class Between(nn.Module):
    """A depthwise convolution and a product, each between others, with one channel far larger than the rest."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 1)
        self.depth = nn.Conv2d(8, 8, 3, groups=8)
        self.last = nn.Conv2d(8, 4, 1)
        self.score = nn.Linear(4, 4)
        self.depth.weight.data[0] *= 500
        self.last.weight.data[:, 0] /= 500

    def forward(self, x):
        hidden = torch.relu(self.first(x))
        hidden = torch.relu(self.last(torch.relu(self.depth(hidden))))
        return self.score(hidden.mean((2, 3)))


@pytest.mark.parametrize("name", ["depth", "last", "score"])
def test_a_layer_that_is_left_in_float_is_in_float_when_the_file_is_open(name):
    """ONNX Runtime rounds a float weight behind a DequantizeLinear by itself, with one scale for all channels."""
    import onnxruntime

    rows = {"x": normal(3, 8, 8)(np.random.default_rng(0), 64)}
    model = exported(built(Between), rows)
    scheme = BUILTIN_SCHEMES["int8-static"].model_copy(update={"name": "mine", "exclude": (name,)})
    file = engine("onnxruntime").quantize(
        engine("onnxruntime").lower(model), scheme, calibrate(model, [rows]), target("onnxruntime")
    )
    found = []
    for level in ("ORT_DISABLE_ALL", "ORT_ENABLE_ALL"):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        session = onnxruntime.InferenceSession(file.data, options, providers=["CPUExecutionProvider"])
        found.append(sqnr_db(model.run(rows)["output"], session.run(None, rows)[0]))
    assert found[1] > found[0] - 1.5


def test_what_has_no_kernel_is_told(workshop):
    for runtime, reason in (("onnxruntime", "4-bit kernels for matrix products only"), ("litert", "fully connected")):
        file = workshop.artifact(runtime, "conv", BUILTIN_SCHEMES["int4-weights"])
        reasons = {item.layer: item.reason for item in file.outcomes if item.precision == "float32"}
        assert reasons.keys() == {"stem", "depth", "point"}
        assert all(reason in text for text in reasons.values())


@pytest.mark.parametrize("size", [16, 32, 128])
def test_blocks_of_four_bits_are_those_that_the_kernel_reads(size):
    """The kernel's answer is that of the unpacked matrix, with a bias and without one."""
    rows = {"input": normal(70)(np.random.default_rng(0), 9)}
    for bias in (True, False):
        model = exported(built(lambda bias=bias: nn.Linear(70, 24, bias=bias)), rows)
        scheme = BUILTIN_SCHEMES["int4-weights"].model_copy(update={"name": "mine", "block_size": size})
        file = engine("onnxruntime").quantize(engine("onnxruntime").lower(model), scheme, None, target("onnxruntime"))
        graph = onnx.load_from_string(file.data).graph
        (product,) = [node for node in graph.node if node.op_type == "MatMulNBits"]
        held = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
        weight = unpack(held[product.input[1]], held[product.input[2]], 70)
        wanted = rows["input"] @ weight.T + (model.program.state_dict["bias"].detach().numpy() if bias else 0)
        np.testing.assert_allclose(answers("onnxruntime", file.data, rows)["output"], wanted, rtol=1e-3, atol=1e-4)
        assert any(f"blocks of {size}" in note for note in file.notes)


@given(st.integers(1, 6), st.integers(1, 70), st.sampled_from([16, 32]), st.integers(0, 30))
def test_a_packed_number_is_within_half_a_step_of_its_block(outputs, inputs, size, seed):
    rows = np.random.default_rng(seed).standard_normal((outputs, inputs)).astype(np.float32)
    packed, scales = pack(rows, size)
    assert packed.shape == (outputs, -(-inputs // size), size // 2)
    back = unpack(packed, scales, inputs)
    steps = np.repeat(np.abs(scales), size, axis=1)[:, :inputs]
    # Numbers as large as the extreme one, of the other sign, lose up to a whole step: a signed integer ends at 7.
    assert (np.abs(back - rows) <= np.where(np.abs(rows) > 7.5 * steps, 1.0, 0.5001) * steps + 1e-6).all()
    assert (back[rows == 0] == 0).all()


@pytest.mark.parametrize("name", ["conv", "attention", "mlp"])
def test_the_tensorrt_flavour_is_symmetric_and_has_no_quantized_bias(workshop, name):
    gpu = Target(schema=1, name="gpu", runtime="onnxruntime", flavour="tensorrt")
    file = engine("onnxruntime").quantize(
        workshop.lowered("onnxruntime", name), BUILTIN_SCHEMES["int8-static"], workshop.ranges(name), gpu
    )
    graph = onnx.load_from_string(file.data).graph
    held = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    roundings = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert roundings
    for node in roundings:
        zero = held[node.input[2]]
        assert zero.dtype == np.int8
        assert not zero.any()
        assert node.input[0] not in held or held[node.input[0]].dtype == np.int8
    readers: dict[str, list[str]] = {}
    for node in graph.node:
        for value in node.input:
            readers.setdefault(value, []).append(node.op_type)
    for node in roundings:
        if node.op_type == "QuantizeLinear":
            assert readers[node.output[0]] == ["DequantizeLinear"]
        else:
            assert len(readers[node.output[0]]) == 1
            assert readers[node.output[0]][0] in ("Conv", "MatMul", "Gemm")
    quantized = [item for item in file.outcomes if item.precision == "int8"]
    assert quantized
    integer = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    nodes = {node.name: node for node in graph.node}
    for item in quantized:
        (found,) = item.nodes
        assert integer.issuperset(nodes[found].input[:2])
        assert len(nodes[found].input) < 3 or held[nodes[found].input[2]].dtype == np.float32
    assert any("int8, symmetric" in note for note in file.notes)
    rows = workshop.tiny(name).rows(30, seed=1)
    wanted = workshop.tiny(name).model.run(rows)
    got = answers("onnxruntime", file.data, rows)
    assert all(sqnr_db(array, got[output]) > 15 for output, array in wanted.items())


@pytest.mark.parametrize(("cpu", "bits"), [("any", 7), ("cascade-lake", 8)])
def test_what_passes_take_for_rounded_weights_is_what_the_file_holds(cpu, bits):
    rows = {"input": normal(3, 6, 6)(np.random.default_rng(0), 16)}
    model = exported(built(lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())), rows)
    file = engine("onnxruntime").quantize(
        engine("onnxruntime").lower(model),
        BUILTIN_SCHEMES["int8-static"],
        calibrate(model, [rows]),
        target("onnxruntime", cpu),
    )
    held = {item.name: numpy_helper.to_array(item) for item in onnx.load_from_string(file.data).graph.initializer}
    steps = next(value for value in held.values() if value.dtype == np.int8 and value.ndim == 4)
    scales = next(value for name, value in held.items() if "weight" in name and name.endswith("scale"))
    (layer,) = layers(model)
    wanted = fake_weight(state(model.program)[layer.weight].detach(), bits, 0)
    np.testing.assert_allclose(steps * scales.reshape(-1, 1, 1, 1), wanted, rtol=1e-5, atol=1e-7)

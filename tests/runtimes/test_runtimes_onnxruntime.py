from __future__ import annotations

import gc

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from tiny_models import answers, built, engine, exported, normal, sqnr_db, target
from torch import nn
from torch.nn import functional as F

from compress.calibrate import calibrate
from compress.errors import LoweringError
from compress.processors import adds_in_16_bits
from compress.recipe import BUILTIN_SCHEMES
from compress.runtimes.onnxruntime import export
from compress.runtimes.onnxruntime.edit import name_outside

STATIC, DYNAMIC, FLOAT16, INT4 = (
    BUILTIN_SCHEMES[name] for name in ("int8-static", "int8-dynamic", "float16", "int4-weights")
)


def lowered(module, arrays, outputs=()):
    model = exported(module, arrays, outputs)
    return model, engine("onnxruntime").lower(model)


def quantized(file, scheme, ranges=None, cpu="any"):
    return engine("onnxruntime").quantize(file, scheme, ranges, target("onnxruntime", cpu))


def graph_of(file):
    return onnx.load_from_string(file.data).graph


def initializers(file):
    return {item.name: numpy_helper.to_array(item) for item in graph_of(file).initializer}


@pytest.mark.parametrize("scheme", [*BUILTIN_SCHEMES.values()], ids=[*BUILTIN_SCHEMES])
def test_a_file_takes_every_batch(workshop, scheme):
    file = workshop.artifact("onnxruntime", "attention", scheme)
    rows = workshop.tiny("attention").rows(7, seed=1)
    whole = answers("onnxruntime", file.data, rows)["logit"]
    assert whole.shape == (7, 4)
    for count in (1, 3):
        part = {name: array[:count] for name, array in rows.items()}
        # Dynamic ranges are those of a batch, so rows see their neighbours.
        assert sqnr_db(whole[:count], answers("onnxruntime", file.data, part)["logit"]) > 30


@pytest.mark.parametrize("scheme", [*BUILTIN_SCHEMES.values()], ids=[*BUILTIN_SCHEMES])
def test_a_file_is_a_valid_model_of_a_fixed_opset(workshop, scheme):
    file = workshop.artifact("onnxruntime", "conv", scheme)
    proto = onnx.load_from_string(file.data)
    onnx.checker.check_model(proto, full_check=True)
    assert {item.version for item in proto.opset_import if item.domain in ("", "ai.onnx")} == {20}
    assert [item.name for item in proto.graph.input] == ["image"]
    assert proto.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    assert not any(node.doc_string or node.metadata_props for node in proto.graph.node)


class Named(nn.Module):
    """Its outputs and its input have the names that the exporter gives values inside."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.b = nn.Linear(4, 4)

    def forward(self, relu):
        hidden = torch.relu(self.a(relu))
        return {"linear": self.b(hidden) * 2, "linear_1": torch.tanh(hidden), "a.weight": relu + 1, "mul": hidden - 1}


@pytest.mark.parametrize("scheme", [None, STATIC, DYNAMIC], ids=["float32", "static", "dynamic"])
def test_names_outside_do_not_meet_names_inside(scheme):
    rows = {"relu": normal(4)(np.random.default_rng(0), 16)}
    model, file = lowered(built(Named), rows)
    if scheme is not None:
        file = quantized(file, scheme, calibrate(model, [rows]))
    graph = graph_of(file)
    written = [name for node in graph.node for name in node.output] + [item.name for item in graph.initializer]
    assert len(written) == len(set(written))
    assert file.outputs == ("linear", "linear_1", "a.weight", "mul")
    got = answers("onnxruntime", file.data, rows)
    for name, array in model.run(rows).items():
        assert sqnr_db(array, got[name]) > 30


def test_names_are_changed_in_graphs_inside_nodes_too():
    def inner(name):
        value = onnx.helper.make_tensor_value_info("y_inner", TensorProto.FLOAT, [1])
        return onnx.helper.make_graph([onnx.helper.make_node("Identity", ["seen"], ["y_inner"])], name, [], [value])

    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Identity", ["0.input"], ["seen"]),
            onnx.helper.make_node("Greater", ["seen", "seen"], ["flag"]),
            onnx.helper.make_node("If", ["flag"], ["0.output"], then_branch=inner("then"), else_branch=inner("else")),
        ],
        "main",
        [onnx.helper.make_tensor_value_info("0.input", TensorProto.FLOAT, [1])],
        [onnx.helper.make_tensor_value_info("0.output", TensorProto.FLOAT, [1])],
    )
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    name_outside(proto, ["flag"], ["seen"])
    onnx.checker.check_model(proto, full_check=True)
    got = answers("onnxruntime", proto.SerializeToString(), {"flag": np.array([3.0], np.float32)})
    assert {name: array.tolist() for name, array in got.items()} == {"seen": [3.0]}


@pytest.mark.parametrize("name", ["mlp", "conv", "attention"])
@pytest.mark.parametrize("scheme", [STATIC, DYNAMIC], ids=["static", "dynamic"])
def test_weights_keep_to_seven_bits_where_eight_could_saturate(workshop, name, scheme):
    cpus = ("any", "haswell", "cascade-lake", "cortex-a53")
    largest = {
        cpu: max(
            int(np.abs(array.astype(np.int32)).max())
            for array in initializers(workshop.artifact("onnxruntime", name, scheme, cpu)).values()
            if array.dtype == np.int8 and array.size > 8
        )
        for cpu in cpus
    }
    notes = {cpu: " ".join(workshop.artifact("onnxruntime", name, scheme, cpu).notes) for cpu in cpus}
    for cpu in ("any", "haswell"):
        assert 60 <= largest[cpu] <= 64
        assert "7 bits" in notes[cpu]
    for cpu in ("cascade-lake", "cortex-a53"):
        assert 120 <= largest[cpu] <= 128
        assert "7 bits" not in notes[cpu]


def test_static_activations_are_uint8_with_exactly_the_ranges_given(workshop):
    file = workshop.artifact("onnxruntime", "mlp", STATIC)
    found = initializers(file)
    ranges = workshop.ranges("mlp")
    for tensor in (item.input for item in file.placed):
        low, high = ranges.of(tensor)
        assert found[f"{tensor}_zero_point"].dtype == np.uint8
        np.testing.assert_allclose(found[f"{tensor}_scale"], (high - low) / 255, rtol=1e-5)


def test_products_hand_on_float_and_convolutions_integers(workshop):
    def rounded(name):
        file = workshop.artifact("onnxruntime", name, STATIC)
        return {node.input[0] for node in graph_of(file).node if node.op_type == "QuantizeLinear"}

    mlp = {item.layer.name: item for item in workshop.lowered("onnxruntime", "mlp").placed}
    assert rounded("mlp") == {item.input for item in mlp.values()}
    conv = {item.layer.name: item for item in workshop.lowered("onnxruntime", "conv").placed}
    assert {conv["point"].output, conv["head"].input} <= rounded("conv")
    assert conv["head"].output not in rounded("conv")


class Residual(nn.Module):
    """A value that a layer reads, and beside it a residual, a normalisation and the graph's own output."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.last = nn.Linear(8, 8)
        self.norm = nn.LayerNorm(8)

    def forward(self, x):
        hidden = self.layer(x)
        return {"hidden": hidden, "sum": self.last(hidden) + hidden, "normed": self.norm(hidden), "same": x + 0}


def test_whoever_is_not_quantized_reads_what_was_not_rounded():
    rows = {"x": normal(8)(np.random.default_rng(0), 64)}
    model, file = lowered(built(Residual), rows)
    only_last = STATIC.model_copy(update={"name": "mine", "include": ("last",)})
    got = answers("onnxruntime", quantized(file, only_last, calibrate(model, [rows])).data, rows)
    wanted = model.run(rows)
    for name in ("hidden", "normed", "same"):
        np.testing.assert_allclose(got[name], wanted[name], rtol=1e-5, atol=1e-6)
    assert 30 < sqnr_db(wanted["sum"], got["sum"]) < 80


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.w, self.b = nn.Parameter(torch.randn(6, 5)), nn.Parameter(torch.randn(5))
        self.v, self.u = nn.Parameter(torch.randn(5, 4)), nn.Parameter(torch.randn(4))

    def forward(self, x):
        return torch.addmm(self.u, torch.addmm(self.b, x, self.w, alpha=2.0, beta=0.5), self.v)


@pytest.mark.parametrize("scheme", [STATIC, DYNAMIC], ids=["static", "dynamic"])
def test_a_product_with_factors_stays_float(scheme):
    """The integer kernel leaves beta out."""
    rows = {"x": normal(6)(np.random.default_rng(0), 64)}
    model, file = lowered(built(Scaled), rows)
    made = quantized(file, scheme, calibrate(model, [rows]))
    assert {item.layer: (item.precision, item.reason) for item in made.outcomes} == {
        "w": ("float32", "ONNX Runtime has no integer kernel for a product with factors"),
        "v": ("int8", ""),
    }
    assert sqnr_db(model.run(rows)["output"], answers("onnxruntime", made.data, rows)["output"]) > 30
    with pytest.raises(LoweringError, match="realises nothing: ONNX Runtime has no integer kernel for a product"):
        quantized(file, scheme.model_copy(update={"name": "mine", "include": ("w",)}), calibrate(model, [rows]))


class Tied(nn.Module):
    """One matrix that is looked up in, multiplied by twice, and multiplied by the other way round."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(24, 24)

    def forward(self, ids):
        found = self.table(ids)
        return nn.functional.linear(nn.functional.linear(found, self.table.weight), self.table.weight) + (
            torch.matmul(found, self.table.weight)
        )


@pytest.mark.parametrize("scheme", [DYNAMIC, INT4], ids=["dynamic", "int4"])
def test_a_matrix_that_is_read_in_several_ways_is_right_in_each(scheme):
    rows = {"ids": np.arange(24).reshape(4, 6)}
    model, file = lowered(built(Tied), rows)
    made = quantized(file, scheme)
    assert [item.precision for item in made.outcomes].count(scheme.dtype) == 3
    assert sqnr_db(model.run(rows)["output"], answers("onnxruntime", made.data, rows)["output"]) > (
        35 if scheme is DYNAMIC else 15
    )


def test_small_and_large_weights_stay_float_with_the_reason():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.small = nn.Linear(4, 4)
            self.wide = nn.Linear(4, 32)
            self.huge = nn.Linear(32, 4)

        def forward(self, x):
            return self.huge(torch.relu(self.wide(self.small(x))))

    module = built(Net)
    with torch.no_grad():
        module.huge.weight[0, 0] = 1e6
    rows = {"x": normal(4)(np.random.default_rng(0), 8)}
    model, file = lowered(module, rows)
    made = quantized(file, FLOAT16)
    found = {item.layer: item for item in made.outcomes}
    assert [found[name].precision for name in ("small", "wide", "huge")] == ["float32", "float16", "float32"]
    assert "fewer than 64 elements, or values that float16 cannot hold" in found["huge"].reason
    got = answers("onnxruntime", made.data, rows)["output"]
    assert np.isfinite(got).all()
    assert sqnr_db(model.run(rows)["output"], got) > 45


def test_a_look_up_is_halved_unless_it_is_excluded(workshop):
    def precision(**patterns):
        scheme = FLOAT16.model_copy(update={"name": "mine", **patterns})
        made = workshop.artifact("onnxruntime", "attention", scheme)
        table = next(item for item in made.outcomes if item.layer == "codes")
        held = {array.dtype for array in initializers(made).values() if array.shape == (6, 16)}
        return table.precision, held

    assert precision() == ("float16", {np.dtype(np.float16)})
    assert precision(exclude=("codes",)) == ("float32", {np.dtype(np.float32)})
    assert precision(include=("q",)) == ("float32", {np.dtype(np.float32)})


def attention(mask=None, **options):
    class Net(nn.Module):
        def forward(self, x):
            return F.scaled_dot_product_attention(x, x.flip(2), x * 2, attn_mask=mask, **options).mean(2)

    return Net()


MASKS = {
    "none": {},
    "scaled": {"scale": 0.3},
    "boolean": {"mask": torch.tensor([[True, True, False, True, False]]).expand(5, 5)},
    "added": {"mask": torch.linspace(-2, 2, 25).reshape(5, 5)},
    "causal": {"is_causal": True},
}


@pytest.mark.parametrize("case", MASKS)
def test_attention_is_written_out_right(case):
    rows = {"x": normal(2, 5, 4)(np.random.default_rng(0), 6)}
    model, file = lowered(attention(**MASKS[case]), rows)
    wanted, got = model.run(rows)["output"], answers("onnxruntime", file.data, rows)["output"]
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)
    assert "Shape" not in {node.op_type for node in graph_of(file).node} or case == "causal"


def test_an_operator_without_a_form_in_onnx_is_told():
    class Net(nn.Module):
        def forward(self, x):
            return torch.special.bessel_j0(x)

    with pytest.raises(LoweringError, match=r"ONNX export failed: .*bessel_j0") as caught:
        lowered(Net(), {"x": np.zeros((2, 3), np.float32)})
    assert "leave this target out" in caught.value.hint


def test_lowering_prints_nothing(capfd):
    lowered(nn.Linear(3, 2).eval(), {"input": np.zeros((2, 3), np.float32)})
    assert capfd.readouterr() == ("", "")


def test_a_graph_with_more_weights_than_a_file_holds_is_written_with_them_beside_it(monkeypatch, tmp_path):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(64, 64), nn.Linear(64, 8)

        def forward(self, x):
            return self.second(torch.relu(self.first(x)))

    monkeypatch.setattr(export, "MAX_BYTES", 10_000)
    rows = {"x": normal(64)(np.random.default_rng(0), 9)}
    model, file = lowered(built(Net), rows)
    made = quantized(file, DYNAMIC)
    for number, (given, least_db) in enumerate(((file, 100), (made, 30))):
        (data,) = given.beside
        assert data.size_bytes >= 64 * 64
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "model.onnx").write_bytes(given.data)
        data.lay(folder)
        session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
        (name,) = given.outputs
        assert sqnr_db(model.run(rows)[name], session.run([name], rows)[0]) > least_db
    # What is temporary goes with the file.
    place = data.path
    del given, data, made, session
    gc.collect()
    assert not place.exists()


@pytest.mark.parametrize("cpu", ["any", "native"])
def test_dynamic_answers_are_those_of_the_runtimes_own_quantizer(cpu, tmp_path):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.third = nn.Linear(48, 96), nn.Linear(48, 96, bias=False), nn.Linear(96, 7)

        def forward(self, x):
            return self.third(torch.relu(self.first(x)) + self.second(x))

    rows = {"x": normal(48)(np.random.default_rng(0), 9)}
    _, file = lowered(built(Net), rows)
    quantize_dynamic(
        onnx.load_from_string(file.data),
        tmp_path / "theirs.onnx",
        op_types_to_quantize=["Gemm", "MatMul"],
        per_channel=True,
        reduce_range=adds_in_16_bits(cpu),
        weight_type=QuantType.QInt8,
        extra_options={"MatMulConstBOnly": True, "WeightSymmetric": True},
    )
    ours = answers("onnxruntime", quantized(file, DYNAMIC, cpu=cpu).data, rows)
    theirs = answers("onnxruntime", (tmp_path / "theirs.onnx").read_bytes(), rows)
    for name, array in theirs.items():
        np.testing.assert_array_equal(ours[name], array)

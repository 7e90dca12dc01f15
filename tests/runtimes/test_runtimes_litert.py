from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import answers, built, engine, exported, normal, sqnr_db, target
from torch import nn

from compress.calibrate import calibrate
from compress.errors import LoweringError
from compress.model.core import state
from compress.recipe import BUILTIN_SCHEMES
from compress.runtimes.litert.bias import fit_biases
from compress.runtimes.litert.flatbuffer import INT8, INT32, WEIGHTED, code, constant, read, text

STATIC, DYNAMIC = BUILTIN_SCHEMES["int8-static"], BUILTIN_SCHEMES["int8-dynamic"]


def tensors(data):
    return {text(tensor.name): tensor for tensor in read(data).subgraphs[0].tensors}


def quantized(file, scheme, ranges=None):
    return engine("litert").quantize(file, scheme, ranges, target("litert"))


def runner(data):
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter(model_content=data, num_threads=1).get_signature_runner()


@pytest.mark.parametrize("scheme", [*BUILTIN_SCHEMES.values()], ids=[*BUILTIN_SCHEMES])
def test_a_file_takes_one_float_row_by_the_models_names(workshop, scheme):
    run = runner(workshop.artifact("litert", "two-ways", scheme).data)
    inputs, outputs = run.get_input_details(), run.get_output_details()
    assert {name: tuple(item["shape"]) for name, item in inputs.items()} == {"zeta": (1, 8), "alpha": (1, 4)}
    assert {name: tuple(item["shape"]) for name, item in outputs.items()} == {"logit": (1, 5), "default": (1, 5)}
    assert {item["dtype"] for item in (*inputs.values(), *outputs.values())} == {np.float32}


@pytest.mark.parametrize("name", ["mlp", "conv", "attention", "two-ways"])
def test_every_tensor_has_a_name_of_its_own(workshop, name):
    file = workshop.lowered("litert", name)
    names = [text(tensor.name) for tensor in read(file.data).subgraphs[0].tensors]
    assert len(names) == len(set(names))
    assert {item.output for item in file.placed} | {item.input for item in file.placed} <= set(names)
    assert len({item.output for item in file.placed}) == len(file.placed)


def test_a_layer_may_have_the_name_of_an_output(workshop):
    """`score` is a layer, and the output behind its squeeze."""
    placed = {item.layer.name: item for item in workshop.lowered("litert", "mlp").placed}
    assert placed["score"].output != "score"
    assert placed["middle"].output == "middle"


def test_layers_are_found_by_their_weights(workshop):
    for name in ("conv", "attention"):
        file, model = workshop.lowered("litert", name), workshop.tiny(name, fold=True).model
        assert file.missing == ()
        flat = read(file.data)
        by_output = {
            text(flat.subgraphs[0].tensors[item.outputs[0]].name): item for item in flat.subgraphs[0].operators
        }
        for placed in file.placed:
            operator = by_output[placed.output]
            kind, at_weight = WEIGHTED[code(flat, operator)]
            held = constant(flat, operator.inputs[at_weight])
            weight = state(model.program)[placed.layer.weight].detach().numpy() * placed.gain
            np.testing.assert_allclose(np.sort(held), np.sort(weight.reshape(-1)), rtol=1e-5, atol=1e-7)
            assert kind == placed.node


def test_attentions_scale_is_known_as_the_gain_of_the_layers_that_carry_it(workshop):
    gains = {item.layer.name: item.gain for item in workshop.lowered("litert", "attention").placed}
    scale = 8**-0.5
    assert gains["q"] * gains["k"] == pytest.approx(scale, rel=1e-5)
    assert gains["q"] != 1
    assert {gains[name] for name in ("codes", "lift", "v", "out", "head")} == {1.0}


def test_a_gain_scales_the_range_of_what_leaves_the_layer(workshop):
    lowered, ranges = workshop.lowered("litert", "attention"), workshop.ranges("attention")
    held = tensors(workshop.artifact("litert", "attention", STATIC).data)
    for placed in lowered.placed:
        if placed.layer.operator == "embedding":
            continue
        low, high = ranges.of(placed.layer.node)
        scale = float(held[placed.output].quantization.scale[0])
        assert scale == pytest.approx((high - low) * placed.gain / 255, rel=1e-4), placed.layer.name


def test_a_fused_activation_gives_its_range(workshop):
    ranges = workshop.ranges("conv")
    held = tensors(workshop.artifact("litert", "conv", STATIC).data)
    placed = {item.layer.name: item for item in workshop.lowered("litert", "conv").placed}
    assert [placed[name].fused for name in ("stem", "depth", "point", "head")] == [True, True, False, False]
    low, high = ranges.of(placed["stem"].layer.output)
    assert low == 0
    assert float(held["stem"].quantization.scale[0]) == pytest.approx(high / 255, rel=1e-4)


def test_equal_weights_come_before_proportional_ones(corner):
    made = corner("litert", "scalars")
    flat = read(made.lowered.data)
    by_output = {text(flat.subgraphs[0].tensors[item.outputs[0]].name): item for item in flat.subgraphs[0].operators}
    found = {
        item.layer.name: (float(constant(flat, by_output[item.output].inputs[1])[0]), item.gain)
        for item in made.lowered.placed
        if item.layer.shape == (1, 1)
    }
    assert found == {"tensor_1": (1.0, 1.0), "tensor_2": (2.0, 1.0), "tensor_0": (-3.0, 1.0)}


def test_a_depthwise_convolution_stays_float_where_its_kernel_is_slow(workshop):
    outcomes = {item.layer: item for item in workshop.artifact("litert", "conv", DYNAMIC).outcomes}
    assert outcomes["depth"].precision == "float32"
    assert "slow kernel" in outcomes["depth"].reason
    outcomes = {item.layer: item for item in workshop.artifact("litert", "conv", STATIC).outcomes}
    assert outcomes["depth"].precision == "int8"


@pytest.mark.parametrize("cpu", ["any", "native"])
def test_the_cpu_changes_nothing(workshop, cpu):
    assert workshop.artifact("litert", "mlp", STATIC, cpu).data == workshop.artifact("litert", "mlp", STATIC).data


class ReadInside(nn.Module):
    """Outputs that are read inside the graph: by an activation, by a layer."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.second = nn.Linear(6, 6)

    def forward(self, x):
        first = self.first(x)
        second = self.second(first)
        return {"first": first, "second": second, "probability": torch.sigmoid(second), "class": second.argmax(1)}


@pytest.mark.parametrize("include", [("*",), ("first",), ("second",)], ids=lambda patterns: patterns[0])
@pytest.mark.parametrize("scheme", [STATIC, DYNAMIC, BUILTIN_SCHEMES["float16"]], ids=lambda scheme: scheme.name)
def test_outputs_that_are_read_inside_are_float_and_right(read_inside, scheme, include):
    model, file, ranges, rows = read_inside
    made = quantized(file, scheme.model_copy(update={"include": include}), ranges)
    got, wanted = answers("litert", made.data, rows), model.run(rows)
    for name in ("first", "second", "probability"):
        assert got[name].dtype == np.float32
        assert sqnr_db(wanted[name], got[name]) > 25, name
    np.testing.assert_array_equal(got["class"], got["second"].argmax(1))


@pytest.fixture(scope="module")
def read_inside():
    rows = {"x": normal(6)(np.random.default_rng(0), 32)}
    model = exported(built(ReadInside), rows)
    return model, engine("litert").lower(model), calibrate(model, [rows]), rows


def biases(data):
    """For each layer with an integer bias: its values, its scales, and the product of the other two scales."""
    flat = read(data)
    graph = flat.subgraphs[0]
    for operator in graph.operators:
        if code(flat, operator) in WEIGHTED and graph.tensors[operator.inputs[-1]].type == INT32:
            given, weight, bias = (graph.tensors[index] for index in operator.inputs[:3])
            if weight.type == INT8:
                values = np.frombuffer(np.asarray(flat.buffers[bias.buffer].data, np.uint8).tobytes(), np.int32)
                steps = np.asarray(weight.quantization.scale) * float(given.quantization.scale[0])
                yield values, np.asarray(bias.quantization.scale), steps


def test_a_bias_fits_even_where_the_weights_of_its_channel_are_gone(corner):
    found = list(biases(corner("litert", "dead").quantized(STATIC).data))
    assert len(found) == 4
    for values, scales, steps in found:
        assert np.abs(values.astype(np.int64)).max() <= 2**30
        np.testing.assert_allclose(scales, steps, rtol=1e-5)


def test_biases_that_fit_are_left_alone(workshop):
    data = workshop.artifact("litert", "conv", STATIC).data
    assert fit_biases(data, workshop.lowered("litert", "conv").data) is data


def test_integer_inputs_become_32_bits():
    class LookUp(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(7, 8)
            self.head = nn.Linear(8, 3)

        def forward(self, codes):
            return self.head(self.table(codes).mean(1))

    rows = {"codes": np.random.default_rng(0).integers(0, 7, (20, 4))}
    model = exported(built(LookUp), rows)
    file = engine("litert").lower(model)
    assert runner(file.data).get_input_details()["codes"]["dtype"] == np.int32
    assert sqnr_db(model.run(rows)["output"], answers("litert", file.data, rows)["output"]) > 80
    made = quantized(file, STATIC, calibrate(model, [rows]))
    assert sqnr_db(model.run(rows)["output"], answers("litert", made.data, rows)["output"]) > 25


def test_an_operator_that_cannot_be_converted_is_told():
    class Net(nn.Module):
        def forward(self, x):
            return torch.special.bessel_j0(x)

    with pytest.raises(LoweringError, match=r"LiteRT conversion failed: .*bessel_j0") as caught:
        engine("litert").lower(exported(Net(), {"x": np.zeros((2, 3), np.float32)}))
    assert "leave this target out" in caught.value.hint


def test_lowering_and_quantizing_print_nothing(capfd, workshop):
    file = engine("litert").lower(exported(nn.Linear(3, 2).eval(), {"input": np.zeros((2, 3), np.float32)}))
    quantized(file, DYNAMIC)
    assert capfd.readouterr() == ("", "")


class Gate(nn.Module):
    """A hard sigmoid becomes a bias that is larger by 3, a ReLU6 in the layer, and a product."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.gate = nn.Conv2d(8, 8, 1)
        self.out = nn.Linear(8, 4)
        with torch.no_grad():
            self.gate.bias -= 4  # shut for the most part: what the layer gives lies below what leaves

    def forward(self, x):
        maps = torch.relu(self.first(x))
        return self.out((maps * nn.functional.hardsigmoid(self.gate(maps))).mean(dim=(2, 3)))


class Shifted(nn.Module):
    """A constant behind a layer becomes part of its bias."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 4, 3)

    def forward(self, x):
        return self.second(torch.nn.functional.silu(self.first(x) + 20.0)).mean(dim=(2, 3))


@pytest.mark.parametrize(("factory", "layer"), [(Gate, "gate"), (Shifted, "first")])
def test_what_the_converter_folded_into_a_layer_is_in_its_range(factory, layer):
    rows = {"x": normal(3, 8, 8)(np.random.default_rng(3), 64)}
    model = exported(built(factory), rows)
    ranges, lowered = calibrate(model, [rows]), engine("litert").lower(model)
    placed = next(item for item in lowered.placed if item.layer.name == layer)
    assert not placed.is_layers_output
    float_answers = answers("litert", lowered.data, rows)["output"]
    got = answers("litert", quantized(lowered, STATIC, ranges).data, rows)["output"]
    assert sqnr_db(model.run(rows)["output"], float_answers) > 80
    assert sqnr_db(model.run(rows)["output"], got) > 25
    if factory is Gate:
        assert placed.clip == (0.0, 6.0)
        low, high = placed.range_out(ranges)
        assert low == 0.0
        assert high == pytest.approx(min(6.0, ranges.of(placed.layer.node)[1] + 3), abs=1e-4)
    assert placed.shift == pytest.approx((3.0, 3.0) if factory is Gate else (20.0, 20.0), abs=1e-4)


def test_a_layer_that_the_converter_left_alone_gives_its_own_value(workshop):
    for name in ("mlp", "conv"):
        assert all(item.is_layers_output for item in workshop.lowered("litert", name).placed)

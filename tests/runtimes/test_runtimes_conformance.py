"""What every registered runtime must keep, on every tiny model and every scheme, judged by the file that ships."""

from __future__ import annotations

import numpy as np
import pytest
from corners import CORNERS
from inside import holds
from offered import ON_A_GPU, WITHOUT
from tiny_models import TINY, answers, engine, exported, sqnr_db, target
from torch import nn

from compress.calibrate import Ranges
from compress.errors import CompressError, InternalError, LoweringError
from compress.model.core import Model
from compress.model.layers import layers
from compress.recipe import BUILTIN_SCHEMES
from compress.runtimes.base import RUNTIMES, SMALL_TABLE, Lowered

PRECISIONS = {"float32": np.float32, "float16": np.float16, "int8": np.int8, "int4": "int4"}
# dB of signal over error that a scheme must keep on rows like those of its calibration.
FLOORS_DB = {
    "float32": 80,
    "float16": 45,
    "int8-static": 20,
    "int8-dynamic": 20,
    "int8-weights": 20,
    "int4-weights": 8,
    "int4-dynamic": 8,
}
REDUCED = [name for name in BUILTIN_SCHEMES if name != "float32"]

pytestmark = pytest.mark.parametrize("runtime", RUNTIMES.names())


def schemes(*names):
    return pytest.mark.parametrize("scheme", [BUILTIN_SCHEMES[name] for name in names], ids=names)


def models(*names):
    return pytest.mark.parametrize("name", names or sorted(TINY))


@models()
@schemes(*BUILTIN_SCHEMES)
def test_a_file_answers_like_the_graph(workshop, runtime, name, scheme):
    file = workshop.artifact(runtime, name, scheme)
    model = workshop.tiny(name, fold=True).model
    rows = workshop.tiny(name).rows(40, seed=1)
    wanted, got = model.run(rows), answers(runtime, file.data, rows)
    assert set(got) == set(wanted)
    for output, array in wanted.items():
        assert got[output].shape == array.shape
        assert got[output].dtype == np.float32
        assert sqnr_db(array, got[output]) > FLOORS_DB[scheme.name]
        if scheme.dtype == "float32":
            assert np.abs(array - got[output]).max() <= 1e-4 * np.abs(array).max()


@pytest.mark.parametrize("name", sorted(CORNERS))
@schemes(*BUILTIN_SCHEMES)
def test_a_file_answers_like_the_graph_in_every_corner(corner, runtime, name, scheme):
    made = corner(runtime, name)
    try:
        file = made.quantized(scheme)
    except LoweringError as error:
        assert "realises nothing" in error.message
        return
    got = answers(runtime, file.data, made.rows)
    for output, array in made.answers.items():
        assert sqnr_db(array, got[output]) > FLOORS_DB[scheme.name], output


@pytest.mark.parametrize("name", sorted(CORNERS))
def test_every_corner_is_quantized_by_some_scheme(corner, runtime, name):
    if (runtime, "int8-static") in WITHOUT:
        pytest.skip(f"{runtime} has no int8-static")
    made = corner(runtime, name)
    assert any(item.precision == "int8" for item in made.quantized(BUILTIN_SCHEMES["int8-static"]).outcomes)


@models()
@schemes(*BUILTIN_SCHEMES)
def test_names_are_the_models_in_its_order(workshop, runtime, name, scheme):
    file = workshop.artifact(runtime, name, scheme)
    signature = workshop.tiny(name).model.signature
    assert file.inputs == tuple(item.name for item in signature.inputs)
    assert file.outputs == tuple(item.name for item in signature.outputs)
    assert file.suffix == workshop.lowered(runtime, name).suffix


def told(file: Lowered, model: Model):
    """Every layer's outcome; each is there once."""
    found = {outcome.layer: outcome for outcome in file.outcomes}
    assert len(found) == len(file.outcomes)
    assert set(found) == {layer.name for layer in layers(model)}
    return found


@models()
@schemes(*REDUCED)
def test_every_layer_has_an_outcome_that_the_file_confirms(workshop, runtime, name, scheme):
    model = workshop.tiny(name, fold=True).model
    file = workshop.artifact(runtime, name, scheme)
    found = told(file, model)
    reduced = 0
    for layer in layers(model):
        outcome = found[layer.name]
        assert outcome.operator == layer.operator
        assert outcome.nodes
        assert outcome.precision in ("float32", scheme.dtype)
        assert bool(outcome.reason) == (outcome.precision == "float32")
        assert holds(runtime, file.data, model, layer, PRECISIONS[outcome.precision])
        if outcome.precision != "float32":
            reduced += 1
            assert not holds(runtime, file.data, model, layer, np.float32)
    assert reduced
    assert file.notes


@schemes(*REDUCED)
@pytest.mark.parametrize("name", ["shapes", "encoder", "scalars"])
def test_outcomes_are_confirmed_in_every_corner(corner, runtime, name, scheme):
    made = corner(runtime, name)
    try:
        file = made.quantized(scheme)
    except LoweringError:
        return
    found = told(file, made.model)
    for layer in layers(made.model):
        outcome = found[layer.name]
        assert bool(outcome.reason) == (outcome.precision == "float32")
        if outcome.nodes and np.prod(layer.shape) > 1:
            assert holds(runtime, file.data, made.model, layer, PRECISIONS[outcome.precision]), outcome


@models("mlp", "attention")
@schemes(*REDUCED)
def test_the_same_gives_the_same_bytes(workshop, runtime, name, scheme):
    again = engine(runtime).quantize(workshop.lowered(runtime, name), scheme, workshop.ranges(name), target(runtime))
    assert again == workshop.artifact(runtime, name, scheme)


@models("two-ways")
def test_lowering_gives_the_same_bytes_and_leaves_the_model_alone(workshop, runtime, name):
    model = workshop.tiny(name, fold=True).model
    before = Model(model.program, model.signature, model.lineage).digest
    assert engine(runtime).lower(model) == workshop.lowered(runtime, name)
    assert Model(model.program, model.signature, model.lineage).digest == before


@models()
@schemes(*BUILTIN_SCHEMES)
def test_a_file_says_nothing_of_the_source_code(workshop, runtime, name, scheme):
    data = workshop.artifact(runtime, name, scheme).data
    for word in (b"tiny_models", b"in forward", b"/work", b"/home", b"/tmp", b"site-packages", b".py"):
        assert word not in data


@schemes(*REDUCED)
def test_an_excluded_layer_keeps_its_float_weight(workshop, runtime, scheme):
    model = workshop.tiny("mlp", fold=True).model
    mine = scheme.model_copy(update={"name": "mine", "exclude": ("mid*",)})
    file = workshop.artifact(runtime, "mlp", mine)
    found = told(file, model)
    for layer in layers(model):
        excluded = layer.name == "middle"
        if excluded:
            assert (found[layer.name].precision, found[layer.name].reason) == ("float32", "excluded by 'mid*'")
        precision = found[layer.name].precision
        assert holds(runtime, file.data, model, layer, np.float32) == (precision == "float32")
    assert found["up"].precision == scheme.dtype


@schemes(*REDUCED)
def test_only_included_layers_are_touched(workshop, runtime, scheme):
    model = workshop.tiny("attention", fold=True).model
    mine = scheme.model_copy(update={"name": "mine", "include": ("q", "out")})
    file = workshop.artifact(runtime, "attention", mine)
    found = told(file, model)
    assert {name for name, outcome in found.items() if outcome.precision == scheme.dtype} == {"q", "out"}
    for layer in layers(model):
        assert holds(runtime, file.data, model, layer, np.float32) == (layer.name not in ("q", "out"))


@schemes("int8-static", "int8-dynamic")
def test_one_call_of_a_shared_layer_may_be_excluded(corner, runtime, scheme):
    made = corner(runtime, "shared")
    file = made.quantized(scheme.model_copy(update={"name": "mine", "exclude": ("again#2",)}))
    found = told(file, made.model)
    assert (found["again"].precision, found["again#2"].precision) == ("int8", "float32")
    layer = next(layer for layer in layers(made.model) if layer.name == "again")
    assert holds(runtime, file.data, made.model, layer, np.float32)
    assert holds(runtime, file.data, made.model, layer, np.int8)
    got = answers(runtime, file.data, made.rows)
    assert all(sqnr_db(array, got[output]) > 20 for output, array in made.answers.items())


@schemes("int8-static", "int8-dynamic")
def test_a_look_up_in_a_shared_table_is_exact(corner, runtime, scheme):
    made = corner(runtime, "shared")
    file = made.quantized(scheme)
    found = told(file, made.model)
    look_up = next(outcome for outcome in found.values() if outcome.operator == "embedding")
    assert (look_up.precision, look_up.reason) == ("float32", SMALL_TABLE)
    layer = next(layer for layer in layers(made.model) if layer.operator == "embedding")
    assert holds(runtime, file.data, made.model, layer, np.float32)


def test_an_index_from_a_raw_value_is_exact_beside_a_quantized_layer(corner, runtime):
    """Rounded to 8 bits, code 3 of 6 would be 2.97 and look up the entry of 2."""
    if (runtime, "int8-static") in WITHOUT:
        pytest.skip(f"{runtime} has no int8-static")
    made = corner(runtime, "shared")
    file = made.quantized(BUILTIN_SCHEMES["int8-static"].model_copy(update={"name": "mine", "include": ("lift",)}))
    got = answers(runtime, file.data, made.rows)
    assert all(sqnr_db(array, got[output]) > 30 for output, array in made.answers.items())


@schemes(*REDUCED)
def test_a_scheme_that_realises_nothing_is_an_error(workshop, runtime, scheme):
    nothing = scheme.model_copy(update={"name": "mine", "exclude": ("*",)})
    with pytest.raises(LoweringError, match=r"the scheme 'mine' realises nothing: .*excluded by '\*'") as caught:
        workshop.artifact(runtime, "mlp", nothing)
    assert caught.value.hint


@schemes(*REDUCED)
def test_a_model_without_layers_realises_nothing(runtime, scheme):
    model = exported(nn.Sigmoid(), {"input": np.zeros((2, 3), np.float32)})
    file = engine(runtime).lower(model)
    rows = {"input": np.linspace(-3, 3, 6, dtype=np.float32).reshape(2, 3)}
    np.testing.assert_allclose(answers(runtime, file.data, rows)["output"], model.run(rows)["output"], rtol=1e-5)
    with pytest.raises(LoweringError, match="realises nothing: the model has no layer"):
        engine(runtime).quantize(file, scheme, Ranges({}, "none"), target(runtime))


@schemes(*REDUCED)
@pytest.mark.parametrize("key", ["include", "exclude"])
def test_a_pattern_that_matches_no_layer_is_an_error(workshop, runtime, scheme, key):
    with pytest.raises(CompressError, match=rf"scheme\.mine\.{key}: the pattern 'midle' matches no layer") as caught:
        workshop.artifact(runtime, "mlp", scheme.model_copy(update={"name": "mine", key: ("midle",)}))
    assert "did you mean 'middle'?" in caught.value.hint


@schemes("int8-static")
def test_a_look_up_may_be_named_in_a_pattern(workshop, runtime, scheme):
    file = workshop.artifact(runtime, "attention", scheme.model_copy(update={"name": "mine", "exclude": ("codes",)}))
    assert {item.layer for item in file.outcomes if item.precision == "float32"} == {"codes"}


@schemes("int8-static")
def test_static_ranges_are_those_that_are_given(workshop, runtime, scheme):
    lowered, ranges = workshop.lowered(runtime, "conv"), workshop.ranges("conv")
    wider = Ranges({name: (low * 8, high * 8) for name, (low, high) in ranges.values.items()}, "wider")
    tighter = Ranges({name: (low / 8, high / 8) for name, (low, high) in ranges.values.items()}, "tighter")
    made = {
        each.source: engine(runtime).quantize(lowered, scheme, each, target(runtime))
        for each in (ranges, wider, tighter)
    }
    assert len({file.data for file in made.values()}) == 3
    rows = workshop.tiny("conv").rows(40, seed=1)
    wanted = workshop.tiny("conv").model.run(rows)["output"]
    error_db = {name: sqnr_db(wanted, answers(runtime, file.data, rows)["output"]) for name, file in made.items()}
    assert error_db[ranges.source] > error_db["wider"] + 5
    assert error_db[ranges.source] > error_db["tighter"] + 5
    assert any(ranges.source in note for note in made[ranges.source].notes)


@schemes("int8-static")
def test_static_quantization_without_ranges_is_a_fault_of_the_program(workshop, runtime, scheme):
    with pytest.raises(InternalError, match="without ranges"):
        engine(runtime).quantize(workshop.lowered(runtime, "mlp"), scheme, None, target(runtime))


@schemes("int8-dynamic", "float16")
def test_other_schemes_need_no_ranges(workshop, runtime, scheme):
    file = engine(runtime).quantize(workshop.lowered(runtime, "mlp"), scheme, None, target(runtime))
    assert file.data == workshop.artifact(runtime, "mlp", scheme).data


@schemes("int8-static", "int8-dynamic")
def test_one_scale_for_all_channels_is_another_file(workshop, runtime, scheme):
    one = workshop.artifact(runtime, "mlp", scheme.model_copy(update={"name": "mine", "granularity": "tensor"}))
    each = workshop.artifact(runtime, "mlp", scheme)
    assert one.data != each.data
    assert any("per tensor" in note for note in one.notes)
    assert any("per channel" in note for note in each.notes)
    rows = workshop.tiny("mlp").rows(40, seed=1)
    wanted = workshop.tiny("mlp").model.run(rows)["score"]
    assert sqnr_db(wanted, answers(runtime, one.data, rows)["score"]) > 20


def test_a_runtime_lists_the_schemes_that_it_takes(runtime):
    assert engine(runtime).name == runtime
    had = [item for item in BUILTIN_SCHEMES.values() if (runtime, item.name) not in WITHOUT - ON_A_GPU]
    assert engine(runtime).schemes == {(item.dtype, item.activations) for item in had} - {("float32", "none")}


def test_reduced_files_are_smaller_than_float_ones_where_weights_count(runtime):
    """On a layer large enough that its weight is the file."""
    model = exported(nn.Linear(64, 256).eval(), {"input": np.zeros((2, 64), np.float32)})
    file = engine(runtime).lower(model)
    ranges = Ranges({"input": (-3.0, 3.0), "linear": (-3.0, 3.0)}, "given")
    most = {"float16": 0.6, "int8-static": 0.4, "int8-dynamic": 0.4, "int8-weights": 0.4}
    most |= {"int4-weights": 0.25, "int4-dynamic": 0.25}
    for name in REDUCED:
        if (runtime, name) not in WITHOUT:
            made = engine(runtime).quantize(file, BUILTIN_SCHEMES[name], ranges, target(runtime))
            assert len(made.data) / len(file.data) < most[name], name

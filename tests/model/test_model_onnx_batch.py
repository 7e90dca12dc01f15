import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper
from onnx_kit import close, proto, reference, save, values
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from compress.errors import ModelError
from compress.model.onnx_import import check_onnx, load_onnx
from compress.model.onnx_import.batch import Batch, opened_expand, opened_reshape


def node(kind, inputs, output="y", **attributes):
    return helper.make_node(kind, inputs.split(" "), output.split(" "), **attributes)


def opened(nodes, feeds, constants, tmp_path, batch):
    """Imports a file of a fixed batch; on that many rows at a time its answers must be ONNX Runtime's."""
    model = proto(nodes, {name: array[:batch] for name, array in feeds.items()}, ["y"], constants, batch=batch)
    path = save(model, tmp_path)
    assert check_onnx(path).batch == batch
    imported = load_onnx(path)
    rows = len(next(iter(feeds.values()))) // batch * batch
    got = imported.run({name: array[:rows] for name, array in feeds.items()})["y"]
    for start in range(0, rows, batch):
        part = {name: array[start : start + batch] for name, array in feeds.items()}
        close(reference(model, part)["y"], got[start : start + batch], 1e-5)
    return imported


IMAGES = {"x": values(6, 3, 8, 8)}
SERIES = {"x": values(6, 5, 8)}


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_flattened_features_are_opened(batch, tmp_path):
    nodes = [node("Conv", "x w", "c"), node("Reshape", "c s", "f"), node("MatMul", "f m")]
    constants = {"w": values(4, 3, 3, 3), "s": np.array([batch, -1]), "m": values(144, 2)}
    imported = opened(nodes, IMAGES, constants, tmp_path, batch)
    assert imported.signature.outputs[0].shape == (2,)


@pytest.mark.parametrize("batch", [1, 2])
def test_heads_merged_with_the_batch_are_opened(batch, tmp_path):
    nodes = [
        node("Reshape", "x split", "heads"),
        node("Transpose", "heads", "front", perm=[0, 2, 1, 3]),
        node("Reshape", "front merged", "m"),
        node("Transpose", "m", "t", perm=[0, 2, 1]),
        node("MatMul", "m t", "scores"),
        node("Softmax", "scores", "soft", axis=-1),
        node("MatMul", "soft m", "mixed"),
        node("Reshape", "mixed apart", "a"),
        node("Transpose", "a", "b", perm=[0, 2, 1, 3]),
        node("Reshape", "b joined"),
    ]
    constants = {
        "split": np.array([batch, 5, 2, 4]),
        "merged": np.array([batch * 2, 5, 4]),
        "apart": np.array([batch, 2, 5, 4]),
        "joined": np.array([batch, 5, 8]),
    }
    opened(nodes, SERIES, constants, tmp_path, batch)


@pytest.mark.parametrize("batch", [2, 3])
def test_batch_behind_the_steps_is_opened(batch, tmp_path):
    nodes = [
        node("Transpose", "x", "steps", perm=[1, 0, 2]),
        node("Reshape", "steps split", "s"),
        node("Transpose", "s", "h", perm=[1, 2, 0, 3]),
        node("Softmax", "h", "p", axis=-1),
        node("ReduceMean", "p", axes=[2], keepdims=0),
    ]
    opened(nodes, SERIES, {"split": np.array([5, batch, 2, 4])}, tmp_path, batch)


def test_one_token_for_all_rows_is_repeated(tmp_path):
    nodes = [node("Concat", "token x", "all", axis=1), node("ReduceMax", "all", axes=[1], keepdims=0)]
    opened(nodes, SERIES, {"token": values(1, 1, 8)}, tmp_path, 1)


def test_constant_expanded_to_the_batch_is_opened(tmp_path):
    nodes = [node("Expand", "token size", "e"), node("Concat", "e x", axis=1)]
    opened(nodes, SERIES, {"token": values(1, 1, 8), "size": np.array([2, 1, 1])}, tmp_path, 2)


@pytest.mark.parametrize(("batch", "zeros"), [(1, True), (1, False), (2, True)])
def test_initial_states_of_the_batch_are_opened(batch, zeros, tmp_path):
    state = np.zeros((1, batch, 4), np.float32) if zeros else values(1, batch, 4)
    nodes = [
        node("Transpose", "x", "t", perm=[1, 0, 2]),
        node("LSTM", "t w r   h h", "all", hidden_size=4),
        node("Transpose", "all", perm=[2, 0, 1, 3]),
    ]
    opened(nodes, SERIES, {"w": values(1, 16, 8), "r": values(1, 16, 4), "h": state}, tmp_path, batch)


def test_shape_arithmetic_of_a_fixed_batch_stays_open(tmp_path):
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s zero", "rows", axis=0),
        node("Concat", "rows rest", "target", axis=0),
        node("Reshape", "x target"),
    ]
    opened(nodes, SERIES, {"zero": np.array([0]), "rest": np.array([-1])}, tmp_path, 2)


@pytest.mark.parametrize(
    ("nodes", "constants", "reason"),
    [
        ([node("ReduceMean", "x", "m", axes=[0]), node("Sub", "x m")], {}, "rows depend on each other"),
        ([node("Add", "x c")], {"c": values(2, 5, 8)}, "Add"),
        ([node("Reshape", "x s")], {"s": np.array([5, 2, 8])}, "Reshape"),
        ([node("Split", "x", "a b", axis=0), node("Sub", "a b")], {}, "batch"),
    ],
)
def test_batch_that_cannot_be_opened_is_told_with_its_number(nodes, constants, reason, tmp_path):
    path = save(proto(nodes, {"x": SERIES["x"][:2]}, ["y"], constants, batch=2), tmp_path)
    with pytest.raises(ModelError, match="its batch is fixed to 2 and cannot be opened") as caught:
        load_onnx(path)
    assert reason in caught.value.message
    assert "dynamic batch" in caught.value.hint


def test_rows_that_are_mixed_in_one_batch_only_are_found_out(tmp_path):
    # With one row the softmax over rows is 1; with two it is not.
    nodes = [node("Softmax", "x", "p", axis=0), node("Mul", "x p")]
    path = save(proto(nodes, {"x": values(1, 8)}, ["y"], batch=1), tmp_path)
    with pytest.raises(ModelError, match="rows depend on each other"):
        load_onnx(path)


def test_a_huge_fixed_batch_is_refused(tmp_path):
    path = save(proto([node("Relu", "x")], {"x": values(2, 8)}, ["y"], batch=1_000_000), tmp_path)
    with pytest.raises(ModelError, match="fixed to 1000000"):
        load_onnx(path)


def symbol():
    return ShapeEnv().create_unbacked_symint()


def at(sizes, size, rows):
    """The sizes with the symbol replaced by a number."""
    return [
        int(item.node.expr.subs({size.node.expr: rows})) if isinstance(item, torch.SymInt) else item for item in sizes
    ]


def factors(draw, number):
    result = []
    while number > 1 and draw(st.booleans()):
        divisor = draw(st.sampled_from([item for item in range(1, number + 1) if number % item == 0]))
        result.append(divisor)
        number //= divisor
    return [*result, number]


@st.composite
def regroupings(draw):
    """A shape around the batch, and a target that keeps the batch whole and in its place."""
    before = draw(st.lists(st.integers(2, 4), max_size=2))
    inner = draw(st.integers(1, 3))
    after = draw(st.lists(st.integers(1, 4), max_size=2))
    fixed = draw(st.integers(2, 5))
    behind = inner * math.prod(after)
    first, *rest = factors(draw, behind)
    target = [*factors(draw, math.prod(before)), fixed * first, *rest]
    if draw(st.booleans()):
        target[draw(st.integers(0, len(target) - 1))] = -1
    return before, inner, after, fixed, target


@given(regroupings(), st.integers(1, 6))
def test_opened_reshape_gives_each_row_what_it_had(case, rows):
    before, inner, after, fixed, target = case
    size = symbol()
    shape = [*before, size * inner, *after]
    found = opened_reshape(shape, target, Batch(fixed, size))
    in_file = np.arange(math.prod([*before, fixed * inner, *after])).reshape(target)
    assert list(in_file.shape) == at(found, size, fixed)
    assert math.prod(at(found, size, rows)) == math.prod([*before, rows * inner, *after])
    places = [index for index, item in enumerate(found) if isinstance(item, torch.SymInt)]
    assert len(places) == 1
    assert math.prod(found[: places[0]]) == math.prod(before)


def test_reshape_without_the_batch_is_left_alone():
    size = symbol()
    assert opened_reshape([2, 6], [3, -1], Batch(2, size)) == [3, -1]


def test_reshape_that_splits_the_batch_is_refused():
    with pytest.raises(ValueError, match="batch of 4"):
        opened_reshape([symbol_of := symbol(), 3], [2, 6], Batch(4, symbol_of))


def test_expand_keeps_the_batch_that_a_value_has():
    size = symbol()
    assert opened_expand([size, 1, 3], [4, 5, 3], Batch(4, size))[0] is size
    assert opened_expand([1, 3], [4, 5, 3], Batch(4, size))[0] is size
    assert opened_expand([size, 1], [1, 5], Batch(1, size)) == [1, 5]

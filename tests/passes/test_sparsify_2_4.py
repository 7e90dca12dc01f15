"""2:4 weights: two zeros in every four along what is summed over, in the graph and in both runtimes' files."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from prune_kit import exported, rows
from rows_kit import check_like_any_other, dataset
from torch import nn
from torch.nn import functional as F

from compress.errors import CompressError, RecipeError
from compress.model.cost import cost
from compress.passes.base import Context, run_pass
from compress.passes.two_four import fitted, is_2_4, mask_2_4
from compress.runtimes.litert.export import export as export_litert
from compress.runtimes.litert.flatbuffer import constant, read
from compress.runtimes.onnxruntime.export import export as export_onnx


class Layers(nn.Module):
    """Convolutions of several kinds, linear layers that fit and that do not, a weight that is used twice."""

    def __init__(self):
        super().__init__()
        self.stem, self.point = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1)
        self.grouped, self.depth = nn.Conv2d(16, 16, 1, groups=2), nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.up, self.again, self.head = nn.Linear(16, 12), nn.Linear(12, 12), nn.Linear(12, 4)

    def forward(self, image):
        value = torch.relu(self.point(torch.relu(self.stem(image))))
        value = torch.relu(self.up(self.depth(self.grouped(value)).mean((2, 3))))
        return self.head(torch.relu(self.again(torch.relu(self.again(value)))))


SPARSE = ["point", "grouped", "up", "again", "head"]


def sparse(model, data=None, **options):
    return run_pass("sparsify_2_4", model, data, Context(options=options), allow_no_change=True)


def images(count, seed=0):
    return {"image": np.random.default_rng(seed).normal(size=(count, 3, 6, 6)).astype(np.float32)}


def weights(model):
    return {name: value.detach() for name, value in model.program.state_dict.items() if name.endswith("weight")}


@given(st.integers(1, 5), st.integers(1, 4), st.sampled_from([(), (3,), (2, 3)]), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_the_best_two_of_every_four_stay(out, groups, window, seed):
    score = torch.rand(out, groups * 4, *window, generator=torch.Generator().manual_seed(seed))
    mask = mask_2_4(score)
    assert is_2_4(score * mask) and mask.sum() * 2 == mask.numel()
    for row, group, *place in itertools.product(range(out), range(groups), *map(range, window)):
        four = (row, slice(4 * group, 4 * group + 4), *place)
        assert mask[four].sum() == 2
        assert score[four][mask[four]].min() >= score[four][~mask[four]].max()


def test_of_equal_ones_the_first_stay():
    assert mask_2_4(torch.ones(1, 8)).int().tolist() == [[1, 1, 0, 0, 1, 1, 0, 0]]


def test_what_is_2_4_and_what_is_not():
    assert is_2_4(torch.tensor([[0.0, 1, 2, 0], [0, 0, 0, 0]]))
    assert not is_2_4(torch.tensor([[1.0, 1, 2, 0]]))
    assert not is_2_4(torch.zeros(2, 6))
    assert not is_2_4(torch.zeros(4))
    assert is_2_4(torch.tensor([[1.0, 1, 2, 0]]).T @ torch.ones(1, 1) * torch.tensor([[1.0], [0], [1], [0]]), 0)


def test_what_is_fitted_is_the_least_squares_answer():
    generator = torch.Generator().manual_seed(0)
    weight, inputs = torch.randn(5, 8, generator=generator), torch.randn(200, 8, generator=generator).double()
    inputs = inputs @ torch.randn(8, 8, generator=generator).double()
    mask = mask_2_4(weight.abs())
    found = fitted(weight, mask, inputs.T @ inputs / 200)
    assert not found[~mask].any()
    for row in range(5):
        stays = mask[row]
        wanted = torch.linalg.lstsq(inputs[:, stays], inputs @ weight[row].double()).solution
        torch.testing.assert_close(found[row, stays].double(), wanted, rtol=0.02, atol=0.02)
    before = (inputs @ (weight * mask - weight).double().T).square().sum()
    assert (inputs @ (found - weight).double().T).square().sum() < 0.7 * before


def test_layers_become_2_4_and_the_others_say_why_not():
    model = exported(Layers(), image=(3, 6, 6))
    result = sparse(model)
    assert [change.where for change in result.changed] == SPARSE
    held = weights(result.model)
    assert all(is_2_4(held[f"{name}.weight"]) for name in SPARSE)
    reasons = {skip.where: skip.reason for skip in result.skipped}
    assert reasons["stem"] == "the 3 inputs of an output are no multiple of 4"
    assert reasons["depth"] == "the 1 inputs of an output are no multiple of 4"
    assert "neither faster nor smaller" in reasons["runtimes on a CPU"]
    assert "TensorRT on an NVIDIA GPU of Ampere or later" in reasons["runtimes on a CPU"]
    assert reasons["the inputs' size"].startswith("there are no rows")
    # By magnitude what stays is what it was.
    old = weights(model)
    for name in SPARSE:
        kept = held[f"{name}.weight"] != 0
        assert torch.equal(held[f"{name}.weight"][kept], old[f"{name}.weight"][kept])
    assert cost(result.model).parameters == cost(model).parameters


def test_the_norm_of_the_inputs_counts():
    module = nn.Sequential(nn.Linear(8, 4))
    model = exported(module, input=(8,))
    given = {"input": np.random.default_rng(0).normal(size=(80, 8)).astype(np.float32)}
    given["input"] *= np.array([1, 1, 100, 100, 1, 1, 1, 1], np.float32)
    held = weights(sparse(model, dataset(given), fit=False).model)["0.weight"]
    # The two loud inputs stay whatever the weights are.
    assert held[:, 2:4].ne(0).all() and not held[:, :2].any()
    by_hand = (
        weights(model)["0.weight"].double().abs() * torch.from_numpy(given["input"]).double().square().sum(0).sqrt()
    )
    assert torch.equal(held != 0, mask_2_4(by_hand))
    quiet = weights(sparse(model, dataset(given), importance="magnitude", fit=False).model)["0.weight"]
    assert torch.equal(quiet != 0, mask_2_4(weights(model)["0.weight"].abs()))


def test_a_grouped_convolution_sees_the_channels_of_its_own_group():
    class Grouped(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv1d(8, 4, 1, groups=2)

        def forward(self, x):
            return self.conv(x)

    model = exported(Grouped(), x=(8, 5))
    given = {"x": np.random.default_rng(0).normal(size=(40, 8, 5)).astype(np.float32)}
    given["x"] *= np.array([100, 100, 1, 1, 1, 1, 100, 100], np.float32)[:, None]
    held = weights(sparse(model, dataset(given)).model)["conv.weight"][:, :, 0] != 0
    assert held.int().tolist() == [[1, 1, 0, 0]] * 2 + [[0, 0, 1, 1]] * 2


def test_fitting_keeps_the_outputs_closer():
    model = exported(Layers(), image=(3, 6, 6))
    data = dataset(images(200))
    test = images(100, seed=1)
    wanted = model.run(test)["output"]
    losses = [
        float(np.square(sparse(model, data, fit=fit).model.run(test)["output"] - wanted).mean())
        for fit in (True, False)
    ]
    assert losses[0] < losses[1]


class Tied(nn.Module):
    """One weight under two names, and a table that is multiplied with."""

    def __init__(self):
        super().__init__()
        self.table, self.one, self.other = nn.Embedding(9, 12), nn.Linear(12, 12), nn.Linear(12, 12)
        self.other.weight = self.one.weight

    def forward(self, ids):
        return F.linear(self.other(torch.relu(self.one(self.table(ids)))).mean(1), self.table.weight)


def test_ties_stay_and_tables_are_left_alone(tmp_path):
    model = exported(Tied(), ids=(6,))
    result = sparse(model, dataset({"ids": np.random.default_rng(0).integers(0, 9, (30, 6))}))
    assert [change.where for change in result.changed] == ["other"]
    reasons = {skip.where: skip.reason for skip in result.skipped}
    assert reasons["table"] == "embedding is neither a linear layer nor a convolution"
    assert reasons["table#2"] == "its weight is that of table, which stays"
    assert cost(result.model).parameters == cost(model).parameters
    check_like_any_other(result.model, {"ids": np.arange(12).reshape(2, 6) % 9}, tmp_path)


def test_the_zeros_are_in_the_files_that_ship():
    model = exported(Layers(), image=(3, 6, 6))
    result = sparse(model, dataset(images(50))).model
    held = weights(result)
    graph = onnx.load_from_string(export_onnx(result).data).graph
    arrays = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    for name in SPARSE:
        found = [array for array in arrays.values() if _same(array, held[f"{name}.weight"].numpy())]
        assert found, name
    flat = read(export_litert(result).data)
    tensors = [constant(flat, index) for index in range(len(flat.subgraphs[0].tensors))]
    for name in ("point", "up", "again", "head"):
        wanted = held[f"{name}.weight"]
        # LiteRT keeps channels last.
        wanted = wanted.permute(0, 2, 3, 1) if wanted.dim() == 4 else wanted
        assert any(array is not None and _same(array, wanted.numpy().ravel()) for array in tensors), name


def _same(array, wanted):
    return any(
        item.shape == wanted.shape and np.array_equal(item == 0, wanted == 0) and np.allclose(item, wanted, rtol=1e-5)
        for item in (array, array.T)
    )


def test_integer_files_keep_the_zeros():
    from tiny_models import target

    from compress.recipe import BUILTIN_SCHEMES
    from compress.runtimes.onnxruntime.quantize import quantize

    model = exported(nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 8)), input=(64,))
    result = sparse(model).model
    made = quantize(export_onnx(result), BUILTIN_SCHEMES["int8-dynamic"], None, target("onnxruntime"))
    integers = [
        numpy_helper.to_array(item)
        for item in onnx.load_from_string(made.data).graph.initializer
        if item.data_type == onnx.TensorProto.INT8 and len(item.dims) == 2
    ]
    assert len(integers) == 2
    # [in, out] in the file.
    assert all(is_2_4(torch.from_numpy(array.astype(np.int32)), 0) for array in integers)


def test_a_second_time_changes_nothing():
    model = exported(Layers(), image=(3, 6, 6))
    once = sparse(model).model
    again = sparse(once)
    assert not again.changed and again.model is once
    assert {skip.reason for skip in again.skipped if skip.where in SPARSE} == {"its weight is 2:4 already"}


def test_patterns_and_wrong_options():
    model = exported(Layers(), image=(3, 6, 6))
    assert [change.where for change in sparse(model, include=["h*"]).changed] == ["head"]
    with pytest.raises(CompressError, match=r"sparsify_2_4.exclude: the pattern 'hed' matches no layer"):
        sparse(model, exclude=["hed"])
    with pytest.raises(RecipeError, match="importance"):
        sparse(model, importance="l7")


def test_what_comes_out_is_a_model_like_any_other(tmp_path):
    model = exported(Layers(), image=(3, 6, 6))
    given = {item.name: tensor.numpy() for item, tensor in zip(model.signature.inputs, rows(model), strict=True)}
    check_like_any_other(sparse(model, dataset(images(40))).model, given, tmp_path)

"""Factorised layers: the best product of a rank over the rows, where it is cheaper, ties and names included."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from prune_kit import exported, rows
from rows_kit import check_like_any_other, dataset
from torch import nn
from torch.nn import functional as F

from compress.errors import CompressError, RecipeError
from compress.model.cost import cost
from compress.model.layers import layers
from compress.passes.base import Context, run_pass
from compress.passes.spectrum import spectrum


class Pair(nn.Module):
    """A wide layer whose inputs lie in few directions, and a head."""

    def __init__(self, bias=True):
        super().__init__()
        self.wide, self.head = nn.Linear(24, 32, bias=bias), nn.Linear(32, 3)

    def forward(self, x):
        return self.head(torch.relu(self.wide(x)))


class Twice(nn.Module):
    """One layer called twice, one weight under two names with two biases, and a table that is multiplied with."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(40, 24)
        self.again, self.one, self.other = nn.Linear(24, 24), nn.Linear(24, 24), nn.Linear(24, 24)
        self.other.weight = self.one.weight

    def forward(self, ids):
        hidden = self.again(torch.relu(self.again(self.table(ids))))
        hidden = self.other(torch.relu(self.one(hidden))).mean(1)
        return F.linear(hidden, self.table.weight)


def factorised(model, data=None, **options):
    return run_pass("low_rank", model, data, Context(options=options), allow_no_change=True)


def few_directions(count, seed=0):
    """Rows of 24 numbers that vary in 5 directions around a mean."""
    random = np.random.default_rng(seed)
    mixing = np.random.default_rng(9).normal(size=(5, 24))
    return {"x": (random.normal(size=(count, 5)) @ mixing + np.arange(24) / 6).astype(np.float32)}


@given(st.integers(1, 12), st.integers(1, 12), st.booleans(), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_the_full_rank_is_the_weight(out, into, with_rows, seed):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(out, into, generator=generator)
    seen = torch.randn(3, into, generator=generator).double()
    found = spectrum(weight, seen.T @ seen / 3 if with_rows else None)
    narrow, widen = found.factors(weight, min(out, into))
    torch.testing.assert_close(widen @ narrow, weight, atol=1e-4, rtol=1e-4)
    assert float(found.energy[-1]) == pytest.approx(1)
    assert bool((found.energy.diff() >= -1e-12).all())


def test_without_rows_it_is_the_truncated_decomposition():
    weight = torch.randn(10, 7, generator=torch.Generator().manual_seed(0))
    left, values, right = torch.linalg.svd(weight, full_matrices=False)
    narrow, widen = spectrum(weight).factors(weight, 3)
    torch.testing.assert_close(widen @ narrow, left[:, :3] * values[:3] @ right[:3], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_no_product_of_that_rank_loses_less_over_the_rows(rank):
    generator = torch.Generator().manual_seed(1)
    weight, inputs = torch.randn(9, 8, generator=generator), torch.randn(50, 8, generator=generator)
    inputs = (inputs * torch.logspace(-2, 1, 8)).double()
    narrow, widen = spectrum(weight, inputs.T @ inputs / 50).factors(weight, rank)
    lost = (inputs @ (weight - widen @ narrow).double().T).square().sum()
    # Eckart and Young: of the outputs themselves nothing of this rank is closer than their own decomposition.
    best = torch.linalg.svdvals(inputs @ weight.double().T)[rank:].square().sum()
    assert float(lost) == pytest.approx(float(best), rel=1e-3)


def test_rows_that_lie_in_few_directions_lose_nothing():
    model = exported(Pair(), x=(24,))
    given = few_directions(200)
    result = factorised(model, dataset(given), rank=5, include=["wide"])
    assert [change.where for change in result.changed] == ["wide"]
    assert result.changed[0].what == "32 x 24 at rank 5: 36% of its weights, 100.0% of its outputs' variance"
    new = few_directions(30, seed=5)
    np.testing.assert_allclose(result.model.run(new)["output"], model.run(new)["output"], atol=1e-3)
    # Without rows nobody can know these directions.
    blind = factorised(model, None, rank=5, include=["wide"]).model
    assert np.abs(blind.run(new)["output"] - model.run(new)["output"]).max() > 0.1
    names = {layer.name: layer.shape for layer in layers(result.model)}
    assert names == {"wide.narrow": (5, 24), "wide.widen": (32, 5), "head": (3, 32)}


@pytest.mark.parametrize("bias", [True, False])
def test_the_mean_of_what_is_lost_goes_into_the_bias(bias):
    model = exported(Pair(bias), x=(24,))
    given = few_directions(300)
    result = factorised(model, dataset(given), rank=2, rows=300, include=["wide"]).model
    weights = {name: value.detach().double() for name, value in result.program.state_dict.items()}
    before = model.program.state_dict
    inputs = torch.from_numpy(given["x"]).double()
    wanted = inputs @ before["wide.weight"].double().T + (before["wide.bias"].double() if bias else 0)
    found = inputs @ weights["wide.narrow.weight"].T @ weights["wide.widen.weight"].T + weights["wide.widen.bias"]
    torch.testing.assert_close(found.mean(0), wanted.mean(0), atol=1e-4, rtol=1e-4)


def test_a_share_of_the_weights_and_of_the_outputs():
    model = exported(Pair(), x=(24,))
    half = factorised(model, None, ratio=0.5, round_to=1, include=["wide"]).model
    assert {layer.name: layer.shape for layer in layers(half)}["wide.narrow"] == (6, 24)
    assert cost(half).macs == 6 * (24 + 32) + 96
    data = dataset(few_directions(200))
    most = factorised(model, data, energy=0.999999, round_to=1, include=["wide"]).model
    assert {layer.name: layer.shape for layer in layers(most)}["wide.narrow"] == (5, 24)
    rounded = factorised(model, None, ratio=0.99, round_to=4, include=["wide"]).model
    assert {layer.name: layer.shape for layer in layers(rounded)}["wide.narrow"] == (12, 24)


def test_what_would_be_no_cheaper_stays_and_says_so():
    model = exported(Pair(), x=(24,))
    result = factorised(model, None, rank=14)
    assert not result.changed and result.model is model
    reasons = {skip.where: skip.reason for skip in result.skipped}
    assert reasons["wide"] == "rank 14 of 32 x 24 is no cheaper; up to rank 13 is"
    assert reasons["head"] == "rank 3 of 3 x 32 is no cheaper; up to rank 2 is"
    assert reasons["the inputs' variance"].startswith("there are no rows")


def test_a_shared_weight_is_replaced_once_for_all_its_calls(tmp_path):
    model = exported(Twice(), ids=(6,))
    given = {"ids": np.random.default_rng(0).integers(0, 40, (20, 6))}
    result = factorised(model, dataset(given), rank=11)
    assert [change.where for change in result.changed] == ["again", "other"]
    assert {skip.where: skip.reason for skip in result.skipped} == {
        "table": "embedding is no linear layer",
        "table#2": "its weight is that of table, which stays",
    }
    held = result.model.program.state_dict
    assert {name for name in held if name.endswith("narrow.weight")} == {"again.narrow.weight", "other.narrow.weight"}
    assert cost(result.model).parameters == cost(model).parameters - 2 * 24 * 24 + 2 * 11 * 48
    check_like_any_other(result.model, {"ids": given["ids"][:3]}, tmp_path)


def test_patterns_choose_and_one_that_matches_nothing_is_an_error():
    model = exported(Pair(), x=(24,))
    result = factorised(model, None, rank=2, exclude=["wide"])
    assert [change.where for change in result.changed] == ["head"]
    assert ("wide", "excluded by 'wide'") in [(skip.where, skip.reason) for skip in result.skipped]
    with pytest.raises(CompressError, match=r"low_rank.include: the pattern 'hed' matches no layer"):
        factorised(model, None, rank=2, include=["hed"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "give one goal"),
        ({"rank": 2, "energy": 0.5}, "give one goal"),
        ({"ratio": 1.0}, "ratio"),
        ({"rank": 0}, "rank"),
        ({"rnk": 3}, "did you mean 'rank'"),
    ],
)
def test_wrong_options_are_errors_of_the_recipe(options, said):
    with pytest.raises(RecipeError, match=said):
        factorised(exported(Pair(), x=(24,)), None, **options)


@pytest.mark.slow
def test_what_comes_out_is_a_model_like_any_other(tmp_path):
    from compress import zoo

    model = exported(zoo.compact_bert(vocabulary=50, width=32, feed_forward=64), input_ids=(8,), attention_mask=(8,))
    given = {item.name: tensor.numpy() for item, tensor in zip(model.signature.inputs, rows(model), strict=True)}
    result = factorised(model, dataset(given), ratio=0.5, round_to=1, exclude=["head"])
    assert len(result.changed) == 4 * 6
    assert cost(result.model).macs < cost(model).macs
    check_like_any_other(result.model, given, tmp_path)

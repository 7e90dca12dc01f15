from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from tiny_models import built, exported
from torch import nn
from torch.nn import functional as F

from compress.model.core import state
from compress.model.cost import cost
from compress.model.layers import layers
from compress.passes.base import Context, run_pass


def fold(model):
    return run_pass("fold_batch_norm", model, None, Context(), allow_no_change=True)


def folded(module, *shape, seed=0):
    """Folds a module that takes `x`; checks that it answers as before; gives Model and result."""
    model = exported(built(lambda: module, seed), {"x": np.zeros((2, *shape), np.float32)})
    result = fold(model)
    rows = {"x": np.random.default_rng(seed).standard_normal((5, *shape)).astype(np.float32)}
    before, after = model.run(rows), result.model.run(rows)
    for name, array in before.items():
        np.testing.assert_allclose(after[name], array, rtol=1e-4, atol=1e-5 * max(1.0, float(np.abs(array).max())))
    return model, result


def norms(model):
    return sum("batch_norm" in str(node.target) for node in model.program.graph.nodes)


class Chain(nn.Module):
    """Layers one behind the other; takes `x`, whatever `nn.Sequential` calls it."""

    def __init__(self, *parts):
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x):
        for part in self.parts:
            x = part(x)
        return x


@st.composite
def chains(draw):
    dimensions = draw(st.integers(0, 3))
    bias, affine = draw(st.booleans()), draw(st.booleans())
    epsilon = draw(st.sampled_from([1e-5, 1e-3, 0.1]))
    norm = (nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[dimensions]
    if not dimensions:
        width = draw(st.integers(1, 6))
        return Chain(nn.Linear(4, width, bias=bias), norm(width, eps=epsilon, affine=affine)), (4,)
    groups = draw(st.sampled_from([1, 2, 4]))
    width = groups * draw(st.integers(1, 3))
    convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dimensions - 1]
    padding = draw(st.sampled_from([0, 1, "same", "valid"]))
    stride = 1 if isinstance(padding, str) else draw(st.integers(1, 2))
    layer = convolution(4, width, draw(st.sampled_from([1, 3])), stride, padding, groups=groups, bias=bias)
    return Chain(layer, norm(width, eps=epsilon, affine=affine)), (4, *[6] * dimensions)


@given(chains(), st.integers(0, 100))
# Not shrunk: each step exports twice.
@settings(max_examples=15, deadline=None, phases=[Phase.explicit, Phase.generate])
def test_folding_keeps_the_function(chain, seed):
    module, shape = chain
    _, result = folded(module, *shape, seed=seed)
    assert norms(result.model) == 0
    assert len(result.changed) == 1
    assert result.skipped == ()
    (layer,) = layers(result.model)
    assert layer.bias is not None


def test_every_normalisation_of_a_network_is_folded_and_named(workshop):
    model = workshop.tiny("conv").model
    result = fold(model)
    assert [(change.where, change.what) for change in result.changed] == [
        ("stem_norm", "folded into stem"),
        ("depth_norm", "folded into depth"),
        ("point_norm", "folded into point"),
    ]
    assert [layer.name for layer in layers(result.model)] == [layer.name for layer in layers(model)]
    rows = workshop.tiny("conv").rows(9)
    np.testing.assert_allclose(result.model.run(rows)["output"], model.run(rows)["output"], rtol=1e-4, atol=1e-5)


def test_folding_takes_the_statistics_out_of_the_model(workshop):
    model = workshop.tiny("conv").model
    after = fold(model).model
    assert not [name for name in state(after.program) if "norm" in name]
    assert cost(after).bytes < cost(model).bytes
    assert cost(after).macs == cost(model).macs


def test_two_normalisations_in_a_row_are_both_folded():
    _, result = folded(Chain(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4)), 3, 6, 6)
    assert norms(result.model) == 0
    assert len(result.changed) == 2


class FromParameters(nn.Module):
    """Two convolutions whose weights are parameters of one module, beside a parameter that is called `bias`."""

    def __init__(self, shared_bias):
        super().__init__()
        self.first = nn.Parameter(torch.randn(4, 4, 1))
        self.second = nn.Parameter(torch.randn(4, 4, 1))
        self.bias = nn.Parameter(torch.randn(4))
        self.first_norm = nn.BatchNorm1d(4)
        self.second_norm = nn.BatchNorm1d(4)
        self.shared_bias = shared_bias

    def forward(self, x):
        bias = self.bias if self.shared_bias else None
        x = torch.relu(self.first_norm(F.conv1d(x, self.first, bias)))
        return self.second_norm(F.conv1d(x, self.second, bias)) * self.bias.reshape(1, -1, 1)


@pytest.mark.parametrize("shared_bias", [False, True])
def test_a_new_bias_takes_nobodys_place(shared_bias):
    _, result = folded(FromParameters(shared_bias), 4, 5)
    assert len(result.changed) == 2
    assert len({layer.bias for layer in layers(result.model)}) == 2


def test_a_weight_that_is_a_buffer_is_folded():
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("kernel", torch.randn(4, 3, 3))
            self.constant = torch.randn(4, 4, 1)
            self.norm = nn.BatchNorm1d(4)
            self.last = nn.BatchNorm1d(4)

        def forward(self, x):
            return self.last(F.conv1d(self.norm(F.conv1d(x, self.kernel)), self.constant))

    _, result = folded(Fixed(), 3, 8)
    assert norms(result.model) == 0


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x):
        hidden = self.conv(x)
        return self.norm(hidden) + hidden


class Reused(nn.Module):
    """One convolution, called twice, each time with a normalisation of its own."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.norm = nn.BatchNorm2d(3)
        self.other = nn.BatchNorm2d(3)

    def forward(self, x):
        return self.other(self.conv(torch.relu(self.norm(self.conv(x)))))


class TiedWeights(nn.Module):
    """Two convolutions with one weight."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.twin = nn.Conv2d(3, 3, 1)
        self.twin.weight = self.conv.weight
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x):
        return self.twin(torch.relu(self.norm(self.conv(x))))


class AcrossTokens(nn.Module):
    """A linear layer on tokens, normalised over the tokens; there are as many tokens as outputs."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 5)
        self.norm = nn.BatchNorm1d(5)

    def forward(self, x):
        return self.norm(self.linear(x))


REFUSED = {
    "first of all": (Chain(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1)), (3, 5, 5), "no convolution or linear layer"),
    "behind an activation": (
        Chain(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4)),
        (3, 5, 5),
        "no convolution or linear layer stands directly before it",
    ),
    "behind a transposed convolution": (
        Chain(nn.ConvTranspose2d(3, 4, 2), nn.BatchNorm2d(4)),
        (3, 5, 5),
        "no convolution or linear layer",
    ),
    "read elsewhere": (Branching(), (3, 5, 5), "the layer before it is read elsewhere, too"),
    "tied": (TiedWeights(), (3, 5, 5), "the weight before it is shared"),
    "across tokens": (AcrossTokens(), (5, 4), "it normalises another dimension"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_folded_stays_and_says_why(case):
    module, shape, reason = REFUSED[case]
    model, result = folded(module, *shape)
    assert result.changed == ()
    assert result.model.digest == model.digest
    (skip,) = result.skipped
    assert reason in skip.reason
    assert skip.where == next(name for name, part in module.named_modules() if "BatchNorm" in type(part).__name__)


def test_a_layer_that_is_called_twice_stays_with_both_of_its_normalisations():
    _, result = folded(Reused(), 3, 5, 5)
    assert result.changed == ()
    assert {(skip.where, skip.reason) for skip in result.skipped} == {
        ("norm", "the weight before it is shared"),
        ("other", "the weight before it is shared"),
    }


def test_a_normalisation_that_is_used_twice_is_folded_into_both_layers():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Conv2d(3, 3, 1)
            self.b = nn.Conv2d(3, 3, 1)
            self.norm = nn.BatchNorm2d(3)

        def forward(self, x):
            return self.norm(self.b(torch.relu(self.norm(self.a(x)))))

    _, result = folded(Twice(), 3, 5, 5)
    assert [change.what for change in result.changed] == ["folded into a", "folded into b"]
    assert norms(result.model) == 0


def test_a_dead_channel_keeps_its_constant():
    module = Chain(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    module = built(lambda: module)
    with torch.no_grad():
        module.parts[1].weight[:] = torch.tensor([0.0, 1.0, 1e-12, -2.0])
    model = exported(module, {"x": np.zeros((2, 3, 6, 6), np.float32)})
    after = fold(model).model
    rows = {"x": np.random.default_rng(0).standard_normal((3, 3, 6, 6)).astype(np.float32)}
    np.testing.assert_allclose(after.run(rows)["output"], model.run(rows)["output"], rtol=1e-4, atol=1e-5)
    assert not state(after.program)["parts.0.weight"][0].any()


def test_half_precision_stays_half_precision():
    module = Chain(nn.Linear(4, 3), nn.BatchNorm1d(3)).half()
    model = exported(module.eval(), {"x": np.zeros((2, 4), np.float16)})
    after = fold(model).model
    assert {name: tensor.dtype for name, tensor in state(after.program).items()} == {
        "parts.0.weight": torch.float16,
        "parts.0.bias": torch.float16,
    }
    rows = {"x": np.random.default_rng(0).standard_normal((3, 4)).astype(np.float16)}
    np.testing.assert_allclose(after.run(rows)["output"], model.run(rows)["output"], rtol=1e-2, atol=1e-2)


def test_a_model_without_normalisation_is_given_back_as_it_is(workshop):
    model = workshop.tiny("mlp").model
    result = fold(model)
    assert result.model is model
    assert (result.changed, result.skipped) == ((), ())

"""Equalization keeps the function, whatever stands between two layers, and says what it leaves alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from tiny_models import built, exported, in_memory
from torch import nn
from torch.nn import functional as F

from compress.errors import PassError, RecipeError
from compress.model.core import state
from compress.passes.base import Context, run_pass


class Chain(nn.Module):
    def __init__(self, *parts):
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x):
        for part in self.parts:
            x = part(x)
        return x


def unbalanced(module, seed):
    """Channels of very different ranges: what equalization is for."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        for parameter in module.parameters():
            scale = torch.exp(torch.randn(parameter.shape[0]) * 1.5)
            parameter.mul_(scale.reshape(-1, *[1] * (parameter.dim() - 1)))
    return module


def equalized(module, *shape, seed=0, data=None, **options):
    model = exported(unbalanced(built(lambda: module, seed), seed), {"x": np.zeros((2, *shape), np.float32)})
    return model, run_pass("equalize", model, data, Context(options=options), allow_no_change=True)


def same(model, result, *shape, seed=0):
    rows = {"x": np.random.default_rng(seed).standard_normal((6, *shape)).astype(np.float32)}
    for name, array in model.run(rows).items():
        tolerance = 2e-5 * max(1.0, float(np.abs(array).max()))
        np.testing.assert_allclose(result.model.run(rows)[name], array, rtol=1e-3, atol=tolerance)


BETWEEN = [nn.ReLU, nn.Identity, lambda: nn.LeakyReLU(0.1), nn.Dropout]


@st.composite
def convolutions(draw):
    """A convolution, perhaps a depthwise or grouped one behind it, and a last one or a pooled linear layer."""
    width, bias = draw(st.sampled_from([4, 8])), draw(st.booleans())
    parts = [nn.Conv2d(3, width, 3, padding=1, bias=bias), draw(st.sampled_from(BETWEEN))()]
    groups = draw(st.sampled_from([0, 2, width]))
    if groups:
        parts += [nn.Conv2d(width, width, 3, padding=1, groups=groups, bias=bias), draw(st.sampled_from(BETWEEN))()]
    if draw(st.booleans()):
        parts.append(nn.MaxPool2d(2))
    if draw(st.booleans()):
        parts += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 5)]
    else:
        parts.append(nn.Conv2d(width, 6, 1, bias=bias))
    return Chain(*parts), (3, 8, 8)


@st.composite
def products(draw):
    width = draw(st.integers(1, 9))
    between = draw(st.sampled_from(BETWEEN))
    first, second = nn.Linear(4, width, bias=draw(st.booleans())), nn.Linear(width, 3, bias=draw(st.booleans()))
    return Chain(first, between(), second), draw(st.sampled_from([(4,), (5, 4)]))


@given(st.one_of(convolutions(), products()), st.integers(0, 100))
# Not shrunk: each step exports twice.
@settings(max_examples=20, deadline=None, phases=[Phase.explicit, Phase.generate])
def test_the_function_is_kept(drawn, seed):
    module, shape = drawn
    model, result = equalized(module, *shape, seed=seed)
    same(model, result, *shape, seed=seed)


def test_the_ranges_of_both_layers_become_equal_and_a_depthwise_one_stands_between():
    module = Chain(nn.Conv2d(3, 6, 1), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=6), nn.ReLU(), nn.Conv2d(6, 4, 1))
    model, result = equalized(module, 3, 8, 8)
    same(model, result, 3, 8, 8)
    first, depth, last = (state(result.model.program)[f"parts.{at}.weight"] for at in (0, 2, 4))
    ranges = [first.abs().flatten(1).amax(1), depth.abs().flatten(1).amax(1), last.abs().amax((0, 2, 3))]
    for other in ranges[1:]:
        np.testing.assert_allclose(other, ranges[0], rtol=0.02)
    assert [change.where for change in result.changed] == ["parts.0", "parts.2"]


def test_relu6_is_left_alone_unless_it_may_be_replaced_and_nothing_reaches_its_bound():
    def module():
        # `equalized` unbalances what it is given, and must not do so twice.
        return built(lambda: Chain(nn.Linear(4, 8), nn.ReLU6(), nn.Linear(8, 2)), 0)

    _, result = equalized(module(), 4)
    assert not result.changed
    reasons = {skip.where: skip.reason for skip in result.skipped}
    assert reasons.keys() == {"parts.0", "parts.2"}
    assert "only up to its bound" in reasons["parts.0"]
    quiet = in_memory({"x": np.random.default_rng(0).uniform(-0.1, 0.1, (80, 4)).astype(np.float32)})
    model, result = equalized(module(), 4, data=quiet, relu6="replace")
    assert any("replaced by ReLU" in change.what for change in result.changed)
    rows = {"x": np.random.default_rng(1).uniform(-0.1, 0.1, (9, 4)).astype(np.float32)}
    np.testing.assert_allclose(result.model.run(rows)["output"], model.run(rows)["output"], rtol=1e-4, atol=1e-5)
    loud = in_memory({"x": np.full((80, 4), 90, np.float32)})
    _, result = equalized(module(), 4, data=loud, relu6="replace")
    assert not result.changed
    assert any("pass the bound of ReLU6 on calibration rows" in skip.reason for skip in result.skipped)


class Forks(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        hidden = torch.relu(self.a(x))
        return self.c(self.c(F.gelu(self.b(hidden) + hidden)))


def test_what_is_left_alone_has_its_reason():
    _, result = equalized(Forks(), 4)
    assert not result.changed
    reasons = {skip.where: skip.reason for skip in result.skipped}
    assert reasons["a"] == "its output is read by 2 calls"
    assert "does not scale with its input" in reasons["b"]
    assert reasons["c"] == "its weight is shared"


def test_dead_channels_stay():
    module = Chain(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    with torch.no_grad():
        module.parts[0].weight[2] = 0
        module.parts[2].weight[:, 4] = 0
    model, result = equalized(module, 4)
    same(model, result, 4)
    assert all(bool(torch.isfinite(value).all()) for value in state(result.model.program).values())


def test_wrong_options_and_missing_rows_are_told():
    module = Chain(nn.Linear(4, 8), nn.ReLU6(), nn.Linear(8, 2))
    with pytest.raises(RecipeError, match="passes: equalize"):
        equalized(module, 4, relu7="skip")
    with pytest.raises(PassError, match="needs calibration rows"):
        equalized(module, 4, relu6="replace")

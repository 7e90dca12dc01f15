from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from tiny_models import built, exported, in_memory
from torch import nn

from compress.calibrate import calibrate
from compress.errors import PassError
from compress.model.layers import layers
from compress.passes.base import Context, run_pass


class Block(nn.Module):
    """A pre-norm block: two layers and a dropout read the normalised value; the residual reads what is before it."""

    def __init__(self, width, affine=True):
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=affine)
        self.one, self.two = nn.Linear(width, width), nn.Linear(width, 3, bias=False)
        self.drop = nn.Dropout(0.1)

    def forward(self, x):
        normed = self.norm(x)
        return {"one": x + self.one(normed), "two": self.two(self.drop(normed))}


class PostNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.layer = nn.LayerNorm(8), nn.Linear(8, 8)

    def forward(self, x):
        normed = self.norm(x)
        return normed + self.layer(normed)


def uneven(module, seed):
    """Some channels of the normalised value are a hundred times larger, as in trained Transformers."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        if module.norm.weight is not None:
            module.norm.weight.copy_(torch.exp(torch.randn(module.norm.weight.shape) * 2))
            module.norm.bias.normal_()
    return module


def smoothed(module, shape, seed=0, **options):
    random = np.random.default_rng(seed)
    data = in_memory({"x": random.standard_normal((60, *shape)).astype(np.float32)})
    model = exported(uneven(built(lambda: module, seed), seed), {"x": np.zeros((2, *shape), np.float32)})
    return model, run_pass("smooth", model, data, Context(options=options), allow_no_change=True)


@given(st.integers(2, 12), st.sampled_from([0.25, 0.5, 0.9]), st.integers(0, 50))
@settings(max_examples=10, deadline=None, phases=[Phase.explicit, Phase.generate])
def test_the_function_is_kept(width, strength, seed):
    model, result = smoothed(Block(width), (5, width), seed, strength=strength)
    rows = {"x": np.random.default_rng(seed + 1).standard_normal((7, 5, width)).astype(np.float32)}
    for name, array in model.run(rows).items():
        tolerance = 1e-5 * max(1.0, float(np.abs(array).max()))
        np.testing.assert_allclose(result.model.run(rows)[name], array, rtol=1e-3, atol=tolerance)
    assert [change.where for change in result.changed] == ["norm"]


def test_channels_of_activations_come_closer_to_each_other():
    model, result = smoothed(Block(16), (5, 16))
    rows = [{"x": np.random.default_rng(3).standard_normal((64, 5, 16)).astype(np.float32)}]
    (layer, _) = layers(model)
    before, after = (calibrate(each, rows).values[layer.input] for each in (model, result.model))
    assert max(map(abs, after)) < max(map(abs, before)) / 3


def test_a_normalisation_that_others_read_has_nowhere_to_put_the_factor():
    _, result = smoothed(PostNorm(), (4, 8))
    assert not result.changed
    assert [(skip.where, skip.reason) for skip in result.skipped] == [
        ("norm", "aten.add.Tensor reads it, too, and cannot take the factor")
    ]


def test_a_normalisation_without_a_scale_is_left_alone():
    _, result = smoothed(Block(8, affine=False), (4, 8))
    assert [skip.reason for skip in result.skipped] == ["it has no scale of its own"]


def test_rows_are_needed():
    model = exported(built(lambda: Block(8)), {"x": np.zeros((2, 4, 8), np.float32)})
    with pytest.raises(PassError, match="the pass 'smooth' needs calibration rows"):
        run_pass("smooth", model, None, Context())

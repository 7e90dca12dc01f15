from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import built, exported
from torch import nn

from compress.calibrate.fake import fake_weight
from compress.model.core import state
from compress.passes.base import Context, run_pass

X = np.zeros((2, 64), np.float32)


def clipped(module, **options):
    model = exported(module, {"input": X})
    return model, run_pass("clip_weights", model, None, Context(options=options), allow_no_change=True)


def error(weight, of, bits, axis=0):
    return float((fake_weight(weight, bits, axis) - of).square().sum())


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_an_outlier_is_clipped_where_that_costs_less_than_it_saves(granularity):
    layer = built(lambda: nn.Linear(64, 32))
    with torch.no_grad():
        layer.weight[3, 5] = 1.0
    axis = 0 if granularity == "channel" else None
    model, result = clipped(layer, bits=4, granularity=granularity)
    before, after = (state(each.program)["weight"].detach() for each in (model, result.model))
    assert error(after, before, 4, axis) < 0.9 * error(before, before, 4, axis)
    assert after.abs().max() < 1.0
    assert bool(((after == before) | (after.abs() < before.abs())).all())
    assert [change.where for change in result.changed] == ["weight"]


def test_each_channel_takes_the_best_of_the_thresholds():
    layer = built(lambda: nn.Linear(64, 4))
    with torch.no_grad():
        layer.weight.copy_(torch.distributions.StudentT(2.0).sample((4, 64)))
    model, result = clipped(layer, bits=3)
    before, after = (state(each.program)["weight"].detach() for each in (model, result.model))
    for row in range(4):
        got = error(after[row : row + 1], before[row : row + 1], 3)
        limits = before[row].abs().max() * torch.linspace(0.2, 1, 65)
        searched = min(error(before[row : row + 1].clamp(-limit, limit), before[row : row + 1], 3) for limit in limits)
        assert got <= searched * 1.1


def test_eight_bits_of_even_weights_gain_nothing():
    model, result = clipped(built(lambda: nn.Linear(64, 32)), bits=8)
    assert result.model is model
    assert [skip.reason for skip in result.skipped] == ["clipping gains nothing"]


def test_a_shared_weight_is_left_alone():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(64, 64)

        def forward(self, input):
            return self.layer(torch.relu(self.layer(input)))

    _, result = clipped(built(Tied), bits=3)
    assert {skip.reason for skip in result.skipped} == {"its weight is shared"}

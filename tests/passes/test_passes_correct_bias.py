from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import built, exported, in_memory
from torch import nn

from compress.calibrate.fake import fake_weight
from compress.errors import CompressError, PassError
from compress.model.core import state
from compress.model.layers import layers
from compress.passes.base import Context, run_pass

ROWS = np.random.default_rng(0).gamma(2.0, 1.0, (120, 8)).astype(np.float32)


def corrected(module, arrays, **options):
    model = exported(built(lambda: module), {name: array[:2] for name, array in arrays.items()})
    return model, run_pass("correct_bias", model, in_memory(arrays), Context(options=options))


def rounded_answers(model, rows, bits):
    """What the graph answers with every weight rounded."""
    from compress.model.edit import edited, get_parameter, set_parameter

    def edit(graph):
        for layer in layers(model):
            set_parameter(graph, layer.weight, fake_weight(get_parameter(graph, layer.weight).detach(), bits, 0))

    return edited(model, edit, "rounded").run(rows)["output"]


@pytest.mark.parametrize("bias", [True, False])
def test_one_layer_is_moved_by_the_rounded_weights_times_the_mean_input(bias):
    """Nagel et al. 2019, equation 17: E[y] - E[y'] = (W - W') E[x]."""
    model, result = corrected(nn.Linear(8, 5, bias=bias), {"input": ROWS}, bits=3, activations="none")
    weight = state(model.program)["weight"].detach()
    used = ROWS[: 120 * 3 // 4]
    # Batches of 64 and 26 are averaged.
    means = np.mean([used[:64].mean(axis=0), used[64:].mean(axis=0)], axis=0)
    wanted = (weight - fake_weight(weight, 3, 0)).double().numpy() @ means.astype(np.float64)
    before = state(model.program)["bias"].detach().numpy() if bias else 0.0
    np.testing.assert_allclose(state(result.model.program)["bias"].detach().numpy() - before, wanted, atol=1e-5)


def deep():
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16, bias=False), nn.ReLU(), nn.Linear(16, 4))


def test_the_mean_of_a_rounded_network_comes_back():
    model, result = corrected(deep(), {"input": ROWS}, bits=4, activations="none")
    rows = {"input": np.random.default_rng(1).gamma(2.0, 1.0, (400, 8)).astype(np.float32)}
    wanted = model.run(rows)["output"].mean(axis=0)
    before = np.abs(rounded_answers(model, rows, 4).mean(axis=0) - wanted).max()
    after = np.abs(rounded_answers(result.model, rows, 4).mean(axis=0) - wanted).max()
    assert after < before / 4
    assert len(result.changed) == 3


def test_eight_bits_need_next_to_no_correction_and_excluded_layers_none():
    model, result = corrected(deep(), {"input": ROWS}, bits=8, exclude=["4"])
    assert [change.where for change in result.changed] == ["0", "2"]
    assert [(skip.where, skip.reason) for skip in result.skipped] == [("4", "excluded by '4'")]
    rows = {"input": ROWS}
    wanted = model.run(rows)["output"]
    assert np.abs(result.model.run(rows)["output"] - wanted).max() < 0.02 * np.ptp(wanted)


def test_convolutions_are_corrected_by_channel():
    module = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=6))
    rows = np.random.default_rng(0).uniform(0, 1, (100, 3, 8, 8)).astype(np.float32)
    model, result = corrected(module, {"input": rows}, bits=3, activations="none")
    wanted = model.run({"input": rows})["output"].mean(axis=(0, 2, 3))
    before = np.abs(rounded_answers(model, {"input": rows}, 3).mean(axis=(0, 2, 3)) - wanted).max()
    after = np.abs(rounded_answers(result.model, {"input": rows}, 3).mean(axis=(0, 2, 3)) - wanted).max()
    assert after < before / 5


def test_a_product_without_room_for_a_bias_is_told():
    class Product(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.randn(8, 4))

        def forward(self, x):
            return x @ self.w

    model = exported(built(Product), {"x": ROWS[:2]})
    result = run_pass("correct_bias", model, in_memory({"x": ROWS}), Context(), allow_no_change=True)
    assert result.model is model
    assert [skip.reason for skip in result.skipped] == ["matmul takes no bias"]


def test_rows_are_needed_and_patterns_must_match():
    model = exported(built(deep), {"input": ROWS[:2]})
    with pytest.raises(PassError, match="needs calibration rows"):
        run_pass("correct_bias", model, None, Context())
    with pytest.raises(CompressError, match=r"passes: correct_bias.exclude: the pattern 'nine' matches no layer"):
        run_pass("correct_bias", model, in_memory({"input": ROWS}), Context(options={"exclude": ["nine"]}))

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from compress.errors import ModelError
from compress.zoo.sequence import LstmLayer, lstm_baseline, transaction_transformer

BOTH = pytest.mark.parametrize("factory", [transaction_transformer, lstm_baseline])
Factory = Callable[..., nn.Module]


def series(rows: int, steps: int, padding: int) -> Tensor:
    values = torch.randn(rows, steps, 3, generator=torch.Generator().manual_seed(0))
    values[:, :padding] = torch.nan
    return values


@BOTH
def test_padding_before_the_first_transaction_changes_no_answer(factory: Factory) -> None:
    long, short = factory(3, steps=7).eval(), factory(3, steps=4).eval()
    weights = long.state_dict()
    if "position" in weights:
        weights["position"] = weights["position"][3:]
    short.load_state_dict(weights)
    padded = series(5, 7, padding=3)
    torch.testing.assert_close(long(padded), short(padded[:, 3:]))


@BOTH
def test_a_series_of_padding_alone_has_an_answer(factory: Factory) -> None:
    scores = factory(3, steps=4).eval()(torch.full((2, 4, 3), torch.nan))["scores"]
    assert scores.shape == (2, 1)
    assert torch.isfinite(scores).all()


@BOTH
def test_a_missing_value_counts_as_the_mean(factory: Factory) -> None:
    model, values = factory(3, steps=4).eval(), series(3, 4, padding=1)
    model.scale.mean.fill_(0.5)
    values[1, 2, 1] = torch.nan
    filled = values.clone()
    filled[1, 2, 1] = 0.5
    torch.testing.assert_close(model(values), model(filled))


@BOTH
def test_the_order_of_transactions_matters(factory: Factory) -> None:
    torch.manual_seed(0)
    model, values = factory(3, steps=4).eval(), series(2, 4, padding=0)
    assert not torch.allclose(model(values)["scores"], model(values.flip(1))["scores"], atol=1e-6)


@BOTH
def test_scales_are_fitted_over_all_steps(factory: Factory) -> None:
    model = factory(3, steps=4)
    model.scale.fit(series(500, 4, padding=2) * 3 + 1)
    torch.testing.assert_close(model.scale.mean, torch.ones(3), atol=0.3, rtol=0)
    torch.testing.assert_close(model.scale.std, torch.full((3,), 3.0), atol=0.3, rtol=0)


@BOTH
@pytest.mark.parametrize("steps", [1, 3])
def test_another_number_of_steps_is_refused(factory: Factory, steps: int) -> None:
    with pytest.raises(ModelError, match=f"{steps} steps is fed to a model of 4"):
        factory(3, steps=4)(torch.zeros(2, steps, 3))


def test_the_cell_is_that_of_torch() -> None:
    theirs, ours = nn.LSTM(3, 5, batch_first=True), LstmLayer(3, 5)
    weights = theirs.state_dict()
    ours.load_state_dict(
        {
            "input.weight": weights["weight_ih_l0"],
            "input.bias": weights["bias_ih_l0"] + weights["bias_hh_l0"],
            "recurrent.weight": weights["weight_hh_l0"],
        }
    )
    values = series(4, 6, padding=0)
    torch.testing.assert_close(ours(values, torch.ones(4, 6, 1)), theirs(values)[0])


def test_padding_anywhere_leaves_the_state_as_it_was() -> None:
    layer, values, real = LstmLayer(3, 5), series(2, 6, padding=0), torch.ones(2, 6, 1)
    real[:, [1, 4, 5]] = 0
    states = layer(values, real)
    torch.testing.assert_close(states[:, 1], states[:, 0])
    torch.testing.assert_close(states[:, 5], layer(values[:, [0, 2, 3]], torch.ones(2, 3, 1))[:, -1])

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from compress.evaluate.explain import make_walks
from compress.evaluate.lime import KERNEL_WIDTH, PENALTY, kernel, make_masks
from compress.evaluate.probes import Feature

WEIGHTS = np.array([2.0, -1.0, 0.5, 0.0])
FEATURES = [Feature(f"f{index}", "x", index) for index in range(4)]


def rows(count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 4))


def masks(x, background, samples=400, seed=0):
    return make_masks({"x": x}, {"x": background}, FEATURES, samples=samples, seed=seed)


def test_a_linear_model_gets_its_terms_but_for_the_penalty():
    x, background = rows(6), np.full((1, 4), 0.25)
    made = masks(x, background, 4000)
    found = made.attributions(made.inputs["x"] @ WEIGHTS + 3)
    assert found == pytest.approx((x - background) * WEIGHTS, abs=0.02)
    assert found[:, 3] == pytest.approx(0, abs=1e-3)


def test_it_is_the_ridge_regression_of_scikit_learn():
    x, background = rows(3), rows(5, 9)
    made = masks(x, background, 50)
    outputs = np.tanh(made.inputs["x"] @ WEIGHTS) * made.inputs["x"][:, 3]
    found = made.attributions(outputs)
    for row, answers in enumerate(outputs.reshape(3, 50)):
        kept = made.kept[row].astype(float)
        # As the lime package weighs: sqrt(exp(-d^2 / w^2)), d from the row itself, w = 0.75 sqrt(features).
        distance = np.sqrt((1 - kept).sum(axis=1))
        weight = np.sqrt(np.exp(-(distance**2) / (KERNEL_WIDTH * np.sqrt(4)) ** 2))
        assert kernel(kept) == pytest.approx(weight)
        assert found[row] == pytest.approx(Ridge(alpha=PENALTY).fit(kept, answers, sample_weight=weight).coef_)


def test_the_first_probe_is_the_row_and_what_is_not_kept_is_the_background():
    x, background = rows(4), np.full((2, 4), 7.0)
    made = masks(x, background, 20)
    probes = made.inputs["x"].reshape(4, 20, 4)
    assert (probes[:, 0] == x).all()
    assert (probes[~made.kept] == 7.0).all()
    assert (probes[made.kept] == np.broadcast_to(x[:, None], probes.shape)[made.kept]).all()
    assert made.method == "LIME, 20 probes a row"


def test_it_orders_features_as_shapley_values_do():
    x, background = rows(40), rows(1, 3)

    def model(values):
        return 3 * np.tanh(values[:, 0]) - values[:, 1] + 0.2 * values[:, 2] * values[:, 3]

    made = masks(x, background, 1000)
    lime = made.attributions(model(made.inputs["x"]))
    walks = make_walks({"x": x}, {"x": background}, FEATURES, walks=20, seed=0)
    shapley = walks.attributions(model(walks.inputs["x"]))
    assert np.corrcoef(lime.ravel(), shapley.ravel())[0, 1] > 0.99


def test_equal_seeds_give_equal_probes():
    x, background = rows(5), rows(3, 1)
    one, same, other = (masks(x, background, 30, seed) for seed in (1, 1, 2))
    assert (one.inputs["x"] == same.inputs["x"]).all()
    assert (one.kept != other.kept).any()

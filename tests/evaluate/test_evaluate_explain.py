from __future__ import annotations

import numpy as np
import pytest

from compress.evaluate.explain import compare_attributions, make_walks, reason_codes
from compress.evaluate.probes import Feature

WEIGHTS = np.array([2.0, -1.0, 0.5, 0.0])
FEATURES = [Feature(f"f{index}", "x", index) for index in range(4)]


def rows(count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 4))


def test_a_linear_model_gets_its_closed_form():
    x, background = rows(12), np.full((1, 4), 0.25)
    walks = make_walks({"x": x}, {"x": background}, FEATURES, walks=2, seed=0)
    found = walks.attributions(walks.inputs["x"] @ WEIGHTS + 3)
    assert found == pytest.approx((x - background) * WEIGHTS)


def test_attributions_add_up_to_what_the_output_moved_by():
    x, background = rows(8), rows(1, 5)

    def model(values):
        return np.tanh(values[:, 0] * values[:, 1]) + values[:, 2] ** 2 - values[:, 3]

    walks = make_walks({"x": x}, {"x": background}, FEATURES, walks=3, seed=1)
    found = walks.attributions(model(walks.inputs["x"]))
    assert found.sum(axis=1) == pytest.approx(model(x) - model(background))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_an_interaction_is_shared_as_shap_shares_it():
    import shap

    x, background = rows(6), rows(1, 7)

    def model(values):
        return values[:, 0] * values[:, 1] + values[:, 2]

    walks = make_walks({"x": x}, {"x": background}, FEATURES, walks=400, seed=0)
    found = walks.attributions(model(walks.inputs["x"]))
    exact = shap.ExactExplainer(model, shap.maskers.Independent(background))(x).values
    # Interactions of two features are exact for any number of walks: forth and back together are their mean.
    assert found == pytest.approx(exact, abs=1e-9)


def test_inputs_of_one_number_are_features_too():
    given = {"age": np.array([30.0, 50.0]), "x": np.array([[1.0, 2.0], [3.0, 4.0]])}
    background = {"age": np.array([40.0]), "x": np.zeros((1, 2))}
    features = [Feature("age", "age", None), Feature("a", "x", 0), Feature("b", "x", 1)]
    walks = make_walks(given, background, features, walks=1, seed=0)
    outputs = 0.1 * walks.inputs["age"] + walks.inputs["x"] @ np.array([1.0, -1.0])
    assert walks.attributions(outputs) == pytest.approx(np.array([[-1.0, 1.0, -2.0], [1.0, 3.0, -4.0]]))


def compared(baseline, candidate, **changes):
    arguments = {
        "towards_decline": 1,
        "declined": np.ones(len(baseline), dtype=bool),
        "top_k": 2,
        "background_rows": 1,
        "level": 0.95,
        "method": "by hand",
    }
    return compare_attributions(baseline, candidate, FEATURES, **{**arguments, **changes})


def test_the_same_reasons_are_the_same():
    told = rows(50) * WEIGHTS
    found = compared(told, told)
    assert (found.rank_correlation, found.top_k_overlap, found.drift) == pytest.approx((1, 1, 0))
    assert (found.sign_changes.count, found.reason_codes_changed.count) == (0, 0)
    assert found.reason_codes_changed.interval.high == 0
    scaled = compared(told, told * 1.1)
    assert scaled.drift == pytest.approx(0.1)
    assert scaled.reason_codes_changed.count == 0
    assert scaled.reason_codes_changed.interval.high > 0


def test_reasons_worked_by_hand():
    before = np.array([[3.0, 1.0, -2.0, 0.1], [0.5, 0.4, 0.3, 0.2]])
    after = np.array([[3.0, -1.0, -2.0, 0.1], [0.5, 0.2, 0.3, 0.4]])
    found = compared(before, after)
    # Row 0: of f0 and f1 only f0 and f3 still speak for the decline; row 1: f1 makes way for f3.
    assert reason_codes(before, 2) == [frozenset({0, 1}), frozenset({0, 1})]
    assert reason_codes(after, 2) == [frozenset({0, 3}), frozenset({0, 3})]
    assert (found.reason_codes_changed.count, found.reason_codes_changed.rows) == (2, 2)
    assert (found.sign_changes.count, found.sign_changes.rows) == (1, 7)
    assert found.drift == pytest.approx((2 + 0.2 + 0.2) / np.abs(before).sum())
    assert found.top_k_overlap == pytest.approx((1 + 0.5) / 2)
    assert found.features[0].correlation == pytest.approx(1)


def test_nobody_declined_and_nothing_moving_are_said():
    told = rows(10)
    found = compared(told, told, declined=np.zeros(10, dtype=bool))
    assert (found.reason_codes_changed.rows, found.reason_codes_changed.interval) == (0, None)
    still = compared(np.zeros((10, 4)), told)
    assert (still.drift, still.rank_correlation) == (None, None)
    assert "no feature moves" in still.note

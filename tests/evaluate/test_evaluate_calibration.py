import numpy as np
import pytest
from sklearn.metrics import brier_score_loss
from sklearn.metrics import log_loss as reference_log_loss

from compress.evaluate.calibration import EPSILON, brier, brier_scores, log_loss, log_losses


def test_means_agree_with_scikit_learn():
    rng = np.random.default_rng(0)
    probability = rng.random(300)
    labels = rng.random(300) < probability
    assert log_loss(labels, probability) == pytest.approx(reference_log_loss(labels, probability), rel=1e-12)
    assert brier(labels, probability) == pytest.approx(brier_score_loss(labels, probability), rel=1e-12)


def test_known_rows():
    labels = np.array([True, False, True])
    probability = np.array([0.5, 0.25, 1.0])
    np.testing.assert_allclose(log_losses(labels, probability), [np.log(2), -np.log(0.75), 0], atol=1e-15)
    np.testing.assert_array_equal(brier_scores(labels, probability), [0.25, 0.0625, 0])


def test_a_certain_wrong_row_costs_a_finite_loss():
    labels = np.array([True, False])
    losses = log_losses(labels, np.array([0.0, 1.0]))
    np.testing.assert_allclose(losses, -np.log(EPSILON))
    assert losses.mean() == pytest.approx(reference_log_loss(labels, [0.0, 1.0]))

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from compress.evaluate.class_calibration import compare_class_calibration
from compress.evaluate.reliability import ece

OPTIONS = {"bins": 10, "resamples": 100, "seed": 0, "level": 0.95}


def made(rows=4000, classes=4, seed=0):
    """Calibrated probabilities: labels are drawn from them."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 1.5, (rows, classes))
    labels = (logits + random.gumbel(size=logits.shape)).argmax(axis=1)
    return labels, logits


def figures(labels, before, after):
    found = compare_class_calibration(labels, softmax(before, axis=1), softmax(after, axis=1), **OPTIONS)
    return found, {item.name: item for item in found.figures}


def test_errors_are_those_of_each_class_and_of_the_one_decided_for():
    labels, logits = made()
    _, found = figures(labels, logits, 2 * logits)
    chances = softmax(2 * logits, axis=1)
    right = chances.argmax(axis=1) == labels
    assert found["ece"].value == pytest.approx(ece(right, chances.max(axis=1), 10))
    assert found["classwise_ece"].value == pytest.approx(
        np.mean([ece(labels == label, chances[:, label], 10) for label in range(4)])
    )
    assert found["calibration_gap"].value == pytest.approx(chances.max(axis=1).mean() - right.mean())


def test_too_sure_is_found_by_calibration_alone():
    labels, logits = made()
    review, found = figures(labels, logits, 2 * logits)
    for name in ("ece", "classwise_ece", "calibration_gap"):
        assert found[name].interval.low > 0
    # The classes decided for are the same, and how often they are right too.
    assert [point.rows for point in review.candidate_curve] == [400] * 10
    assert review.candidate_ece_interval.low > review.baseline_ece_interval.high


def test_a_faithful_candidate_has_a_short_interval():
    labels, logits = made(600)
    after = logits + np.random.default_rng(1).normal(0, 0.01, logits.shape)
    _, found = figures(labels, logits, after)
    # The labels alone would leave several hundredths open.
    assert found["classwise_ece"].interval.high < 0.015
    assert found["ece"].interval.low <= found["ece"].difference <= found["ece"].interval.high


def test_equal_probabilities_change_nothing():
    labels, logits = made(300)
    _, found = figures(labels, logits, logits)
    assert {(item.difference, item.interval.low, item.interval.high) for item in found.values()} == {(0, 0, 0)}

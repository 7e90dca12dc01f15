from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from compress.evaluate import reliability
from compress.evaluate.cells import BY_CELLS, ROWS_MAX, gather
from compress.evaluate.reliability import compare_calibration, curve, ece

OPTIONS = {"bins": 10, "resamples": 300, "seed": 0, "level": 0.95}


def made(rows, seed=0, shift=0.0):
    random = np.random.default_rng(seed)
    truth = random.beta(2, 5, rows)
    labels = random.random(rows) < truth
    return labels, np.clip(truth + shift, 0, 1), random


def figure(found, name):
    return next(item for item in found.figures if item.name == name)


def test_ece_is_the_weighted_gap_of_scikit_learns_curve():
    labels, scores, _ = made(3000)
    rate, mean = calibration_curve(labels, scores, n_bins=10, strategy="quantile")
    # Equal rows in every bin: 3,000 in 10.
    assert ece(labels, scores, 10) == pytest.approx(np.abs(rate - mean).mean(), abs=2e-3)
    points = curve(labels, scores, 10, 0.95)
    assert [point.rows for point in points] == [300] * 10
    assert [point.positive_rate for point in points] == pytest.approx(rate.tolist(), abs=5e-3)
    assert all(point.interval.low <= point.positive_rate <= point.interval.high for point in points)


def test_ece_worked_by_hand():
    labels = np.array([False, True, False, True])
    scores = np.array([0.1, 0.2, 0.8, 0.9])
    # Two bins: rate 0.5 against 0.15, and 0.5 against 0.85.
    assert ece(labels, scores, 2) == pytest.approx(0.35)


def test_the_parts_of_the_brier_score_add_up_where_bins_hold_one_score():
    random = np.random.default_rng(4)
    scores = random.choice([0.1, 0.3, 0.6, 0.9], 4000)
    labels = random.random(4000) < scores**1.3
    found = compare_calibration(labels, scores, scores, **{**OPTIONS, "bins": 100})
    parts = [figure(found, name).value for name in ("reliability", "resolution", "uncertainty")]
    assert parts[0] - parts[1] + parts[2] == pytest.approx(brier_score_loss(labels, scores))


def test_only_broken_calibration_is_seen_by_calibration_alone():
    labels, scores, _ = made(4000)
    pushed = scores**2
    found = compare_calibration(labels, scores, pushed, **OPTIONS)
    change = figure(found, "ece")
    assert change.interval.low > 0.05
    assert figure(found, "calibration_gap").interval.high < -0.05
    assert figure(found, "resolution").difference == pytest.approx(0, abs=1e-3)


def test_equal_scores_change_nothing():
    labels, scores, _ = made(500)
    found = compare_calibration(labels, scores, scores, **OPTIONS)
    assert {(item.difference, item.interval.low, item.interval.high) for item in found.figures} == {(0, 0, 0)}


def test_constant_scores_and_one_class_have_one_bin():
    labels = np.ones(60, dtype=bool)
    found = compare_calibration(labels, np.full(60, 0.4), np.full(60, 0.6), **OPTIONS)
    assert len(found.baseline_curve) == 1
    assert figure(found, "ece").baseline == pytest.approx(0.6)
    assert figure(found, "uncertainty").value == 0


def test_the_interval_of_the_change_covers_what_it_says():
    # Miscalibrated by known amounts, far from where the absolute value has its kink: the true change is 0.04.
    covered, runs = 0, 200
    for seed in range(runs):
        labels, scores, random = made(1500, seed)
        before, after = scores + 0.15 + random.normal(0, 0.01, 1500), scores - 0.19 + random.normal(0, 0.01, 1500)
        found = compare_calibration(labels, before, after, bins=5, resamples=200, seed=0, level=0.95)
        interval = figure(found, "ece").interval
        covered += interval.low <= 0.04 <= interval.high
    assert 0.90 <= covered / runs <= 0.985


def test_many_rows_are_gathered_and_say_the_same():
    labels, scores, random = made(ROWS_MAX + 5000)
    after = np.clip(scores + random.normal(0.01, 0.02, scores.size), 0, 1)
    gathered, single = gather(labels, scores, after), gather(labels, scores, after, scores.size)
    assert gathered.gathered
    assert not single.gathered
    assert gathered.rows.sum() == labels.size
    assert gathered.rows @ gathered.baseline == pytest.approx(scores.sum())
    assert gathered.rows @ gathered.labels == labels.sum()
    of_cells = figure(compare_calibration(labels, scores, after, **OPTIONS), "reliability")
    half = (of_cells.interval.high - of_cells.interval.low) / 2
    found = reliability._replicates(single, 10, 300, 0)
    of_rows = np.quantile(found[1][:, 1] - found[0][:, 1], [0.025, 0.975])
    assert half == pytest.approx((of_rows[1] - of_rows[0]) / 2, rel=0.25)
    assert of_cells.interval.method == BY_CELLS

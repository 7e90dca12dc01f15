import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp, rankdata
from sklearn.metrics import roc_auc_score

from compress.errors import DataError
from compress.evaluate.discrimination import auc, delong_paired, effective_rows, gini, ks, midranks, weighted_ks


def sample(seed, rows=500, levels=None):
    """Labels, a score and a disturbed score; with `levels` both are coarse, so ties abound."""
    rng = np.random.default_rng(seed)
    labels = rng.random(rows) < 0.3
    a = labels + rng.normal(size=rows)
    b = a + 0.4 * rng.normal(size=rows)
    return (labels, np.round(a * levels), np.round(b * levels)) if levels else (labels, a, b)


def delong_directly(labels, a, b):
    """DeLong et al. 1988, equations 3 to 7, by comparing every positive with every negative."""
    placements = []
    for scores in (a, b):
        x, y = scores[labels][:, None], scores[~labels][None, :]
        kernel = (x > y) + 0.5 * (x == y)
        placements.append((kernel.mean(), kernel.mean(axis=1), kernel.mean(axis=0)))
    s10 = np.cov([item[1] for item in placements])
    s01 = np.cov([item[2] for item in placements])
    covariance = s10 / labels.sum() + s01 / (~labels).sum()
    contrast = np.array([-1, 1])
    return placements[0][0], placements[1][0], contrast @ covariance @ contrast


scored_rows = st.lists(
    st.tuples(st.booleans(), st.integers(-5, 5), st.integers(-5, 5)), min_size=4, max_size=40
).filter(lambda rows: 2 <= sum(row[0] for row in rows) <= len(rows) - 2)


def columns(rows):
    labels, a, b = zip(*rows, strict=True)
    return np.array(labels), np.array(a, float), np.array(b, float)


@settings(deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=30))
def test_midranks_are_those_of_scipy(values):
    np.testing.assert_array_equal(midranks(np.array(values, float)), rankdata(values))


@pytest.mark.parametrize("levels", [None, 2])
@pytest.mark.parametrize("seed", range(3))
def test_auc_and_ks_agree_with_independent_implementations(seed, levels):
    labels, scores, _ = sample(seed, levels=levels)
    assert auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert gini(labels, scores) == pytest.approx(2 * roc_auc_score(labels, scores) - 1, abs=1e-12)
    assert ks(labels, scores) == pytest.approx(ks_2samp(scores[labels], scores[~labels]).statistic, abs=1e-12)


def test_the_ends_of_the_scale():
    labels = np.array([False, False, True, True])
    for scores, area, distance in (([1, 2, 3, 4], 1.0, 1.0), ([4, 3, 2, 1], 0.0, 1.0), ([5, 5, 5, 5], 0.5, 0.0)):
        assert auc(labels, np.array(scores, float)) == area
        assert ks(labels, np.array(scores, float)) == distance


@settings(deadline=None)
@given(scored_rows)
def test_auc_sees_only_the_order(rows):
    labels, scores, _ = columns(rows)
    moved = np.exp(scores) + 3 * scores
    assert auc(labels, moved) == auc(labels, scores)
    assert ks(labels, moved) == ks(labels, scores)
    assert delong_paired(labels, scores, moved).variance == 0
    assert auc(labels, -scores) == pytest.approx(1 - auc(labels, scores), abs=1e-12)


@settings(deadline=None)
@given(scored_rows)
def test_swapping_the_scores_turns_the_difference_round(rows):
    labels, a, b = columns(rows)
    there, back = delong_paired(labels, a, b), delong_paired(labels, b, a)
    assert there.difference == -back.difference
    assert there.variance == back.variance
    assert there.interval(0.95).low == -back.interval(0.95).high


@settings(deadline=None)
@given(scored_rows)
def test_delong_equals_the_direct_form(rows):
    labels, a, b = columns(rows)
    found = delong_paired(labels, a, b)
    auc_a, auc_b, variance = delong_directly(labels, a, b)
    assert (found.auc_a, found.auc_b) == pytest.approx((auc_a, auc_b), abs=1e-12)
    assert found.difference == pytest.approx(auc_b - auc_a, abs=1e-12)
    assert found.variance == pytest.approx(variance, abs=1e-12)


@pytest.mark.parametrize("levels", [None, 3])
def test_delong_variance_is_that_of_the_bootstrap(levels):
    labels, a, b = sample(5, rows=400, levels=levels)
    rng = np.random.default_rng(0)
    positives, negatives = np.flatnonzero(labels), np.flatnonzero(~labels)
    shifts = []
    for _ in range(800):
        rows = np.concatenate([rng.choice(positives, positives.size), rng.choice(negatives, negatives.size)])
        shifts.append(auc(labels[rows], b[rows]) - auc(labels[rows], a[rows]))
    assert np.std(shifts) == pytest.approx(delong_paired(labels, a, b).standard_error, rel=0.12)


def test_delong_interval_covers_the_true_difference():
    # AUC of two normal classes 1 apart: Phi(1 / sqrt 2); with noise of variance 0.16 added, Phi(1 / sqrt(2 * 1.16)).
    true = 0.7442537 - 0.7602499
    covered = 0
    for seed in range(600):
        labels, a, b = sample(seed, rows=300)
        interval = delong_paired(labels, a, b).interval(0.95)
        covered += interval.low <= true <= interval.high
    assert 0.925 <= covered / 600 <= 0.975


def test_equal_scores_differ_by_exactly_nothing():
    labels, a, _ = sample(1)
    found = delong_paired(labels, a, a)
    assert (found.difference, found.variance, found.informative_rows) == (0.0, 0.0, 0.0)
    assert (found.interval(0.95).low, found.interval(0.95).high) == (0.0, 0.0)


def test_one_row_of_a_class_has_no_variance():
    found = delong_paired(np.array([True, False, False]), np.array([1.0, 0.0, 2.0]), np.array([3.0, 0.0, 2.0]))
    assert found.difference == 0.5
    assert found.variance is found.standard_error is found.interval(0.95) is None


@pytest.mark.parametrize("metric", [auc, ks, gini])
def test_one_class_is_refused(metric):
    with pytest.raises(DataError, match="3 positive and 0 negative rows"):
        metric(np.ones(3, bool), np.arange(3.0))


def test_weighted_ks_is_the_ks_of_repeated_rows():
    labels, scores, _ = sample(3, rows=60, levels=2)
    rng = np.random.default_rng(0)
    weights = np.zeros((5, 60))
    expected = []
    for draw in weights:
        rows = np.concatenate([rng.choice(np.flatnonzero(labels == side), (labels == side).sum()) for side in (0, 1)])
        np.add.at(draw, rows, 1)
        expected.append(ks_2samp(scores[rows][labels[rows]], scores[rows][~labels[rows]]).statistic)
    np.testing.assert_allclose(weighted_ks(labels, scores)(weights), expected, atol=1e-12)


def test_effective_rows_counts_what_contributes():
    assert effective_rows(np.zeros(5)) == 0
    assert effective_rows(np.array([0, 0, 1e-200, 0])) == 1
    assert effective_rows(np.array([2.0, -2, 2, 0, 0])) == pytest.approx(3)


def test_a_rare_large_loss_on_the_margin_passes_at_most_one_time_in_twenty():
    def drawn(random, rows):
        labels = random.random(rows) < 0.3
        before = labels * 1.2 + random.normal(0, 1, rows)
        after = before + random.normal(0, 0.01, rows)
        return labels, before, np.where((random.random(rows) < 0.02) & labels, -5.0, after)

    random = np.random.default_rng(0)
    margin = -delong_paired(*drawn(random, 400_000)).difference
    passed, few, runs = 0, 0, 400
    for _ in range(runs):
        found = delong_paired(*drawn(random, 1000))
        passed += found.interval(0.95).low >= -margin
        few += "few informative rows" in found.interval(0.95).method
    assert few > 0.9 * runs
    assert passed / runs <= 0.05

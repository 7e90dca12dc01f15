import numpy as np
import pytest

from compress.evaluate import paired
from compress.evaluate.discrimination import ks
from compress.evaluate.paired import bca_of_mean, centred_percentile, draws, ks_difference, mean_of, replicate


def test_draws_keep_the_size_of_every_class():
    labels = np.random.default_rng(0).random(90) < 0.3
    weights = np.concatenate(list(draws(labels, 200, seed=1)))
    assert weights.shape == (200, 90)
    assert (weights[:, labels].sum(axis=1) == labels.sum()).all()
    assert (weights[:, ~labels].sum(axis=1) == (~labels).sum()).all()
    # A count is binomial(n, 1/n): mean 1, variance 1 - 1/n.
    assert weights.mean() == 1
    assert weights.var() == pytest.approx(1 - 2 / 90, rel=0.05)


def test_draws_hold_a_bounded_number_of_counts(monkeypatch):
    monkeypatch.setattr(paired, "CELLS", 1000)
    sizes = [weights.shape for weights in draws(np.arange(400) % 2, 7, seed=0)]
    assert sizes == [(2, 400), (2, 400), (2, 400), (1, 400)]
    assert [weights.shape for weights in draws(np.arange(4000) % 2, 2, seed=0)] == [(1, 4000)] * 2


def test_equal_seeds_give_equal_replicates():
    labels = np.arange(100) % 3 == 0
    values = np.random.default_rng(0).normal(size=(100, 2))
    first, again, other = (replicate(labels, [mean_of(values)], resamples=50, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_statistics_share_the_draws_and_stand_side_by_side():
    rng = np.random.default_rng(0)
    labels = rng.random(200) < 0.4
    a, b = rng.random(200), rng.random(200)
    together = replicate(labels, [mean_of(np.stack([a, b], axis=1)), ks_difference(labels, a, b)], resamples=9, seed=2)
    assert together.shape == (9, 3)
    for row, weights in zip(together, next(draws(labels, 9, seed=2)), strict=True):
        rows = np.repeat(np.arange(200), weights.astype(int))
        expected = [a[rows].mean(), b[rows].mean(), ks(labels[rows], b[rows]) - ks(labels[rows], a[rows])]
        np.testing.assert_allclose(row, expected, atol=1e-12)


def test_bca_agrees_with_scipy():
    from scipy.stats import bootstrap

    values = np.random.default_rng(3).exponential(size=60)
    one = np.zeros(60)
    found = bca_of_mean(one, values, replicate(one, [mean_of(values[:, None])], resamples=20_000, seed=0)[:, 0], 0.95)
    reference = bootstrap((values,), np.mean, n_resamples=20_000, method="BCa", rng=1).confidence_interval
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high), rel=0.02)


@pytest.mark.parametrize("constant", [0.0, 0.25])
def test_equal_values_have_an_interval_of_one_point(constant):
    values = np.full(50, constant)
    replicates = replicate(np.zeros(50), [mean_of(values[:, None])], resamples=100, seed=0)[:, 0]
    interval = bca_of_mean(np.zeros(50), values, replicates, 0.95)
    assert interval.low == interval.high == constant


def test_one_row_that_differs_gives_an_ordered_interval():
    values = np.zeros(40)
    values[0] = 1.0
    replicates = replicate(np.zeros(40), [mean_of(values[:, None])], resamples=200, seed=0)[:, 0]
    interval = bca_of_mean(np.zeros(40), values, replicates, 0.95)
    assert 0 <= interval.low <= interval.high
    assert interval.high > 1 / 40


@pytest.mark.parametrize("shape", ["normal", "skewed"])
def test_interval_of_a_mean_covers_it(shape):
    """400 samples of 240 rows: the share that covers is 0.95 but for three standard errors, 0.033."""
    rng = np.random.default_rng(11)
    labels = np.arange(240) % 4 == 0
    noise = rng.normal(size=(240, 400)) if shape == "normal" else rng.exponential(size=(240, 400)) - 1
    values = 0.1 + np.where(labels[:, None], 2.0, 1.0) * noise
    replicates = replicate(labels, [mean_of(values)], resamples=400, seed=0)
    intervals = [bca_of_mean(labels, values[:, k], replicates[:, k], 0.95) for k in range(400)]
    covered = np.mean([interval.low <= 0.1 <= interval.high for interval in intervals])
    assert 0.917 <= covered <= 0.983
    too_high = np.mean([interval.low > 0.1 for interval in intervals])
    assert too_high <= 0.058


def test_interval_of_the_ks_difference_covers_it():
    """The true difference is that of 400,000 rows; both classes are normal, the candidate adds noise."""
    rng = np.random.default_rng(5)

    def sample(rows):
        labels = np.arange(rows) % 4 == 0
        a = labels + rng.normal(size=rows)
        return labels, a, a + 0.5 * rng.normal(size=rows)

    labels, a, b = sample(400_000)
    true = ks(labels, b) - ks(labels, a)
    covered = 0
    for seed in range(150):
        labels, a, b = sample(400)
        found = replicate(labels, [ks_difference(labels, a, b)], resamples=300, seed=seed)[:, 0]
        interval = centred_percentile(ks(labels, b) - ks(labels, a), found, 0.95)
        covered += interval.low <= true <= interval.high
    assert covered / 150 >= 0.90

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import kendalltau, spearmanr

from compress.evaluate.bands import compare_bands, psi

OPTIONS = {"bands": 10, "resamples": 200, "seed": 0, "level": 0.95}


def test_psi_has_the_value_worked_by_hand():
    before, after = np.array([[100, 300, 400, 200]]), np.array([[150, 300, 350, 200]])
    expected = 0.05 * np.log(1.5) + (-0.05) * np.log(0.35 / 0.40)
    assert psi(before, after)[0] == pytest.approx(expected)
    assert psi(before, before)[0] == 0


@given(arrays(np.int64, (1, 5), elements=st.integers(1, 500)), arrays(np.int64, (1, 5), elements=st.integers(1, 500)))
def test_psi_is_symmetric_and_not_negative(a, b):
    assert psi(a, b)[0] == pytest.approx(psi(b, a)[0])
    assert psi(a, b)[0] >= 0


def test_an_empty_band_counts_half_a_row():
    found = psi(np.array([[50, 50]]), np.array([[100, 0]]))[0]
    assert np.isfinite(found)
    assert found == pytest.approx(psi(np.array([[50.0, 50.0]]), np.array([[100.0, 0.5]]))[0])


def test_bands_are_tenths_of_the_baseline_and_the_matrix_counts_every_row():
    random = np.random.default_rng(0)
    before = random.random(2000)
    after = np.clip(before + random.normal(0, 0.02, 2000), 0, 1)
    found = compare_bands(before, after, **OPTIONS)
    assert found.baseline_rows == (200,) * 10
    assert sum(found.candidate_rows) == 2000
    assert found.spearman == pytest.approx(spearmanr(before, after).statistic)
    assert found.kendall == pytest.approx(kendalltau(before, after).statistic)
    assert found.psi_interval.low <= found.psi <= found.psi_interval.high
    assert found.psi < 0.02


def test_a_shifted_score_moves_psi_beyond_the_convention():
    before = np.random.default_rng(1).random(3000)
    found = compare_bands(before, np.clip(before + 0.1, 0, 1), **OPTIONS)
    assert found.psi > 0.25
    assert found.spearman == pytest.approx(1, abs=0.01)


@settings(deadline=None, max_examples=30)
@given(arrays(np.float64, st.integers(2, 200), elements=st.floats(0, 1).map(lambda v: round(v, 1))))
def test_equal_scores_stay_where_they_are_however_many_ties(scores):
    found = compare_bands(scores, scores, **OPTIONS)
    matrix = np.array(found.matrix)
    assert matrix.sum() == scores.size
    assert np.array_equal(matrix, np.diag(np.diag(matrix)))
    assert found.psi in (0, None)


def test_constant_scores_are_undefined_not_a_number():
    found = compare_bands(np.full(50, 0.3), np.linspace(0, 1, 50), **OPTIONS)
    assert (found.psi, found.spearman, found.kendall) == (None, None, None)
    assert "same score" in found.note
    other = compare_bands(np.linspace(0, 1, 50), np.full(50, 0.3), **OPTIONS)
    assert other.spearman is None
    assert "candidate gives every row the same score" in other.note


def test_the_interval_of_psi_covers_what_it_says():
    random = np.random.default_rng(3)
    big = random.normal(size=400_000)
    moved = big + 0.35 + random.normal(0, 0.3, big.size)
    edges = np.quantile(big, np.arange(1, 5) / 5)
    shares = [np.bincount(np.searchsorted(edges, scores), minlength=5) for scores in (big, moved)]
    truth = psi(shares[0][None], shares[1][None])[0]
    covered, runs = 0, 200
    for _ in range(runs):
        rows = random.integers(0, big.size, 2500)
        found = compare_bands(big[rows], moved[rows], bands=5, resamples=300, seed=0, level=0.95)
        covered += found.psi_interval.low <= truth <= found.psi_interval.high
    assert 0.90 <= covered / runs <= 0.985

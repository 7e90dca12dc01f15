from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.bench.statistics import compare, percentile, ratio_interval, samples_needed, verdict
from compress.evidence import Interval

TRIALS = 300
times = st.lists(st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)), min_size=5, max_size=12)


def verdicts(slowdown: float, pairs: int, seed: int, *, bursts: bool = False) -> dict[str, float]:
    """Shares of verdicts over trials: processes vary by 2 %, or by 0.8 % but for one in ten that meets a burst."""
    random = np.random.default_rng(seed)
    counts = dict.fromkeys(("FASTER", "SAME", "SLOWER", "UNKNOWN"), 0)
    for trial in range(TRIALS):
        noise = random.normal(0, 0.008 if bursts else 0.02, (2, pairs))
        if bursts:
            noise += (random.random((2, pairs)) < 0.1) * random.exponential(0.15, (2, pairs))
        baseline, candidate = np.exp(noise) * [[1.0], [slowdown]]
        counts[compare("float32", baseline, candidate, tolerance=0.02, seed=trial).verdict] += 1
    return {name: count / TRIALS for name, count in counts.items()}


@pytest.mark.parametrize("bursts", [False, True])
def test_equal_artifacts_raise_few_false_alarms(bursts: bool) -> None:
    found = verdicts(1.0, 9, seed=1, bursts=bursts)
    assert found["SLOWER"] <= 0.01
    assert found["FASTER"] <= 0.04


def test_a_slowdown_within_the_tolerance_raises_few_false_alarms() -> None:
    assert verdicts(1.02, 9, seed=2)["SLOWER"] <= 0.04


@pytest.mark.parametrize(
    ("slowdown", "pairs", "bursts", "found", "power"),
    [
        (1.10, 9, False, "SLOWER", 0.99),
        (1.10, 9, True, "SLOWER", 0.80),
        (1.05, 18, False, "SLOWER", 0.70),
        (1.05, 9, True, "SLOWER", 0.75),
        (0.90, 9, False, "FASTER", 0.99),
    ],
)
def test_real_differences_are_found(slowdown: float, pairs: int, bursts: bool, found: str, power: float) -> None:
    assert verdicts(slowdown, pairs, seed=3, bursts=bursts)[found] >= power


def test_the_interval_covers_the_true_ratio() -> None:
    random = np.random.default_rng(4)
    hits = 0
    for trial in range(TRIALS):
        noise = np.exp(random.normal(0, 0.02, (2, 15)))
        interval = ratio_interval(noise[0], 1.3 * noise[1], seed=trial)
        hits += interval.low <= 1.3 <= interval.high
    assert hits / TRIALS >= 0.96


@given(times, st.floats(0.1, 10))
def test_a_slower_candidate_moves_the_interval_by_its_factor(pairs: list[tuple[float, float]], factor: float) -> None:
    baseline, candidate = zip(*pairs, strict=True)
    one = ratio_interval(baseline, candidate, resamples=200)
    other = ratio_interval(baseline, [factor * time for time in candidate], resamples=200)
    assert other.low == pytest.approx(factor * one.low)
    assert other.high == pytest.approx(factor * one.high)


@given(times)
def test_the_interval_lies_within_the_ratios_seen(pairs: list[tuple[float, float]]) -> None:
    baseline, candidate = zip(*pairs, strict=True)
    ratios = [two / one for one, two in pairs]
    interval = ratio_interval(baseline, candidate, resamples=200)
    assert min(ratios) * 0.999999 <= interval.low <= interval.high <= max(ratios) * 1.000001


def test_the_same_seed_gives_the_same_interval() -> None:
    baseline, candidate = [1.0, 1.1, 0.9, 1.0, 1.2], [1.0, 1.0, 1.1, 0.9, 1.3]
    assert ratio_interval(baseline, candidate, seed=3) == ratio_interval(baseline, candidate, seed=3)


@pytest.mark.parametrize(("baseline", "candidate"), [([], []), ([1.0], [1.0, 2.0]), ([1.0, 0.0], [1.0, 1.0])])
def test_what_is_no_pair_is_refused(baseline: list[float], candidate: list[float]) -> None:
    with pytest.raises(ValueError, match=r"pairs|positive"):
        ratio_interval(baseline, candidate)


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [
        (1.03, 1.20, "SLOWER"),
        (1.02, 1.20, "UNKNOWN"),
        (0.90, 1.03, "UNKNOWN"),
        (0.90, 1.02, "SAME"),
        (1.00, 1.01, "SAME"),
        (0.90, 1.00, "SAME"),
        (0.90, 0.99, "FASTER"),
    ],
)
def test_verdicts_at_their_borders(low: float, high: float, found: str) -> None:
    assert verdict(Interval(low, high, 0.99, "test"), tolerance=0.02) == found


def test_too_few_pairs_prove_nothing() -> None:
    assert compare("float32", [1.0] * 4, [2.0] * 4, tolerance=0.02).verdict == "UNKNOWN"
    assert compare("float32", [1.0] * 5, [2.0] * 5, tolerance=0.02).verdict == "SLOWER"


def test_a_comparison_says_what_it_rests_on() -> None:
    found = compare("float32", [1.0, 2.0, 4.0, 1.0, 1.0], [2.0, 4.0, 8.0, 3.0, 1.0], tolerance=0.1)
    assert (found.baseline, found.tolerance, found.pairs) == ("float32", 0.1, 5)
    assert found.ratio == pytest.approx(2)
    assert "5 pairs" in found.interval.method


@pytest.mark.parametrize(("quantile", "needed"), [(0.9, 64), (0.99, 662)])
def test_percentiles_need_the_published_number_of_samples(quantile: float, needed: int) -> None:
    assert samples_needed(quantile) == needed
    samples = list(np.arange(needed, dtype=float))
    assert percentile(samples[1:], quantile) is None
    assert percentile(samples, quantile) == np.ceil(quantile * (needed - 1))

"""Thresholds on distributions with a known answer, and beside references that keep every number."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.calibrate.histogram import Histogram
from compress.calibrate.thresholds import LEVELS, entropy, percentile, squared_error

RANDOM = np.random.default_rng(0)
DISTRIBUTIONS = {
    "normal": RANDOM.normal(size=60_000),
    "skewed": RANDOM.gamma(2.0, 1.0, size=60_000) - 1,
    "rectified": np.maximum(RANDOM.normal(size=60_000), 0),
    "heavy": RANDOM.standard_t(3, size=60_000),
    "negative": -RANDOM.gamma(2.0, 1.0, size=60_000),
}


def counted(numbers):
    histogram = Histogram()
    for part in np.array_split(np.asarray(numbers, np.float32), 7):
        histogram.add(part)
    return histogram


def rounded(numbers, low, high):
    """What 8 bits make of numbers: the reference, on the numbers themselves."""
    low, high = min(low, 0.0), max(high, 0.0)
    step = (high - low) / (LEVELS - 1)
    zero = np.rint(-low / step)
    return (np.clip(np.rint(numbers / step) + zero, 0, LEVELS - 1) - zero) * step


def error(numbers, bounds):
    return float(np.square(numbers - rounded(numbers, *bounds)).mean())


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("share", [0.9, 0.99, 0.9999, 1.0])
def test_a_percentile_is_the_quantile_to_a_bin(name, share):
    numbers = DISTRIBUTIONS[name].astype(np.float32)
    histogram = counted(numbers)
    low, high = percentile(histogram, share)
    wanted = np.quantile(numbers, [(1 - share) / 2, (1 + share) / 2], method="inverted_cdf")
    assert low == pytest.approx(wanted[0], abs=histogram.width)
    assert high == pytest.approx(wanted[1], abs=histogram.width)


@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=200), st.floats(0.5, 1))
def test_a_percentile_holds_its_share_of_any_numbers(numbers, share):
    histogram = counted(np.array(numbers, np.float32)) if len(numbers) >= 7 else Histogram()
    if len(numbers) < 7:
        histogram.add(np.array(numbers, np.float32))
    low, high = percentile(histogram, share)
    inside = [low - histogram.width <= number <= high + histogram.width for number in numbers]
    assert np.mean(inside) >= share - 1e-6
    assert min(numbers) <= low <= high <= max(numbers)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_the_squared_error_is_as_small_as_a_search_on_the_numbers_finds(name):
    numbers = DISTRIBUTIONS[name]
    found = error(numbers, squared_error(counted(numbers)))
    low, high = numbers.min(), numbers.max()
    searched = min(
        error(numbers, (low * a, high * b))
        for a in (np.linspace(0.05, 1, 40) if low < 0 else [1])
        for b in (np.linspace(0.05, 1, 40) if high > 0 else [1])
    )
    assert found <= searched * 1.03
    assert found <= error(numbers, (low, high)) * 1.001


def test_the_squared_error_of_a_normal_distribution_is_cut_where_theory_says():
    """Banner et al. 2019 (arXiv:1810.05723): of 8 bits, the best threshold of a normal lies near 3.9 deviations."""
    low, high = squared_error(counted(RANDOM.normal(size=2_000_000)))
    assert -high == pytest.approx(low, rel=0.08)
    assert 3.6 < high < 4.3


@pytest.mark.parametrize("name", ["normal", "rectified", "skewed"])
@pytest.mark.parametrize("cut", [entropy, lambda histogram: percentile(histogram, 0.9999)])
def test_a_far_outlier_is_cut_and_the_bulk_is_not(name, cut):
    numbers = DISTRIBUTIONS[name]
    low, high = cut(counted(np.append(numbers, [60 * numbers.max()])))
    assert 0.5 * np.quantile(numbers, 0.999) < high < 12 * numbers.max()
    assert low >= numbers.min() * 1.001


def test_the_squared_error_cuts_an_outlier_only_where_clipping_it_costs_less_than_a_coarse_step():
    numbers = np.append(DISTRIBUTIONS["normal"], [300.0])
    assert squared_error(counted(numbers))[1] > 250
    many = np.concatenate([np.repeat(DISTRIBUTIONS["normal"], 40), [12.0]])
    assert squared_error(counted(many))[1] < 6


@pytest.mark.parametrize("cut", [entropy, squared_error])
def test_what_is_uniform_is_not_cut(cut):
    low, high = cut(counted(RANDOM.uniform(-3, 3, size=200_000)))
    assert low == pytest.approx(-3, abs=0.15)
    assert high == pytest.approx(3, abs=0.15)


def divergence(numbers, threshold, size):
    """Entropy's measure with every number at hand, level by level."""
    width, low, high = size, max(numbers.min(), -threshold), min(numbers.max(), threshold)
    bins = np.floor(numbers / width).astype(np.int64)
    values, counts = np.unique(bins, return_counts=True)
    table = dict(zip(values.tolist(), counts.astype(float).tolist(), strict=True))
    table[0] = table.get(1, table.get(-1, 0.0))
    middles = {index: np.clip((index + 0.5) * width, numbers.min(), numbers.max()) for index in table}
    inside = sorted(index for index, middle in middles.items() if low <= middle <= high)
    p = {index: table[index] for index in inside}
    p[inside[0]] += sum(table[index] for index, middle in middles.items() if middle < low)
    p[inside[-1]] += sum(table[index] for index, middle in middles.items() if middle > high)
    levels: dict[int, list[int]] = {}
    for index in inside:
        levels.setdefault(min(int((middles[index] - low) / (high - low) * LEVELS), LEVELS - 1), []).append(index)
    q = {}
    for members in levels.values():
        filled = [index for index in members if table[index] > 0]
        for index in members:
            q[index] = sum(table[i] for i in filled) / len(filled) if table[index] > 0 else 0.0
    total_p, total_q = sum(p.values()), sum(q.values())
    return sum(
        max(p[i] / total_p, 1e-9) * np.log(max(p[i] / total_p, 1e-9) / max(q[i] / total_q, 1e-9)) for i in inside
    )


@pytest.mark.parametrize("name", ["heavy", "skewed", "rectified"])
def test_entropy_takes_the_threshold_of_the_least_divergence(name):
    numbers = DISTRIBUTIONS[name].astype(np.float32).astype(np.float64)
    histogram = counted(numbers)
    low, high = entropy(histogram)
    peak = np.abs(numbers).max()
    tried = {k: divergence(numbers, peak * 2 ** (-k / 16), histogram.width) for k in range(0, 97, 4)}
    chosen = divergence(
        numbers, max(-low if low > numbers.min() else 0, high if high < numbers.max() else 0) or peak, histogram.width
    )
    assert chosen <= min(tried.values()) + 1e-3


@pytest.mark.parametrize("cut", [entropy, squared_error, lambda histogram: percentile(histogram, 0.99)])
@pytest.mark.parametrize("value", [0.0, 2.5, -2.5])
def test_a_constant_has_a_range(cut, value):
    low, high = cut(counted(np.full(20, value)))
    assert low <= value <= high

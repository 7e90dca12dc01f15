from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.calibrate.histogram import Histogram

NUMBERS = st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False)


def counted(parts, size=16):
    histogram = Histogram(size)
    for part in parts:
        histogram.add(np.asarray(part, np.float32))
    return histogram


@given(st.lists(st.lists(NUMBERS, min_size=1, max_size=6), min_size=1, max_size=6), st.sampled_from([2, 16, 64]))
def test_the_counts_are_those_of_all_numbers_at_once(parts, size):
    streamed = counted(parts, size)
    flat = np.array([number for part in parts for number in part], np.float32)
    whole = counted([flat], size)
    backwards = counted(list(reversed(parts)), size)
    for other in (whole, backwards):
        assert (streamed.width, streamed.low, streamed.high) == (other.width, other.low, other.high)
        np.testing.assert_array_equal(streamed.counts, other.counts)
        np.testing.assert_array_equal(streamed.edges, other.edges)
    assert streamed.total == len(flat)
    assert len(streamed.counts) <= size
    assert (streamed.low, streamed.high) == (flat.min(), flat.max())


@given(st.lists(NUMBERS, min_size=1, max_size=50))
def test_a_number_lies_in_the_bin_that_holds_it(numbers):
    histogram = counted([numbers], 32)
    expected = np.zeros(len(histogram.counts), np.int64)
    for number in np.asarray(numbers, np.float32).astype(np.float64):
        expected[math.floor(number / histogram.width) - round(histogram.edges[0] / histogram.width)] += 1
    np.testing.assert_array_equal(histogram.counts, expected)


def test_more_than_half_of_the_bins_are_in_use():
    numbers = np.random.default_rng(0).normal(size=10_000).astype(np.float32)
    for size in (64, 512, 8192):
        assert size / 2 - 2 <= len(counted([numbers], size).counts) <= size


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_every_kind_of_float_is_counted(kind):
    numbers = np.linspace(-2, 3, 1001).astype(kind)
    histogram = Histogram(64)
    histogram.add(numbers)
    assert histogram.total == 1001
    assert (histogram.low, histogram.high) == (-2, 3)


@pytest.mark.parametrize("value", [0.0, 5.0, -3.25, 1e-38, 3e38])
def test_a_constant_is_one_bin(value):
    histogram = counted([[value] * 7, [value]])
    assert histogram.counts.tolist() == [8]
    assert histogram.centres.tolist() == [np.float32(value)]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_never_forgotten(value):
    histogram = counted([[1.0], [2.0, value], [3.0]])
    assert not histogram.finite


def test_many_numbers_need_no_more_memory_than_few():
    histogram = Histogram(256)
    random = np.random.default_rng(0)
    for scale in np.geomspace(1e-3, 1e6, 60):
        histogram.add((random.normal(size=500) * scale).astype(np.float32))
        assert histogram.counts.nbytes <= 256 * 8
    assert histogram.total == 60 * 500

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.calibrate import Method
from compress.calibrate.method import METHODS
from compress.calibrate.observers import MinMax, MovingAverage
from compress.recipe import CalibrationConfig


@given(st.lists(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=5), min_size=1, max_size=5))
def test_min_max_over_batches_is_min_max_over_all(batches):
    seen = MinMax()
    for batch in batches:
        seen.update(np.array(batch, np.float32), len(batch))
    flat = [value for batch in batches for value in batch]
    assert seen.bounds() == (min(flat), max(flat))


@pytest.mark.parametrize("name", METHODS)
@given(st.lists(st.booleans(), min_size=1, max_size=6).filter(any), st.sampled_from([math.nan, math.inf, -math.inf]))
def test_no_method_forgets_what_is_not_finite(name, broken, value):
    seen = Method(name).observer()
    for is_broken in broken:
        seen.update(np.array([[1.0], [value if is_broken else 2.0], [-1.0]], np.float32), 3)
    assert not seen.finite


@given(st.integers(1, 12), st.sampled_from([0.01, 0.3, 1.0]))
def test_a_moving_average_depends_on_the_rows_and_not_on_the_batches(size, averaging):
    rows = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    low = high = 0.0
    for number, row in enumerate(rows, start=1):
        weight = max(averaging, 1 / number)
        low, high = low + weight * (row.min() - low), high + weight * (row.max() - high)
    seen = MovingAverage(averaging)
    for start in range(0, 40, size):
        part = rows[start : start + size]
        # Rows may be folded into the leading dimension, as text is into [rows * length, width].
        seen.update(part.reshape(-1, 3), len(part))
    assert seen.bounds() == pytest.approx((low, high), rel=1e-6)


def test_few_rows_have_their_plain_mean():
    seen = MovingAverage(0.01)
    seen.update(np.array([[0.0, 1.0], [-2.0, 3.0]]), 2)
    assert seen.bounds() == (-1.0, 2.0)


@pytest.mark.parametrize("name", METHODS)
def test_a_recipe_names_every_method(name):
    method = Method.of(CalibrationConfig(method=name, percentile=99.5, averaging=0.2))
    assert (method.name, method.percentile, method.averaging) == (name, 99.5, 0.2)
    assert str(method).startswith(name)

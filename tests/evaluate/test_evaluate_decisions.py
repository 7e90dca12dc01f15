import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.evaluate.decisions import Flips, accuracy, decide, flips, hits, wilson_interval


def test_a_row_at_the_cutoff_counts_as_positive():
    assert decide(np.array([0.2, 0.5, 0.7]), 0.5).tolist() == [False, True, True]


def test_accuracy_is_the_share_of_right_decisions():
    labels, probability = np.array([True, True, False, False]), np.array([0.9, 0.1, 0.2, 0.3])
    assert hits(labels, probability, 0.5).tolist() == [1, 0, 1, 1]
    assert accuracy(labels, probability, 0.5) == 0.75


def test_flips_are_counted_in_each_direction():
    baseline = np.array([True, True, False, False, False])
    candidate = np.array([True, False, True, True, False])
    found = flips(baseline, candidate)
    assert found == Flips(rows=5, to_positive=2, to_negative=1)
    assert (found.agreeing, found.agreement) == (2, 0.4)


# Wilson 1927; 8 of 10 and 81 of 263 as in Newcombe 1998, Statistics in Medicine 17:857, table I (method 3).
@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (8, 10, 0.4902, 0.9433),
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval_has_the_published_values(successes, trials, low, high):
    interval = wilson_interval(successes, trials, 0.95)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=6e-5)
    mirrored = wilson_interval(trials - successes, trials, 0.95)
    assert (mirrored.low, mirrored.high) == pytest.approx((1 - high, 1 - low), abs=6e-5)


@settings(deadline=None)
@given(st.integers(1, 10**6).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_holds_the_share_and_stays_a_share(counts):
    successes, trials = counts
    interval = wilson_interval(successes, trials, 0.95)
    assert 0 <= interval.low <= successes / trials <= interval.high <= 1

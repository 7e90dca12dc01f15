import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtri
from scipy.stats import binom

from compress.evaluate.shares import tango_interval, wilson_interval


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


def quartic_roots(gained, lost, rows, level):
    """The closed form of Yang, Sun & Hardin (2013), Statistics in Medicine 32:1336: the ends are roots of a quartic."""
    g, d, s = ndtri((1 + level) / 2) ** 2, gained - lost, gained + lost
    coefficients = (
        rows**2 * (rows / g + 1) ** 2,
        -rows * d * (rows / g + 1) * (4 * rows / g + 1),
        2 * rows * d**2 * (3 * rows / g + 2) / g - rows**2 * (s / g + 1),
        rows * d * (2 * s / g + 1) - d**3 * (4 * rows / g + 1) / g,
        d**2 * (d**2 / g - s) / g,
    )
    return np.roots(coefficients)


@pytest.mark.parametrize("level", [0.95, 0.999])
@pytest.mark.parametrize(
    ("gained", "lost", "rows"), [(1, 7, 21), (40, 20, 160), (0, 3, 500), (12, 2, 44), (31, 70, 10_000)]
)
def test_tango_interval_is_that_of_the_closed_form(gained, lost, rows, level):
    found = tango_interval(gained, lost, rows, level)
    roots = quartic_roots(gained, lost, rows, level)
    for end in (found.low, found.high):
        assert np.abs(roots - end).min() < 1e-9
    assert found.low < (gained - lost) / rows < found.high
    mirrored = tango_interval(lost, gained, rows, level)
    assert (mirrored.low, mirrored.high) == (-found.high, -found.low)


def test_tango_interval_has_the_published_values():
    # Bentur et al., 1 and 7 of 21 pairs: Fagerland, Lydersen & Laake 2014, Statistics in Medicine 33:2850.
    found = tango_interval(1, 7, 21, 0.95)
    assert (found.low, found.high) == pytest.approx((-0.517, -0.026), abs=5e-4)


def test_rows_that_all_agree_still_leave_room_for_a_rare_loss():
    found = tango_interval(0, 0, 1000, 0.95)
    assert found.high == -found.low == pytest.approx(3.8415 / 1003.8415, rel=1e-4)


counts = st.integers(1, 5000).flatmap(
    lambda n: st.tuples(st.just(n), st.integers(0, n)).flatmap(
        lambda pair: st.tuples(st.just(pair[0]), st.just(pair[1]), st.integers(0, pair[0] - pair[1]))
    )
)


@settings(deadline=None)
@given(counts, st.sampled_from([0.5, 0.95, 0.9999]))
def test_tango_interval_holds_the_difference_and_stays_one(rows, level):
    total, gained, lost = rows
    found = tango_interval(gained, lost, total, level)
    assert -1 <= found.low <= (gained - lost) / total <= found.high <= 1
    assert found.low < found.high


def wald(gained, lost, rows):
    half = ndtri(0.975) * np.sqrt(gained + lost - (gained - lost) ** 2 / rows) / rows
    return (gained - lost) / rows - half, (gained - lost) / rows + half


def missed(interval, rows, gain, loss):
    """How often each end is on the wrong side of the true difference, summed over what may be drawn."""
    changed, share = gain + loss, gain / (gain + loss)
    low_missed = high_missed = 0.0
    for total in range(int(binom.ppf(1e-6, rows, changed)), int(binom.ppf(1 - 1e-6, rows, changed)) + 1):
        for gained in range(total + 1):
            weight = binom.pmf(total, rows, changed) * binom.pmf(gained, total, share)
            if weight > 1e-7:
                low, high = interval(gained, total - gained, rows)
                low_missed += weight * (low > gain - loss)
                high_missed += weight * (high < gain - loss)
    return low_missed, high_missed


@pytest.mark.parametrize(
    ("rows", "gain", "loss"), [(200, 0.001, 0.004), (500, 0.0005, 0.0055), (1000, 0.001, 0.004), (500, 0.01, 0.015)]
)
def test_a_loss_is_rarely_missed_where_few_rows_change(rows, gain, loss):
    """Exact: with these shares of rows that change, the end that the gate reads is too optimistic below 2.5 %."""
    too_optimistic, too_harsh = missed(
        lambda *counts: ((found := tango_interval(*counts, 0.95)).low, found.high), rows, gain, loss
    )
    assert too_optimistic <= 0.025
    assert too_optimistic + too_harsh <= 0.065


def test_why_not_the_normal_interval():
    assert missed(wald, 500, 0.001, 0.004)[0] > 0.1

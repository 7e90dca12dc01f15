import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from compress.errors import DataError
from compress.evaluate import compare_regression, regression
from compress.evidence import Metric, to_json

NAMES = ["r2", "mae", "rmse", "rank_correlation"]


def answered(rows=600, noise=0.3, seed=0, unit=1.0):
    """Labels, predictions, and predictions shrunk and disturbed."""
    rng = np.random.default_rng(seed)
    before = rng.normal(size=rows)
    labels = before + 0.5 * rng.normal(size=rows)
    after = 0.95 * before + noise * rng.normal(size=rows)
    return unit * labels, unit * before, unit * after


def compared(labels, before, after, **changes) -> dict[str, Metric]:
    found = compare_regression(labels, before, after, **({"resamples": 200, "seed": 0} | changes))
    assert [metric.name for metric in found] == NAMES
    assert [metric.name for metric in found if metric.primary] == ["r2"]
    return {metric.name: metric for metric in found}


@pytest.mark.parametrize("unit", [1.0, 1e-8, 1e12])
def test_values_are_those_of_scikit_learn(unit):
    labels, before, after = answered(unit=unit)
    labels = labels + 1000 * unit
    before, after = before[:, None] + 1000 * unit, after + 1000 * unit
    found = compared(labels, before, after)
    for name, reference in {
        "r2": r2_score,
        "mae": mean_absolute_error,
        "rmse": root_mean_squared_error,
    }.items():
        metric = found[name]
        assert metric.baseline == pytest.approx(reference(labels, before), rel=1e-9)
        assert metric.value == pytest.approx(reference(labels, after), rel=1e-9)
        assert metric.difference == pytest.approx(metric.value - metric.baseline)
        assert metric.interval.low < metric.difference < metric.interval.high
        assert (metric.rows, metric.note) == (600, "")
    assert [name for name, metric in found.items() if not metric.higher_is_better] == ["mae", "rmse"]


def test_rank_correlation_is_that_of_the_two_answers():
    _, before, after = answered()
    before, after = np.round(before, 1), np.round(after, 1)
    metric = compared(before, before, after)["rank_correlation"]
    assert metric.value == pytest.approx(spearmanr(before, after).statistic, abs=1e-12)
    assert metric.baseline is metric.difference is metric.interval is None
    assert compared(before, before, np.exp(before))["rank_correlation"].value == 1
    assert compared(before, before, -before)["rank_correlation"].value == -1


@pytest.mark.parametrize("rows", [1, 8, 600])
def test_a_baseline_beside_itself_differs_by_exactly_nothing(rows):
    labels, before, _ = answered(rows)
    for metric in compared(labels, before, before.copy()).values():
        if metric.difference is not None:
            assert metric.difference == metric.interval.low == metric.interval.high == 0
            assert metric.value == metric.baseline
        elif metric.name == "rank_correlation" and rows > 1:
            assert metric.value == 1
        else:
            assert rows == 1


def test_equal_labels_leave_r2_undefined_with_a_note():
    _, before, after = answered()
    for labels in (np.full(600, 3.2), np.zeros(600)):
        found = compared(labels, before, after)
        assert found["r2"].value is found["r2"].baseline is found["r2"].difference is found["r2"].interval is None
        assert found["r2"].note == "undefined: the labels of all rows are equal"
        assert found["mae"].interval.low < found["mae"].difference < found["mae"].interval.high
    one = compared(labels, np.ones(600), after)["rank_correlation"]
    assert (one.value, one.note) == (None, "undefined: one of the two gives every row the same number")


def test_labels_that_hardly_vary_give_r2_no_interval():
    _, before, after = answered()
    found = compared(np.arange(600) == 0, before, after)
    assert found["r2"].difference is not None
    assert found["r2"].interval is None
    assert found["r2"].note == "no interval: too few rows have a label that differs from the others"
    assert found["rmse"].interval is not None


def test_too_few_rows_give_no_interval():
    for metric in list(compared(*answered(19)).values())[:3]:
        assert metric.difference is not None
        assert (metric.interval, metric.note) == (None, "no interval: 19 rows, at least 20 are needed")
    assert compared(*answered(20))["r2"].interval is not None


def test_an_interval_that_rests_on_few_rows_says_so():
    labels, before, after = answered()
    after[7] += 50
    for name in ("r2", "mae", "rmse"):
        note = compared(labels, before, after)[name].note
        assert note == "the interval rests on about 1 rows; a rare large error may have been missed"


values = st.floats(-1e100, 1e100) | st.integers(-3, 3)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(values, values, values), min_size=1, max_size=40))
def test_every_sample_gives_metrics_that_can_be_written(rows):
    labels, before, after = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))
    for metric in compared(labels, before, after, resamples=50).values():
        to_json(metric)
        if metric.interval is None:
            assert metric.note
        else:
            assert metric.interval.low <= metric.interval.high


def true_differences(**sample):
    labels, before, after = answered(rows=10**6, seed=10**6, **sample)
    return {name: metric.difference for name, metric in compared(labels, before, after, resamples=1).items()}


def test_intervals_cover_the_true_difference():
    """200 samples of 100 rows: a share of 0.95 that covers is seen as 0.90 or more."""
    true = true_differences()
    names = ("r2", "mae", "rmse")
    low_missed, high_missed = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    for seed in range(200):
        found = compared(*answered(100, seed=seed), seed=seed)
        for name in names:
            low_missed[name] += found[name].interval.low > true[name]
            high_missed[name] += found[name].interval.high < true[name]
    for name in names:
        assert (low_missed[name] + high_missed[name]) / 200 <= 0.10
        assert max(low_missed[name], high_missed[name]) / 200 <= 0.07


def test_why_twenty_rows(monkeypatch):
    monkeypatch.setattr(regression, "ROWS_MIN", 1)
    true = true_differences()["rmse"]
    covered = dict.fromkeys((6, 20), 0)
    for rows in covered:
        for seed in range(200):
            interval = compared(*answered(rows, seed=seed))["rmse"].interval
            covered[rows] += interval.low <= true <= interval.high
    assert covered[6] / 200 < 0.88
    assert covered[20] / 200 > 0.88


def test_equal_seeds_give_equal_metrics():
    labels, before, after = answered()
    assert compared(labels, before, after) == compared(labels, before, after)
    assert compared(labels, before, after, seed=1)["r2"] != compared(labels, before, after)["r2"]


def test_a_wider_level_gives_wider_intervals():
    narrow, wide = compared(*answered(), level=0.8), compared(*answered(), level=0.99)
    for name in ("r2", "mae", "rmse"):
        assert wide[name].interval.low < narrow[name].interval.low
        assert wide[name].interval.high > narrow[name].interval.high


def test_numbers_that_cannot_be_compared_are_refused():
    labels, before, after = answered()
    with pytest.raises(DataError, match="600 labels, 600 baseline scores and 599 candidate scores"):
        compared(labels, before, after[:-1])
    with pytest.raises(DataError, match="amount: 1 of 600 rows are NaN"):
        compared(labels, before, np.where(np.arange(600) == 3, np.nan, after), where="amount")
    with pytest.raises(DataError, match="amount of the baseline: 1 of 600 rows are NaN"):
        compared(labels, np.where(np.arange(600) == 3, np.inf, before), after, where="amount")
    with pytest.raises(DataError, match="amount: labels: 1 of 600 rows are NaN"):
        compared(np.where(np.arange(600) == 3, np.nan, labels), before, after, where="amount")


def test_ten_thousand_rows_and_a_thousand_resamples_are_quick():
    sample = answered(10_000)
    start = time.process_time()
    compared(*sample, resamples=1000)
    assert time.process_time() - start < 1.5

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp
from sklearn.metrics import average_precision_score, roc_curve

from compress.errors import DataError
from compress.evaluate.cells import gather
from compress.evaluate.discrimination import drawn_ks, ks, weighted_ks
from compress.evaluate.periods import compare_folds, compare_periods, period_groups
from compress.evaluate.ranking import average_precision, compare_ranking, lift, roc
from compress.evaluate.segments import Rows


def made(rows=1200, seed=0):
    random = np.random.default_rng(seed)
    labels = random.random(rows) < 0.3
    before = labels + random.normal(0, 1, rows)
    return labels, before, before + random.normal(0, 0.2, rows)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=60))
def test_average_precision_is_scikit_learns_ties_and_all(rows):
    labels = np.array([True, *(label for label, _ in rows)])
    scores = np.array([3.0, *(float(score) for _, score in rows)])
    assert average_precision(labels, scores) == pytest.approx(average_precision_score(labels, scores))


def test_the_roc_curve_lies_on_scikit_learns_and_keeps_ks():
    labels, scores, _ = made()
    points = roc(labels, scores, 50)
    false, true, _ = roc_curve(labels, scores, drop_intermediate=False)
    for point in points:
        assert np.abs(false - point.false_positive_rate).min() < 1e-12
        assert np.abs(true - point.true_positive_rate).min() < 1e-12
    assert (points[0].false_positive_rate, points[-1].true_positive_rate) == (0, 1)
    largest = max(point.true_positive_rate - point.false_positive_rate for point in points)
    assert largest == pytest.approx(ks(labels, scores))
    assert len(points) <= 53


def test_lift_worked_by_hand():
    labels = np.arange(100) >= 80
    scores = np.arange(100.0)
    found = lift(labels, scores, -scores)
    assert [item.baseline for item in found] == [5, 5, 0, 0, 0, 0, 0, 0, 0, 0]
    assert [item.candidate for item in found][-2:] == [5, 5]


def test_ks_of_any_weights_is_that_of_stratified_ones_and_of_scipy():
    labels, scores, _ = made(300)
    whole = np.ones((1, 300))
    assert drawn_ks(labels, scores)(whole) == pytest.approx(weighted_ks(labels, scores)(whole))
    assert drawn_ks(labels, scores)(whole)[0] == pytest.approx(ks_2samp(scores[labels], scores[~labels]).statistic)
    random = np.random.default_rng(0)
    drawn = random.integers(0, 300, 500)
    weights = np.bincount(drawn, minlength=300)[None].astype(float)
    assert drawn_ks(labels, scores)(weights)[0] == pytest.approx(ks(labels[drawn], scores[drawn]))


def test_average_precision_of_many_rows_has_the_interval_of_few_cells():
    labels, before, after = made(30_000)
    cells = gather(labels, before, after)
    assert cells.labels.size < 30_000
    figure = compare_ranking(labels, before, after, resamples=200, seed=0, level=0.95).figures[0]
    assert "Poisson" in figure.interval.method
    assert figure.interval.low <= figure.difference <= figure.interval.high
    assert figure.difference == pytest.approx(
        average_precision_score(labels, after) - average_precision_score(labels, before)
    )


def test_the_interval_of_average_precision_covers_what_it_says():
    random = np.random.default_rng(3)
    labels = random.random(200_000) < 0.3
    before = labels + random.normal(0, 1, labels.size)
    after = before + random.normal(0, 0.5, labels.size)
    truth = average_precision(labels, after) - average_precision(labels, before)
    covered, runs = 0, 200
    for _ in range(runs):
        rows = random.integers(0, labels.size, 900)
        figure = compare_ranking(labels[rows], before[rows], after[rows], resamples=200, seed=0, level=0.95).figures[0]
        covered += figure.interval.low <= truth <= figure.interval.high
    assert 0.89 <= covered / runs <= 0.985


def test_periods_are_in_order_and_hold_every_row():
    dates = np.array(["2026-01-15", "2025-12-31", "2026-01-02", "2026-03-01"])
    found = period_groups("opened", dates, "month")
    assert found.names == ("2025-12", "2026-01", "2026-03")
    assert found.codes.tolist() == [1, 0, 1, 2]
    assert period_groups("opened", dates, "quarter").names == ("2025Q4", "2026Q1")
    assert period_groups("wave", np.array([2, 1, 2]), "value").names == ("1", "2")


def test_what_is_no_date_is_an_error():
    with pytest.raises(DataError, match="not every value is a date"):
        period_groups("opened", np.array(["yesterday"]), "month")
    with pytest.raises(DataError, match="holds numbers, from which no month"):
        period_groups("opened", np.array([20260101]), "month")
    with pytest.raises(DataError, match="makes 200 periods"):
        period_groups("opened", np.arange(200), "value")


def rows_of(labels, before, after):
    scores = [1 / (1 + np.exp(-values)) for values in (before, after)]
    return Rows(labels, *scores, 0.5, 0, 0.95)


def test_every_period_has_its_figures():
    rows = rows_of(*made())
    periods = period_groups("wave", np.arange(1200) // 400, "value")
    found = compare_periods(rows, periods)
    assert [item.rows for item in found] == [400] * 3
    assert sum(item.positives for item in found) == rows.labels.sum()
    assert all(figure.value is not None for item in found for figure in item.figures)


def test_folds_agree_with_the_whole_and_say_where_they_cannot():
    rows = rows_of(*made())
    (figure,) = compare_folds(rows, 5, seed=0)
    from compress.evaluate.discrimination import auc

    assert figure.value == pytest.approx(auc(rows.labels, rows.candidate), abs=0.02)
    assert figure.interval.low <= figure.difference <= figure.interval.high
    few = rows_of(np.array([True, False, False]), np.zeros(3), np.zeros(3))
    assert compare_folds(few, 2, seed=0)[0].value is None


def test_the_interval_over_folds_covers_what_it_says():
    covered, runs = 0, 150
    for seed in range(runs):
        random = np.random.default_rng(seed)
        labels = random.random(1000) < 0.4
        # The same noise in law: the true difference of the AUCs is 0.
        before, after = (labels + random.normal(0, 1, 1000) for _ in range(2))
        interval = compare_folds(rows_of(labels, before, after), 5, seed)[0].interval
        covered += interval.low <= 0 <= interval.high
    assert 0.89 <= covered / runs <= 0.99

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import f1_score, precision_score, recall_score

from compress.evaluate.binary_counts import Costs, agreement, count, expected_cost, precision_recall_f1, selection_rate
from compress.evaluate.shares import exact_interval, tango_interval, weighted_sum_interval


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_exact_interval_is_scipys(counts):
    successes, trials = counts
    found = exact_interval(successes, trials, 0.95)
    expected = binomtest(successes, trials).proportion_ci(0.95, "exact")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-7)


def test_exact_interval_has_the_published_values():
    # Clopper & Pearson's own method for 10 of 100: Newcombe 1998, Statistics in Medicine 17:857 gives 81 of 263.
    found = exact_interval(81, 263, 0.95)
    assert (found.low, found.high) == pytest.approx((0.2527, 0.3676), abs=5e-5)


def made(rows=800, seed=0):
    random = np.random.default_rng(seed)
    labels = random.random(rows) < 0.3
    before = random.random(rows) < np.where(labels, 0.6, 0.2)
    after = np.where(random.random(rows) < 0.05, ~before, before)
    return labels, before, after


def test_figures_at_the_cutoff_are_scikit_learns():
    labels, before, after = made()
    counts = count(labels, before, after)
    figures = {item.name: item for item in precision_recall_f1(counts, resamples=200, seed=0, level=0.95)}
    for name, score in (("precision", precision_score), ("recall", recall_score), ("f1", f1_score)):
        assert figures[name].value == pytest.approx(score(labels, after))
        assert figures[name].baseline == pytest.approx(score(labels, before))
        assert figures[name].difference == pytest.approx(score(labels, after) - score(labels, before))
        assert figures[name].interval.low <= figures[name].difference <= figures[name].interval.high


def test_approval_agreement_and_cost_are_what_the_rows_say():
    labels, before, after = made()
    counts = count(labels, before, after)
    approval = selection_rate(counts, 0, 0.95)
    assert (approval.value, approval.baseline) == pytest.approx(((~after).mean(), (~before).mean()))
    assert agreement(counts, 0.95).value == (before == after).mean()
    cost = expected_cost(counts, Costs(false_positive=1, false_negative=5), 0.95)
    for decided, value in ((before, cost.baseline), (after, cost.value)):
        assert value == pytest.approx(np.where(labels & ~decided, 5, np.where(~labels & decided, 1, 0)).mean())


def test_rows_that_decide_nothing_give_no_number():
    none = count(np.zeros(0, bool), np.zeros(0, bool), np.zeros(0, bool))
    assert selection_rate(none, 0, 0.95).value is None
    assert expected_cost(none, Costs(1, 1), 0.95).value is None
    never = count(np.array([True, False]), np.array([False, False]), np.array([False, False]))
    precision = precision_recall_f1(never, resamples=100, seed=0, level=0.95)[0]
    assert precision.value is None
    assert "no row is decided positive" in precision.note


def test_cost_that_nothing_changed_leaves_room_for_a_rare_flip():
    labels = np.arange(1000) < 300
    cost = expected_cost(count(labels, labels, labels), Costs(1, 5), 0.95)
    assert cost.difference == 0
    assert cost.interval.low < 0 < cost.interval.high < 0.05


def test_mover_of_one_part_is_that_part():
    part = tango_interval(3, 9, 400, 0.95)
    found = weighted_sum_interval([(2.0, -6 / 400, part)], 0.95)
    assert (found.low, found.high) == pytest.approx((2 * part.low, 2 * part.high))


def test_the_interval_of_cost_covers_what_it_says():
    random = np.random.default_rng(1)
    covered, runs, rows = 0, 600, 1500
    # P(label), then of flips up and down by label: the true change follows.
    chances = np.array([[0.62, 0.015, 0.01, 0.055], [0.09, 0.02, 0.01, 0.18]])
    chances /= chances.sum()
    truth = (chances[0, 1] - chances[0, 2]) * 1 + (chances[1, 2] - chances[1, 1]) * 5
    for drawn in random.multinomial(rows, chances.ravel(), size=runs):
        table = drawn.reshape(2, 2, 2)
        interval = expected_cost(_counts(table), Costs(1, 5), 0.95).interval
        covered += interval.low <= truth <= interval.high
    assert 0.93 <= covered / runs <= 0.975


def test_the_interval_of_precision_covers_what_it_says():
    random = np.random.default_rng(2)
    covered, runs, rows = 0, 400, 2000
    chances = np.array([[[0.6, 0.02], [0.01, 0.07]], [[0.08, 0.02], [0.01, 0.19]]])
    chances /= chances.sum()
    by = [chances.sum(axis=2), chances.sum(axis=1)]
    truth = by[1][1, 1] / by[1][:, 1].sum() - by[0][1, 1] / by[0][:, 1].sum()
    for drawn in random.multinomial(rows, chances.ravel(), size=runs):
        figure = precision_recall_f1(_counts(drawn.reshape(2, 2, 2)), resamples=400, seed=0, level=0.95)[0]
        covered += figure.interval.low <= truth <= figure.interval.high
    assert 0.925 <= covered / runs <= 0.975


def _counts(table):
    from compress.evaluate.binary_counts import Counts

    return Counts(np.asarray(table, dtype=np.int64))

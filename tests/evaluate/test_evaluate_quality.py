import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, ndtr
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss, roc_auc_score

from compress.errors import DataError
from compress.evaluate import compare
from compress.evaluate.discrimination import delong_paired
from compress.evidence import Metric, to_json

NAMES = ["auc", "gini", "ks", "log_loss", "brier", "accuracy", "agreement"]


def scored(rows=600, noise=0.3, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.random(rows) < 0.25
    score = 1.2 * labels + rng.normal(size=rows)
    return labels, expit(score - 1.5), expit(score - 1.5 + noise * rng.normal(size=rows))


def compared(labels, a, b, **changes) -> dict[str, Metric]:
    found = compare(labels, a, b, **({"cutoff": 0.4, "resamples": 200, "seed": 0} | changes))
    assert [metric.name for metric in found] == NAMES
    return {metric.name: metric for metric in found}


def test_values_are_those_of_scikit_learn():
    labels, a, b = scored()
    found = compared(labels, a, b)
    for name, reference in {
        "auc": roc_auc_score,
        "gini": lambda y, p: 2 * roc_auc_score(y, p) - 1,
        "log_loss": log_loss,
        "brier": brier_score_loss,
        "accuracy": lambda y, p: accuracy_score(y, p >= 0.4),
    }.items():
        metric = found[name]
        assert metric.baseline == pytest.approx(reference(labels, a), abs=1e-12)
        assert metric.value == pytest.approx(reference(labels, b), abs=1e-12)
        assert metric.difference == pytest.approx(metric.value - metric.baseline, abs=1e-12)
        assert metric.interval.low < metric.difference < metric.interval.high
        assert metric.rows == 600
    assert [name for name, metric in found.items() if not metric.higher_is_better] == ["log_loss", "brier"]


def test_gini_has_twice_the_interval_of_auc():
    labels, a, b = scored()
    found = compared(labels, a, b)
    delong = delong_paired(labels, a, b).interval(0.95)
    assert found["auc"].interval == delong
    assert found["gini"].interval.low == 2 * delong.low
    assert found["gini"].interval.high == 2 * delong.high


def test_agreement_is_the_share_of_equal_decisions():
    labels, a, b = scored()
    metric = compared(labels, a, b)["agreement"]
    assert metric.value == ((a >= 0.4) == (b >= 0.4)).mean()
    assert metric.baseline is metric.difference is None
    assert metric.interval.method == "Wilson"
    assert metric.interval.low < metric.value < metric.interval.high
    up = ((a < 0.4) & (b >= 0.4)).sum()
    assert metric.note.startswith(f"{up} decisions became positive, ")


@pytest.mark.parametrize("rows", [8, 600])
def test_a_baseline_beside_itself_differs_by_exactly_nothing(rows):
    labels, a, _ = scored(rows)
    for metric in compared(labels, a, a.copy()).values():
        if metric.name == "agreement":
            assert (metric.value, metric.interval.high) == (1.0, 1.0)
        else:
            assert metric.difference == metric.interval.low == metric.interval.high == 0
            assert metric.value == metric.baseline


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=60),
    st.floats(0.05, 0.95),
)
def test_every_sample_gives_seven_metrics_that_can_be_written(rows, cutoff):
    labels, a, b = (np.array(column) for column in zip(*rows, strict=True))
    for metric in compared(labels, a / 8, b / 8, cutoff=cutoff, resamples=100).values():
        to_json(metric)
        assert (metric.value is None) == (metric.difference is None) or metric.name == "agreement"
        if metric.interval is None:
            assert metric.note
        else:
            assert metric.interval.low <= metric.interval.high


def test_one_class_leaves_ranking_undefined_with_a_note():
    _, a, b = scored()
    found = compared(np.zeros(600), a, b)
    for name in ("auc", "gini", "ks"):
        assert found[name].value is found[name].baseline is found[name].difference is found[name].interval is None
        assert found[name].note == "undefined: all 600 rows are negative"
    for name in ("log_loss", "brier", "accuracy"):
        assert found[name].interval.low <= found[name].difference <= found[name].interval.high
    assert compared(np.ones(600), a, b)["auc"].note == "undefined: all 600 rows are positive"


def test_too_few_rows_of_a_class_give_no_interval():
    labels = np.arange(40) < 9
    _, a, b = scored(40)
    found = compared(labels, a, b)
    for name in NAMES[:-2]:
        assert found[name].difference is not None
        assert found[name].interval is None
        assert found[name].note == ("no interval: 9 positive and 31 negative rows, at least 10 of a class are needed")
    assert compared(np.arange(40) < 10, a, b)["auc"].interval is not None


@pytest.mark.parametrize(("positives", "negatives", "low", "high"), [(5, 15, 0.70, 0.86), (10, 40, 0.95, 1.0)])
def test_why_ten_rows_of_a_class(positives, negatives, low, high):
    """A little noise often moves no rank of 20 rows: the interval is then [0, 0], and the loss is missed."""
    true = float(ndtr(1.2 / np.sqrt(2 * 1.01)) - ndtr(1.2 / np.sqrt(2)))
    labels = np.arange(positives + negatives) < positives
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(400):
        a = 1.2 * labels + rng.normal(size=labels.size)
        interval = delong_paired(labels, a, a + 0.1 * rng.normal(size=labels.size)).interval(0.95)
        covered += interval.low <= true <= interval.high
    assert low <= covered / 400 <= high


def test_an_interval_that_rests_on_few_rows_says_so():
    labels, a, _ = scored()
    b = a.copy()
    b[np.flatnonzero(labels)[:2]] = 0.0
    note = compared(labels, a, b)["auc"].note
    assert note.startswith("the interval rests on about ")
    labels, a, b = scored()
    assert compared(labels, a, b)["auc"].note == ""


def test_equal_seeds_give_equal_metrics():
    labels, a, b = scored()
    assert compared(labels, a, b) == compared(labels, a, b)
    moved = compared(labels, a, b, seed=1)
    assert moved["ks"].interval != compared(labels, a, b)["ks"].interval
    assert replace(moved["ks"], interval=None) == replace(compared(labels, a, b)["ks"], interval=None)


def test_a_wider_level_gives_wider_intervals():
    labels, a, b = scored()
    narrow, wide = compared(labels, a, b, level=0.8), compared(labels, a, b, level=0.99)
    for name in NAMES:
        assert wide[name].interval.low < narrow[name].interval.low
        assert wide[name].interval.high > narrow[name].interval.high


def test_misaligned_rows_are_refused():
    labels, a, b = scored()
    with pytest.raises(DataError, match="600 labels, 600 baseline scores and 599 candidate scores"):
        compared(labels, a, b[:-1])
    with pytest.raises(DataError, match="candidate scores: 1 of 600 rows are NaN"):
        compared(labels, a, np.where(np.arange(600) == 3, np.nan, b))


def test_six_thousand_rows_and_a_thousand_resamples_are_quick():
    labels, a, b = scored(6000)
    start = time.process_time()
    compared(labels, a, b, resamples=1000)
    assert time.process_time() - start < 1.5


def test_log_loss_has_no_interval_where_a_score_is_certain():
    random = np.random.default_rng(0)
    labels = random.random(400) < 0.3
    before = np.clip(0.3 + 0.4 * labels + 0.2 * random.normal(size=400), 0.05, 0.95)
    after = np.clip(before + 0.05 * random.normal(size=400), 0.05, 0.95)

    def log_loss_of(candidate):
        found = compare(labels, before, candidate, cutoff=0.5, resamples=50, seed=0)
        return next(metric for metric in found if metric.name == "log_loss")

    assert log_loss_of(after).interval is not None
    certain = after.copy()
    certain[np.flatnonzero(labels)[0]] = 1.0
    found = log_loss_of(certain)
    assert found.difference is not None and found.interval is None
    assert found.note.startswith("no interval: a probability of 0 or 1")
    assert log_loss_of(before).interval.low == 0

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.metrics import accuracy_score, brier_score_loss, f1_score, log_loss, recall_score

from compress.errors import DataError
from compress.evaluate import compare_multiclass, multiclass
from compress.evaluate.shares import tango_interval
from compress.evidence import Metric, to_json

NAMES = ["top_1", "macro_f1", "log_loss", "brier", "agreement", "worst_class_recall"]


def answered(rows=600, classes=5, noise=0.4, seed=0, shares=None):
    """Labels, logits, and the same logits disturbed; class 0 is favoured a little by the disturbance."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, rows, p=shares)
    before = rng.normal(size=(rows, classes))
    before[np.arange(rows), labels] += 2
    after = before + noise * rng.normal(size=before.shape)
    after[:, 0] += noise / 4
    return labels, before, after


def compared(labels, before, after, **changes) -> dict[str, Metric]:
    found = compare_multiclass(labels, before, after, **({"link": "logit", "resamples": 200, "seed": 0} | changes))
    assert [metric.name for metric in found] == NAMES
    assert [metric.name for metric in found if metric.primary] == ["top_1"]
    return {metric.name: metric for metric in found}


def test_values_are_those_of_scikit_learn():
    labels, before, after = answered()
    found = compared(labels, before, after)
    for name, reference in {
        "top_1": lambda y, z: accuracy_score(y, z.argmax(axis=1)),
        "macro_f1": lambda y, z: f1_score(y, z.argmax(axis=1), average="macro"),
        "log_loss": lambda y, z: log_loss(y, softmax(z, axis=1)),
        "brier": lambda y, z: brier_score_loss(y, softmax(z, axis=1)),
    }.items():
        metric = found[name]
        assert metric.baseline == pytest.approx(reference(labels, before), abs=1e-12)
        assert metric.value == pytest.approx(reference(labels, after), abs=1e-12)
        assert metric.difference == pytest.approx(metric.value - metric.baseline, abs=1e-12)
        assert metric.interval.low < metric.difference < metric.interval.high
        assert (metric.rows, metric.note) == (600, "")
    assert [name for name, metric in found.items() if not metric.higher_is_better] == ["log_loss", "brier"]


def test_probabilities_give_the_figures_of_their_logits():
    labels, before, after = answered()
    by_logit = compared(labels, before, after)
    by_probability = compared(labels, softmax(before, axis=1), softmax(after, axis=1), link="probability")
    for name in NAMES:
        assert by_probability[name].value == pytest.approx(by_logit[name].value, abs=1e-12)


def test_top_1_carries_the_interval_of_the_rows_that_turned():
    labels, before, after = answered()
    was, now = before.argmax(axis=1) == labels, after.argmax(axis=1) == labels
    gained, lost = int((now & ~was).sum()), int((was & ~now).sum())
    found = compared(labels, before, after)
    assert found["top_1"].interval == tango_interval(gained, lost, 600, 0.95)
    agreement = found["agreement"]
    changed = int((before.argmax(axis=1) != after.argmax(axis=1)).sum())
    assert agreement.value == 1 - changed / 600
    assert agreement.baseline is agreement.difference is None
    assert agreement.interval.method == "Wilson"
    assert agreement.note == f"{changed} rows changed their class: {gained} became right, {lost} wrong"


def test_the_worst_class_is_named_and_judged_among_all():
    labels, before, after = answered(rows=900, shares=[0.3, 0.3, 0.3, 0.095, 0.005])
    after[labels == 2, 2] -= 1.0
    metric = compared(labels, before, after)["worst_class_recall"]
    was, now = (recall_score(labels, scores.argmax(axis=1), average=None)[2] for scores in (before, after))
    assert (metric.baseline, metric.value) == pytest.approx((was, now))
    assert metric.difference == pytest.approx(now - was)
    assert metric.rows == (labels == 2).sum()
    assert metric.note == "class 2: loses most of 4 classes; 1 of 5 left out with fewer than 10 rows"
    assert metric.interval.method == "Tango score, Bonferroni over 4 classes"
    rows = labels == 2
    lost = int((rows & (before.argmax(axis=1) == 2) & (after.argmax(axis=1) != 2)).sum())
    gained = int((rows & (before.argmax(axis=1) != 2) & (after.argmax(axis=1) == 2)).sum())
    wide = tango_interval(gained, lost, metric.rows, 1 - 0.05 / 4)
    assert (metric.interval.low, metric.interval.high) == (wide.low, wide.high)


def test_the_choice_of_the_worst_class_raises_no_alarm():
    """Of 20 classes that are all answered alike before and after, one always loses most, and by luck alone."""
    rng = np.random.default_rng(0)
    labels = np.arange(2000) % 20
    alarms = alone = 0
    for _ in range(100):
        before, after = (np.eye(20)[np.where(rng.random(2000) < 0.7, labels, (labels + 1) % 20)] for _ in range(2))
        metric = compared(labels, before, after, resamples=1)["worst_class_recall"]
        alarms += metric.interval.high < 0
        # Two standard errors of the difference of two independent recalls of 0.7 over 100 rows.
        alone += metric.difference < -2 * np.sqrt(2 * 0.7 * 0.3 / 100)
    assert alarms <= 10
    assert alone >= 25


def test_no_class_large_enough_has_no_worst():
    labels, before, after = answered(rows=30)
    metric = compared(labels, before, after)["worst_class_recall"]
    assert (metric.value, metric.interval, metric.note) == (None, None, "undefined: no class has 10 rows")


@pytest.mark.parametrize("rows", [8, 600])
def test_a_baseline_beside_itself_differs_by_exactly_nothing(rows):
    labels, before, _ = answered(rows)
    for metric in compared(labels, before, before.copy()).values():
        if metric.name == "agreement":
            assert (metric.value, metric.interval.high) == (1.0, 1.0)
        elif metric.value is not None:
            assert metric.difference == metric.interval.low == metric.interval.high == 0
            assert metric.value == metric.baseline


def test_equal_classes_from_other_outputs_leave_room_for_a_loss():
    labels, before, _ = answered()
    found = compared(labels, before, before * 1.01)
    assert found["top_1"].difference == 0
    assert found["top_1"].interval.low < 0 < found["top_1"].interval.high
    assert found["macro_f1"].note.startswith("the interval rests on 0 rows whose class changed; ")


def test_too_few_rows_give_no_bootstrap_interval():
    labels, before, after = answered(49)
    found = compared(labels, before, after)
    for name in ("macro_f1", "log_loss", "brier"):
        assert found[name].difference is not None
        assert (found[name].interval, found[name].note) == (None, "no interval: 49 rows, at least 50 are needed")
    assert found["top_1"].interval is not None
    assert compared(*answered(50))["log_loss"].interval is not None


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.lists(st.integers(-9, 9), min_size=8, max_size=8)), min_size=1, max_size=60
    )
)
def test_every_sample_gives_metrics_that_can_be_written(rows):
    labels = np.array([row[0] for row in rows])
    outputs = np.array([row[1] for row in rows], dtype=np.float32)
    for metric in compared(labels, outputs[:, :4], outputs[:, 4:], resamples=50).values():
        to_json(metric)
        assert (metric.value is None) == (metric.difference is None) or metric.name == "agreement"
        if metric.interval is None:
            assert metric.note
        else:
            assert metric.interval.low <= metric.interval.high


def true_differences(**sample):
    labels, before, after = answered(rows=400_000, seed=10**6, **sample)
    return {name: metric.difference for name, metric in compared(labels, before, after, resamples=1).items()}


@pytest.mark.parametrize(
    ("rows", "shares"), [(400, None), (400, [0.5, 0.3, 0.15, 0.04, 0.01])], ids=["even", "with small classes"]
)
def test_intervals_cover_the_true_difference(rows, shares):
    """150 samples: a share of 0.95 that covers is seen as 0.89 or more; 0.04 on one side as 0.09 or less."""
    true = true_differences(shares=shares)
    names = ("top_1", "macro_f1", "log_loss", "brier")
    low_missed, high_missed = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    for seed in range(150):
        found = compared(*answered(rows, seed=seed, shares=shares), seed=seed)
        for name in names:
            low_missed[name] += found[name].interval.low > true[name]
            high_missed[name] += found[name].interval.high < true[name]
    for name in names:
        assert (low_missed[name] + high_missed[name]) / 150 <= 0.11
        assert max(low_missed[name], high_missed[name]) / 150 <= 0.09


def test_why_fifty_rows(monkeypatch):
    """Of two dozen rows few change their class: the interval of F1 misses a loss far more often than it says."""
    monkeypatch.setattr(multiclass, "ROWS_MIN", 1)
    true = true_differences(classes=3)["macro_f1"]
    covered = dict.fromkeys((24, 60), 0)
    for rows in covered:
        for seed in range(150):
            interval = compared(*answered(rows, classes=3, seed=seed))["macro_f1"].interval
            covered[rows] += interval.low <= true <= interval.high
    assert covered[24] / 150 < 0.8
    assert covered[60] / 150 > 0.85


def test_equal_seeds_give_equal_metrics():
    labels, before, after = answered()
    assert compared(labels, before, after) == compared(labels, before, after)
    assert compared(labels, before, after, seed=1)["log_loss"] != compared(labels, before, after)["log_loss"]


def test_a_wider_level_gives_wider_intervals():
    labels, before, after = answered()
    narrow, wide = compared(labels, before, after, level=0.8), compared(labels, before, after, level=0.99)
    for name in NAMES:
        assert wide[name].interval.low < narrow[name].interval.low
        assert wide[name].interval.high > narrow[name].interval.high


def test_answers_that_do_not_match_are_refused():
    labels, before, after = answered()
    with pytest.raises(DataError, match="600 labels, 600 baseline scores and 599 candidate scores"):
        compared(labels, before, after[:-1])
    with pytest.raises(DataError, match="kind: 4 classes, and 5 in the baseline"):
        compared(labels, before, after[:, :4], where="kind")
    with pytest.raises(DataError, match=r"kind: labels: 1 of 600 labels .* the first is 5"):
        compared(np.where(np.arange(600) == 3, 5, labels), before, after, where="kind")
    with pytest.raises(DataError, match="kind: 1 of 600 rows are NaN"):
        compared(labels, before, np.where(np.arange(600)[:, None] == 3, np.nan, after), where="kind")


@pytest.mark.parametrize(("rows", "classes"), [(3080, 77), (10_000, 10)])
def test_thousands_of_rows_and_a_thousand_resamples_are_quick(rows, classes):
    labels, before, after = answered(rows, classes)
    start = time.process_time()
    compared(labels, before, after, resamples=1000)
    assert time.process_time() - start < 1.5


def test_a_quantized_softmax_of_the_candidate_is_scaled_and_said():
    random = np.random.default_rng(0)
    exact = random.dirichlet(np.ones(4), 200)
    labels = exact.argmax(axis=1)
    steps = np.round(exact * 128) / 128
    found = {
        item.name: item for item in compare_multiclass(labels, exact, steps, link="probability", resamples=50, seed=0)
    }
    assert "they were scaled" in found["log_loss"].note
    assert "they were scaled" in found["brier"].note
    assert "scaled" not in found["top_1"].note
    with pytest.raises(DataError, match="do not add up to 1"):
        compare_multiclass(labels, steps, exact, link="probability", resamples=50, seed=0)

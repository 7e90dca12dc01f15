from __future__ import annotations

import numpy as np
import pytest

from compress.errors import DataError
from compress.evaluate.groups import group
from compress.evaluate.review import Asked, review_task
from compress.recipe import CostConfig, EvaluateConfig

CONFIG = EvaluateConfig(cutoffs=(0.3,), cost=CostConfig(false_positive=1, false_negative=5), segment_rows=20)


def made(rows=600):
    random = np.random.default_rng(0)
    logit = random.normal(0, 1.5, rows)
    labels = (random.random(rows) < 1 / (1 + np.exp(-logit))).astype(np.int64)
    return labels, logit, logit + random.normal(0, 0.2, rows), group("sex", random.integers(1, 3, rows))


def review(labels, before, after, asked, config=CONFIG):
    return review_task(labels, before, after, asked, config, resamples=100, seed=0, where="score")


def test_a_binary_task_is_reviewed_at_every_cutoff():
    labels, before, after, sex = made()
    found = review(labels, before, after, Asked("", "binary", "logit", 0.5, (sex,)))
    assert [(item.cutoff, item.task_cutoff) for item in found.decisions] == [(0.5, True), (0.3, False)]
    for item in found.decisions:
        assert item.flipped.count == item.to_positive.count + item.to_negative.count
        assert item.flipped.interval.method == "Clopper-Pearson"
        assert [figure.name for figure in item.figures][-1] == "expected_cost"
    assert found.ranking is not None
    assert {item.name for item in found.segments} == {"1", "2"}
    assert len(found.fairness) == 1


def test_the_baseline_beside_itself_changes_exactly_nothing():
    labels, before, _, sex = made()
    found = review(labels, before, before, Asked("", "binary", "logit", 0.5, (sex,)))
    figures = [*found.decisions[0].figures, *(item for segment in found.segments for item in segment.figures)]
    assert {(item.difference, item.interval.high) for item in figures if item.difference is not None} == {(0, 0)}
    assert found.decisions[0].flipped.interval.high == 0
    assert found.bands.psi == 0


def test_one_class_has_no_ranking_and_says_so():
    _, before, after, sex = made()
    found = review(np.ones(600), before, after, Asked("", "binary", "logit", 0.5, (sex,)))
    assert found.ranking is None
    assert "all 600 rows are of one class" in found.notes[0]
    assert found.segments[0].figure("auc").value is None


def test_equal_seeds_give_equal_reviews():
    labels, before, after, sex = made()
    asked = Asked("", "binary", "logit", 0.5, (sex,))
    assert review(labels, before, after, asked) == review(labels, before, after, asked)


def test_classes_have_their_names_and_figures():
    random = np.random.default_rng(1)
    before = random.normal(size=(300, 3))
    labels = before.argmax(axis=1)
    after = before + random.normal(0, 0.5, (300, 3))
    sex = group("sex", random.integers(1, 3, 300))
    asked = Asked("kind", "multiclass", "logit", 0.5, (sex,), class_names=("coat", "shoe"))
    found = review(labels, before, after, asked)
    assert [item.name for item in found.classes] == ["coat", "shoe", ""]
    recall = found.classes[0].figures[1]
    assert (recall.name, recall.baseline) == ("recall", 1.0)
    assert recall.value == pytest.approx((after.argmax(axis=1) == 0)[labels == 0].mean())
    assert found.segments[0].figure("top_1").baseline == 1


def test_a_regression_has_bands_and_errors_by_segment():
    random = np.random.default_rng(2)
    labels = random.normal(size=400)
    sex = group("sex", random.integers(1, 3, 400))
    after = labels + np.where(sex.codes == 0, 0.5, 0.0)
    found = review(labels, labels, after, Asked("amount", "regression", None, 0.5, (sex,)))
    assert found.worst_segment == "sex 1"
    assert found.bands.psi > 0
    assert found.decisions == ()


def test_rows_that_do_not_match_are_an_error():
    labels, before, after, _ = made()
    with pytest.raises(DataError, match="not of the same"):
        review(labels, before, after[:-1], Asked("", "binary", "logit", 0.5))
    with pytest.raises(DataError, match="NaN or infinite"):
        review(labels, before, np.where(np.arange(600) == 3, np.nan, after), Asked("", "binary", "logit", 0.5))

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, softmax

from compress.errors import DataError, InternalError
from compress.evaluate import compare, compare_multiclass, compare_regression, compare_task, find_link

DRAWS = {"resamples": 100, "seed": 0}
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(200, 3)).astype(np.float32)
MOVED = LOGITS + 0.2 * RNG.normal(size=LOGITS.shape).astype(np.float32)
CLASSES = RNG.integers(0, 3, 200)


def task(kind, labels, before, after, link="logit", **options):
    options = {"task": "fraud", "cutoff": 0.4, "where": "risk"} | DRAWS | options
    return compare_task(kind, labels, before, after, link=link, **options)


def test_each_kind_goes_to_its_own_metrics_and_every_one_names_the_task():
    binary = CLASSES == 0
    probability = [expit(scores[:, 0].astype(np.float64)) for scores in (LOGITS, MOVED)]
    expected = {
        "binary": compare(binary, *probability, cutoff=0.4, **DRAWS),
        "multiclass": compare_multiclass(CLASSES, LOGITS, MOVED, link="logit", **DRAWS),
        "regression": compare_regression(CLASSES, LOGITS[:, 0], MOVED[:, 0], **DRAWS),
    }
    found = {
        "binary": task("binary", binary, LOGITS[:, :1], MOVED[:, :1]),
        "multiclass": task("multiclass", CLASSES, LOGITS, MOVED),
        "regression": task("regression", CLASSES, LOGITS[:, :1], MOVED[:, :1], link=None),
    }
    for kind, metrics in found.items():
        assert metrics == tuple(replace(metric, task="fraud") for metric in expected[kind])
        assert sum(metric.primary for metric in metrics) == 1
    assert [next(m.name for m in metrics if m.primary) for metrics in found.values()] == ["auc", "top_1", "r2"]


def test_one_class_keeps_its_primary_metric():
    (primary,) = (item for item in task("binary", np.zeros(200), LOGITS[:, 0], MOVED[:, 0]) if item.primary)
    assert (primary.name, primary.value) == ("auc", None)


def test_errors_say_whose_rows_they_are():
    unusable = np.where(np.arange(200) == 3, np.nan, LOGITS[:, 0])
    with pytest.raises(DataError, match=r"^risk: 1 of 200 rows are NaN"):
        task("binary", CLASSES == 0, LOGITS[:, 0], unusable)
    with pytest.raises(DataError, match=r"^risk of the baseline: 1 of 200 rows are NaN"):
        task("binary", CLASSES == 0, unusable, LOGITS[:, 0])
    with pytest.raises(DataError, match=r"^risk: labels: .* neither 0 nor 1"):
        task("binary", CLASSES, LOGITS[:, 0], LOGITS[:, 0])
    with pytest.raises(InternalError, match="a multiclass task needs a link"):
        task("multiclass", CLASSES, LOGITS, MOVED, link=None)


def test_the_link_is_found_where_nothing_is_said():
    assert find_link("binary", LOGITS[:, 0], None, "risk") == "logit"
    assert find_link("binary", expit(LOGITS[:, :1]), None, "risk") == "probability"
    assert find_link("multiclass", LOGITS, None, "kind") == "logit"
    assert find_link("multiclass", softmax(LOGITS, axis=1), None, "kind") == "probability"
    # Within [0, 1], but independent scores of three labels: no softmax.
    assert find_link("multiclass", expit(LOGITS), None, "kind") == "logit"
    assert find_link("regression", LOGITS[:, 0], None, "amount") is None


def test_what_is_said_of_the_link_is_checked():
    assert find_link("binary", expit(LOGITS[:, 0]), "logit", "risk") == "logit"
    assert find_link("multiclass", softmax(LOGITS, axis=1), "probability", "kind") == "probability"
    with pytest.raises(DataError, match="do not add up to 1"):
        find_link("multiclass", expit(LOGITS), "probability", "kind")
    with pytest.raises(DataError, match=r"lie outside \[0, 1\]"):
        find_link("binary", LOGITS[:, 0], "probability", "risk")


@pytest.mark.parametrize(("kind", "shape"), [("binary", (4, 2)), ("multiclass", (4, 1)), ("regression", (4, 2))])
def test_an_output_of_another_shape_answers_no_such_task(kind, shape):
    for said in (None, "logit"):
        with pytest.raises(DataError, match="risk: must have the shape"):
            find_link(kind, np.zeros(shape), said, "risk")

import numpy as np
import pytest

from compress.errors import DataError, InternalError
from compress.evaluate.decisions import Decision, Flips, accuracy, decide, decide_rows, flips, hits


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


def test_rows_are_decided_by_the_kind_of_task():
    scores = np.array([[-1.0], [0.0], [2.0]])
    assert decide_rows(scores, Decision("binary", "logit", 0.5), "risk").tolist() == [0, 1, 1]
    assert decide_rows(scores, Decision("binary", "logit", 0.8), "risk").tolist() == [0, 0, 1]
    assert decide_rows([0.2, 0.7], Decision("binary", "probability"), "risk").tolist() == [0, 1]
    # Of equal numbers the first class is taken.
    assert decide_rows([[0.0, 3.0, 1.0], [2.0, 2.0, 1.0]], Decision("multiclass"), "kind").tolist() == [1, 0]
    assert decide_rows(scores, Decision("regression"), "amount") is None


def test_decisions_need_the_shape_of_their_task():
    with pytest.raises(DataError, match=r"risk: must have the shape \[rows\] or \[rows, 1\]") as caught:
        decide_rows(np.zeros((3, 2)), Decision("binary", "logit"), "risk")
    assert 'kind = "multiclass"' in caught.value.hint
    with pytest.raises(DataError, match=r"kind: must have the shape \[rows, classes\], two classes or more") as caught:
        decide_rows(np.zeros((3, 1)), Decision("multiclass"), "kind")
    assert 'kind = "binary"' in caught.value.hint
    with pytest.raises(InternalError, match="a binary decision needs a link"):
        decide_rows(np.zeros(3), Decision("binary"), "risk")

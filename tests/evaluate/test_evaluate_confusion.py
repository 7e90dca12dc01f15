import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, recall_score

from compress.evaluate.confusion import macro_f1, recall_changes, weighted_macro_f1

rows_of = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40)


def reference_f1(labels, decided):
    return f1_score(labels, decided, labels=np.unique(labels), average="macro", zero_division=0)


@settings(deadline=None)
@given(rows_of)
def test_macro_f1_is_that_of_scikit_learn_over_the_classes_that_occur(rows):
    labels, decided, _ = (np.array(column) for column in zip(*rows, strict=True))
    assert macro_f1(labels, decided, 5) == pytest.approx(reference_f1(labels, decided), abs=1e-12)


def test_weighted_macro_f1_is_that_of_repeated_rows():
    rng = np.random.default_rng(0)
    labels, decided = rng.integers(0, 4, 50), rng.integers(0, 5, 50)
    weights = rng.multinomial(50, np.full(50, 0.02), size=6).astype(float)
    # A class that no drawn row holds or is given stays in the average, with 0.
    weights[5, (labels == 2) | (decided == 2)] = 0
    found = weighted_macro_f1(labels, decided, 6)(weights)
    for value, counts in zip(found, weights, strict=True):
        rows = np.repeat(np.arange(50), counts.astype(int))
        expected = f1_score(labels[rows], decided[rows], labels=np.unique(labels), average="macro", zero_division=0)
        assert value == pytest.approx(expected, abs=1e-12)


@settings(deadline=None)
@given(rows_of)
def test_recall_changes_are_the_recalls_of_scikit_learn(rows):
    labels, before, after = (np.array(column) for column in zip(*rows, strict=True))
    changes = recall_changes(labels, before, after, 7)
    occurring = np.unique(labels)
    assert [change.label for change in changes] == occurring.tolist()
    assert [change.rows for change in changes] == [(labels == label).sum() for label in occurring]
    for decided, right in ((before, "right_before"), (after, "right_after")):
        expected = recall_score(labels, decided, labels=occurring, average=None, zero_division=0)
        np.testing.assert_allclose([getattr(change, right) / change.rows for change in changes], expected)
    assert all(change.gained - change.lost == change.right_after - change.right_before for change in changes)
    assert sum(change.lost for change in changes) == ((before == labels) & (after != labels)).sum()

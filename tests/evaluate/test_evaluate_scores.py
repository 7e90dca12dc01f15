import numpy as np
import pytest
from scipy.special import softmax

from compress.errors import DataError
from compress.evaluate.scores import binary_labels, class_labels, class_probabilities, numbers, probabilities


def test_logit_goes_through_the_logistic_function():
    outputs = np.array([[-np.log(3)], [0.0], [np.log(3)]], dtype=np.float32)
    result = probabilities(outputs, "logit", "risk")
    assert result.shape == (3,)
    assert result.dtype == np.float64
    np.testing.assert_allclose(result, [0.25, 0.5, 0.75], rtol=1e-7)


def test_large_logits_neither_overflow_nor_warn():
    np.testing.assert_array_equal(probabilities(np.array([-1e30, 1e30]), "logit", "risk"), [0.0, 1.0])


def test_probability_is_taken_as_it_is_but_for_rounding():
    np.testing.assert_array_equal(
        probabilities(np.array([0.0, 0.3, 1 + 1e-7, -1e-9]), "probability", "risk"), [0.0, 0.3, 1.0, 0.0]
    )


@pytest.mark.parametrize("link", ["logit", "probability"])
def test_not_finite_rows_are_counted(link):
    with pytest.raises(DataError, match="risk: 2 of 4 rows are NaN or infinite") as caught:
        probabilities(np.array([0.1, np.nan, np.inf, 0.2]), link, "risk")
    assert caught.value.hint


def test_logits_called_probabilities_are_refused():
    with pytest.raises(DataError, match=r"risk: 2 of 3 rows lie outside \[0, 1\] \(-2 to 3\)") as caught:
        probabilities(np.array([-2.0, 0.5, 3.0]), "probability", "risk")
    assert 'link = "logit"' in caught.value.hint


@pytest.mark.parametrize("shape", [(3, 2), (3, 1, 1), ()])
def test_other_shapes_are_refused(shape):
    with pytest.raises(DataError, match=r"risk: must have the shape \[rows\] or \[rows, 1\]"):
        probabilities(np.zeros(shape), "logit", "risk")


def test_no_rows_and_no_numbers_are_refused():
    with pytest.raises(DataError, match="risk: there are no rows"):
        probabilities(np.zeros((0, 1)), "logit", "risk")
    with pytest.raises(DataError, match="must hold real numbers"):
        probabilities(np.array(["0.5"]), "probability", "risk")


@pytest.mark.parametrize("dtype", [bool, np.int8, np.int64, np.float32])
def test_labels_of_any_dtype(dtype):
    labels = binary_labels(np.array([[1], [0], [1]], dtype=dtype), "default")
    assert labels.dtype == np.bool_
    assert labels.tolist() == [True, False, True]


@pytest.mark.parametrize(("strange", "said"), [(2, "the first is 2"), (np.nan, "the first is nan"), (-1, "is -1")])
def test_other_labels_are_refused(strange, said):
    with pytest.raises(DataError, match="default: 1 of 3 labels are neither 0 nor 1") as caught:
        binary_labels([0, strange, 1], "default")
    assert said in caught.value.message


def test_classes_by_softmax_and_as_they_are():
    logits = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    expected = softmax(logits.astype(np.float64), axis=1)
    np.testing.assert_allclose(class_probabilities(logits, "logit", "kind"), expected, rtol=1e-12)
    rounded = expected.astype(np.float16)
    found = class_probabilities(rounded, "probability", "kind")
    np.testing.assert_allclose(found, expected, atol=1e-3)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-12)
    assert (class_probabilities([[-1e30, 1e30]], "logit", "kind") == [[0, 1]]).all()


def test_logits_of_classes_called_probabilities_are_refused():
    with pytest.raises(DataError, match=r"kind: 1 of 2 rows lie outside \[0, 1\] \(-2 to 3\)"):
        class_probabilities([[-2.0, 3.0], [0.5, 0.5]], "probability", "kind")
    with pytest.raises(DataError, match=r"kind: 1 of 2 rows do not add up to 1, the first to 0.98") as caught:
        class_probabilities([[0.5, 0.5], [0.5, 0.48]], "probability", "kind")
    assert 'link = "logit"' in caught.value.hint


def test_classes_that_are_not_finite_are_counted_by_rows():
    outputs = np.zeros((4, 3))
    outputs[1] = np.nan
    outputs[3, 2] = np.inf
    with pytest.raises(DataError, match="kind: 2 of 4 rows are NaN or infinite"):
        class_probabilities(outputs, "logit", "kind")


@pytest.mark.parametrize("shape", [(3,), (3, 1), (3, 2, 2), ()])
def test_classes_need_a_column_each(shape):
    with pytest.raises(DataError, match=r"kind: must have the shape \[rows, classes\], two classes or more"):
        class_probabilities(np.zeros(shape), "logit", "kind")


@pytest.mark.parametrize("dtype", [np.int64, np.float32, np.uint8])
def test_class_labels_of_any_dtype(dtype):
    labels = class_labels(np.array([[2], [0], [1]], dtype=dtype), 3, "labels")
    assert labels.dtype == np.int64
    assert labels.tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("strange", "said"), [(3, "is 3"), (-1, "is -1"), (1.5, "is 1.5"), (np.nan, "is nan"), (np.inf, "is inf")]
)
def test_labels_that_are_no_class_are_named(strange, said):
    with pytest.raises(DataError, match="labels: 1 of 3 labels are not whole numbers from 0 to 2") as caught:
        class_labels([0, strange, 2], 3, "labels")
    assert said in caught.value.message
    assert "3 columns" in caught.value.hint


def test_numbers_are_taken_as_they_are():
    np.testing.assert_array_equal(numbers(np.array([[1], [-2]], dtype=np.int32), "amount"), [1.0, -2.0])
    with pytest.raises(DataError, match="amount: 1 of 2 rows are NaN or infinite"):
        numbers([1.0, np.nan], "amount")
    with pytest.raises(DataError, match=r"amount: 1e\+101 is too large to be squared"):
        numbers([1.0, -1e101], "amount")
    with pytest.raises(DataError, match=r"amount: must have the shape \[rows\] or \[rows, 1\]"):
        numbers(np.zeros((3, 2)), "amount")

import numpy as np
import pytest

from compress.errors import DataError
from compress.evaluate.scores import binary_labels, probabilities


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

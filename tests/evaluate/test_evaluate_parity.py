import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from compress.errors import DataError
from compress.evaluate import Decision, parity
from compress.evaluate.parity import NO_SIGNAL_DB
from compress.evidence import to_json


def one(reference, got, **options):
    (result,) = parity({"risk": np.asarray(reference)}, {"risk": np.asarray(got)}, name="model", **options)
    return result


def test_known_figures():
    result = one([[3.0], [-4.0], [0.0]], [[3.0], [-4.0], [0.5]])
    assert (result.reference, result.output, result.rows) == ("model", "risk", 3)
    assert result.max_abs == 0.5
    assert result.reference_range == 7
    # sum ref^2 = 25, sum err^2 = 0.25: 10 log10(100) = 20 dB.
    assert result.sqnr_db == pytest.approx(20)
    assert result.label_agreement is None


def test_equal_outputs_have_no_noise():
    values = np.random.default_rng(0).normal(size=(5, 2, 3)).astype(np.float32)
    result = one(values, values.astype(np.float64))
    assert (result.max_abs, result.sqnr_db, result.rows) == (0.0, None, 5)


def test_a_reference_of_zeros_that_is_not_met_is_a_finite_worst_case():
    assert one([0.0, 0.0], [0.0, 0.1]).sqnr_db == NO_SIGNAL_DB


@pytest.mark.parametrize("scale", [1e-300, 1e-150, 1.0, 1e150, 1e300])
def test_sqnr_does_not_depend_on_the_scale(scale):
    reference, got = np.array([1.0, -2.0, 3.0]), np.array([1.01, -2.02, 2.97])
    assert one(scale * reference, scale * got).sqnr_db == pytest.approx(40, abs=1e-6)


@settings(deadline=None)
@given(
    st.integers(1, 6).flatmap(
        lambda rows: st.tuples(
            *(arrays(np.float64, (rows, 2), elements=st.floats(allow_nan=False, allow_infinity=False)),) * 2
        )
    )
)
def test_any_finite_outputs_give_figures_that_can_be_written(pair):
    result = one(*pair)
    to_json(result)
    assert (result.sqnr_db is None) == bool((pair[0] == pair[1]).all())
    assert (result.max_abs == 0) == (result.sqnr_db is None)


@pytest.mark.parametrize(
    ("reference", "got"),
    [([1.3e-164, 1.8e159], [0.0, 1.8e159]), ([5e-324, 1.7e308], [0.0, 1.7e308]), ([0.0, 5e-324], [0.0, 0.0])],
)
def test_a_tiny_difference_beside_a_huge_number_is_still_one(reference, got):
    result = one(reference, got)
    assert result.sqnr_db is not None
    assert result.max_abs > 0


def test_differences_beyond_the_largest_number_stay_finite():
    result = one([1.7e308, 1.0], [-1.7e308, 1.0])
    assert result.sqnr_db == pytest.approx(-10 * np.log10(4))
    assert result.max_abs == np.finfo(np.float64).max


def test_label_agreement_by_logit_and_by_probability():
    logits, moved = np.array([[-1.0], [0.2], [2.0], [3.0]]), np.array([[-1.0], [-0.2], [2.0], [3.0]])
    assert one(logits, moved, decisions={"risk": ("logit", 0.5)}).label_agreement == 0.75
    assert one(logits, moved, decisions={"risk": ("logit", 0.9)}).label_agreement == 1.0
    assert one([0.2, 0.6], [0.2, 0.4], decisions={"risk": ("probability", 0.5)}).label_agreement == 0.5


def test_rows_that_decide_otherwise_are_counted():
    found = one([-1.0, 1.0, 2.0, np.nan], [1.0, 1.0, -2.0, np.nan], decisions={"risk": ("logit", 0.5)})
    assert (found.flips, found.rows) == (2, 4)
    assert found.label_agreement == 1 / 3
    assert one([1.0], [1.0]).flips is None


def test_the_difference_is_also_a_share_of_the_range():
    assert one([0.0, 4.0], [0.0, 3.0]).range_share == 0.25
    assert one([2.0, 2.0], [2.0, 2.0]).range_share == 0.0
    assert one([2.0, 2.0], [2.0, 3.0]).range_share is None


def test_the_place_is_noted():
    (found,) = parity({"risk": np.ones(2)}, {"risk": np.ones(2)}, name="local", place="haswell")
    assert (found.reference, found.place) == ("local", "haswell")


def test_label_agreement_of_classes_is_that_of_the_largest_output():
    logits = np.array([[2.0, 1.0, 0.0], [0.0, 1.0, 0.9], [3.0, 1.0, 0.0], [-1.0, -2.0, 5.0]])
    moved = logits + np.array([0.0, 0.0, 0.2])
    assert one(logits, moved, decisions={"risk": Decision("multiclass")}).label_agreement == 0.75
    assert one(logits, moved, decisions={"risk": Decision("regression")}).label_agreement is None
    unusable = logits.copy()
    unusable[1, 0] = np.nan
    assert one(unusable, unusable, decisions={"risk": Decision("multiclass")}).label_agreement == 1.0


def test_a_pair_stands_for_a_binary_decision():
    logits, moved = np.array([[-1.0], [0.2]]), np.array([[-1.0], [-0.2]])
    pair, said = (
        one(logits, moved, decisions={"risk": item}) for item in (("logit", 0.5), Decision("binary", "logit"))
    )
    assert pair == said
    assert pair.label_agreement == 0.5


def test_every_output_in_the_order_of_the_reference():
    arrays_of = {"b": np.ones(3), "a": np.ones((3, 2))}
    results = parity(arrays_of, dict(reversed(arrays_of.items())), name="model")
    assert [item.output for item in results] == ["b", "a"]


def test_the_same_nan_and_infinity_count_as_equal():
    reference = np.array([1.0, np.nan, np.inf, -np.inf, 2.0])
    got = np.array([1.0, np.nan, np.inf, -np.inf, 2.5])
    result = one(reference, got, decisions={"risk": ("logit", 0.5)})
    assert (result.max_abs, result.reference_range, result.label_agreement) == (0.5, 1.0, 1.0)
    nothing = one([np.nan], [np.nan], decisions={"risk": ("logit", 0.5)})
    assert (nothing.max_abs, nothing.sqnr_db, nothing.label_agreement) == (0.0, None, None)


@pytest.mark.parametrize("strange", [np.nan, np.inf, -np.inf])
def test_nan_or_infinity_in_one_only_is_refused(strange):
    with pytest.raises(DataError, match=r"output 'risk': in 1 of 3 rows NaN or infinity stands in only one of model"):
        one([1.0, 2.0, 3.0], [1.0, strange, 3.0])
    with pytest.raises(DataError, match="in 1 of 2 rows"):
        one([strange, 1.0], [-strange if np.isinf(strange) else 0.0, 1.0])


def test_outputs_that_do_not_match_are_refused():
    a = np.ones(3)
    with pytest.raises(DataError, match="the output 'risk' of model is missing"):
        parity({"risk": a}, {}, name="model")
    with pytest.raises(DataError, match="the output 'more' is not one of model"):
        parity({"risk": a}, {"risk": a, "more": a}, name="model")
    with pytest.raises(DataError, match=r"the shape is \[3, 1\], that of model is \[3\]"):
        parity({"risk": a}, {"risk": a[:, None]}, name="model")
    with pytest.raises(DataError, match="there are no rows"):
        one(np.ones((0, 1)), np.ones((0, 1)))
    with pytest.raises(DataError, match="no outputs"):
        parity({}, {}, name="model")
    with pytest.raises(DataError, match="real numbers"):
        one(["a"], ["a"])


def test_decisions_need_an_output_that_exists_and_decides():
    with pytest.raises(DataError, match="no output 'riks'") as caught:
        one(np.ones(3), np.ones(3), decisions={"riks": ("logit", 0.5)})
    assert "risk" in caught.value.hint
    with pytest.raises(DataError, match=r"output 'risk': must have the shape \[rows\] or \[rows, 1\]"):
        one(np.ones((3, 2)), np.ones((3, 2)), decisions={"risk": ("logit", 0.5)})
    with pytest.raises(DataError, match=r"output 'risk': must have the shape \[rows, classes\]"):
        one(np.ones((3, 1)), np.ones((3, 1)), decisions={"risk": Decision("multiclass")})

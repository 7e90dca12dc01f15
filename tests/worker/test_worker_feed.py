from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.worker.errors import JobError
from compress.worker.feed import check_inputs, join, portions, zeros
from compress.worker.session import TensorSpec


@given(rows=st.integers(1, 20), batch=st.integers(1, 9))
def test_rows_dealt_to_a_fixed_batch_come_back_in_order(rows: int, batch: int) -> None:
    specs = {"x": TensorSpec((batch, 2), "float32")}
    feed = check_inputs(specs, {"x": np.arange(2 * rows, dtype=np.float32).reshape(rows, 2)})
    parts = portions(specs, feed)
    assert all(part["x"].shape == (batch, 2) for part in parts)
    assert len(parts) == -(-rows // batch)
    made = join([(batch, {"y": part["x"] * 2}) for part in parts], rows)
    np.testing.assert_array_equal(made["y"], feed["x"] * 2)


def test_a_free_batch_is_one_call() -> None:
    specs = {"x": TensorSpec((None, 2), "float32")}
    (part,) = portions(specs, {"x": np.zeros((5, 2), np.float32)})
    assert part["x"].shape == (5, 2)


def test_inputs_that_disagree_about_rows_are_refused() -> None:
    specs = {"a": TensorSpec((1, 2), "float32"), "b": TensorSpec((1, 2), "float32")}
    with pytest.raises(JobError, match="same number of rows"):
        portions(specs, {"a": np.zeros((2, 2), np.float32), "b": np.zeros((3, 2), np.float32)})
    with pytest.raises(JobError, match="no rows"):
        portions(specs, {"a": np.zeros((0, 2), np.float32), "b": np.zeros((0, 2), np.float32)})


def test_inputs_that_fix_different_batches_need_exact_sizes() -> None:
    specs = {"a": TensorSpec((1, 2), "float32"), "b": TensorSpec((4,), "float32")}
    exact = {"a": np.zeros((1, 2), np.float32), "b": np.zeros(4, np.float32)}
    assert len(portions(specs, exact)) == 1
    with pytest.raises(JobError, match="different first dimensions"):
        portions(specs, {**exact, "a": np.zeros((2, 2), np.float32)})


def test_an_output_without_a_batch_is_refused() -> None:
    with pytest.raises(JobError, match=r"'total' is \[\] for 2 rows"):
        join([(2, {"total": np.float32(3.0)})], 2)
    with pytest.raises(JobError, match=r"'y' is \[3\] for 2 rows"):
        join([(2, {"y": np.zeros(3)})], 2)


def test_integers_are_narrowed_only_within_range() -> None:
    specs = {"ids": TensorSpec((None,), "int32")}
    edge = np.array([-(2**31), 2**31 - 1])
    assert check_inputs(specs, {"ids": edge})["ids"].dtype == np.int32
    with pytest.raises(JobError, match=f"holds 0 to {2**31}; the artifact takes int32"):
        check_inputs(specs, {"ids": np.array([0, 2**31])})


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 3), np.float32), r"must be \[\?, 2\]; got \[2, 3\]"),
        (np.zeros(2, np.float32), r"must be \[\?, 2\]; got \[2\]"),
        (np.array([["a", "b"]]), "must be float32; got str"),
    ],
)
def test_what_does_not_fit_is_refused(array: np.ndarray, message: str) -> None:
    with pytest.raises(JobError, match=message):
        check_inputs({"x": TensorSpec((None, 2), "float32")}, {"x": array})


def test_floats_are_not_cut_to_integers() -> None:
    with pytest.raises(JobError, match="must be int8; got float32"):
        check_inputs({"x": TensorSpec((None,), "int8")}, {"x": np.float32([0.5])})


def test_a_missing_input_is_named_and_another_array_is_ignored() -> None:
    specs = {"x": TensorSpec((None,), "float32")}
    assert list(check_inputs(specs, {"x": np.zeros(1), "label": np.zeros(1)})) == ["x"]
    with pytest.raises(JobError) as error:
        check_inputs(specs, {"label": np.zeros(1)})
    assert "'x' is missing" in error.value.message
    assert error.value.hint == "given: label."


def test_arrays_are_made_contiguous() -> None:
    wide = np.zeros((4, 6), np.float32)[:, ::2]
    assert check_inputs({"x": TensorSpec((None, 3), "float32")}, {"x": wide})["x"].flags.c_contiguous


def test_zeros_fit_what_they_are_made_for() -> None:
    specs = {"x": TensorSpec((None, 3), "float32"), "k": TensorSpec((), "int64")}
    made = zeros(specs)
    assert {name: (array.shape, array.dtype.name) for name, array in made.items()} == {
        "x": ((1, 3), "float32"),
        "k": ((), "int64"),
    }
    assert check_inputs(specs, made)["k"].shape == ()

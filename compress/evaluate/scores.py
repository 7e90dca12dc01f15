"""Model outputs and labels, checked and brought to the one form that every metric takes."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, softmax

from compress.errors import DataError

TaskKind = Literal["binary", "multiclass", "regression"]
Link = Literal["logit", "probability"]
Floats = NDArray[np.float64]

# A float32 softmax may return 1.0000001; further outside [0, 1] it is not a probability.
ROUNDING = 1e-6
# A float16 softmax over many classes adds up to 1 within this.
SUM_ROUNDING = 1e-3
# A softmax quantized to eight bits adds up to 1 within this; a candidate's rows are scaled, and it is said.
QUANTIZED_SUM_ROUNDING = 0.05
# Larger numbers cannot be squared and added up; nothing that is predicted comes near.
LARGEST = 1e100


def probabilities(outputs: ArrayLike, link: Link, where: str) -> Floats:
    """Returns the probability of the positive class, row by row.

    Args:
        outputs: What the model returned, shape `[rows]` or `[rows, 1]`, any real dtype.
        link: `logit` applies the logistic function, `probability` takes the numbers as they are.
        where: Names the output in an error message.

    Returns:
        float64 in [0, 1], shape `[rows]`.

    Raises:
        DataError: If there are no rows, the shape is another, a number is not finite, or a probability lies
            outside [0, 1].
    """
    values = _finite(
        _column(
            outputs,
            where,
            'one number a row answers a binary task: choose the task\'s output, or set kind = "multiclass" where it '
            "has a column a class.",
        ),
        where,
    )
    if link == "logit":
        result: Floats = expit(values)
        return result
    _within_one(values[:, None], where)
    return np.clip(values, 0.0, 1.0)


def class_outputs(outputs: ArrayLike, where: str) -> Floats:
    """Returns the outputs of a multi-class task as they are, `[rows, classes]`, float64.

    Args:
        outputs: What the model returned, a column a class, any real dtype.
        where: Names the output in an error message.

    Raises:
        DataError: If there are no rows, the shape is another, or a number is not finite.
    """
    array = _real(outputs, where)
    if array.ndim != 2 or array.shape[1] < 2:
        raise DataError(
            f"{where}: must have the shape [rows, classes], two classes or more; got {list(array.shape)}",
            'a column a class answers a multi-class task; choose the task\'s output, or set kind = "binary" where it '
            "is one number a row.",
        )
    return _finite(_some_rows(array, where).astype(np.float64), where)


def class_probabilities(outputs: ArrayLike, link: Link, where: str, sum_rounding: float = SUM_ROUNDING) -> Floats:
    """Returns the probability of every class, `[rows, classes]`; each row adds up to 1.

    Args:
        outputs: What the model returned, `[rows, classes]`, any real dtype.
        link: `logit` applies softmax; `probability` takes the numbers as they are, but for rounding.
        where: Names the output in an error message.
        sum_rounding: How far from 1 a row may add up; it is scaled to 1.

    Raises:
        DataError: As `class_outputs`; and for numbers outside [0, 1], or rows that do not add up to 1 within
            `sum_rounding`.
    """
    values = class_outputs(outputs, where)
    if link == "logit":
        result: Floats = softmax(values, axis=1)
        return result
    _within_one(values, where)
    sums = values.sum(axis=1)
    away = np.flatnonzero(np.abs(sums - 1) > sum_rounding)
    if away.size:
        raise DataError(
            f"{where}: {away.size:,} of {sums.size:,} rows do not add up to 1, the first to {sums[away[0]]:g}, so they "
            'are not probabilities of classes as the task\'s link = "probability" says',
            'set link = "logit"; where a quantized softmax is the reason, let the model return logits, or keep its '
            "softmax in float32.",
        )
    positive = np.clip(values, 0.0, None)
    shares: Floats = positive / positive.sum(axis=1, keepdims=True)
    return shares


def numbers(outputs: ArrayLike, where: str) -> Floats:
    """Returns the numbers of a regression task, one a row: outputs or labels, `[rows]`, float64.

    Args:
        outputs: Shape `[rows]` or `[rows, 1]`, any real dtype.
        where: Names them in an error message.

    Raises:
        DataError: If there are no rows, the shape is another, or a number is not finite or beyond 1e100.
    """
    values = _finite(_column(outputs, where, "one number a row answers a regression task; choose its output."), where)
    largest = float(np.abs(values).max())
    if largest > LARGEST:
        raise DataError(f"{where}: {largest:g} is too large to be squared", "give the numbers in a larger unit.")
    return values


def class_labels(labels: ArrayLike, classes: int, where: str) -> NDArray[np.int64]:
    """Returns labels as the numbers of their classes, `[rows]`.

    Args:
        labels: Whole numbers from 0 to `classes` - 1, shape `[rows]` or `[rows, 1]`.
        classes: Number of classes that the output has.
        where: Names the column in an error message.

    Raises:
        DataError: If there are no rows, the shape is another, or a label is not the number of a class.
    """
    values = _column(labels, where, "give one label a row.")
    strange = values[~((values >= 0) & (values < classes) & (values == np.floor(values)))]
    if strange.size:
        raise DataError(
            f"{where}: {strange.size:,} of {values.size:,} labels are not whole numbers from 0 to {classes - 1}, the "
            f"first is {strange[0]:g}",
            f"the output has {classes} columns, one a class; map the classes to their positions, and drop rows without "
            "a label.",
        )
    return values.astype(np.int64)


def binary_labels(labels: ArrayLike, where: str) -> NDArray[np.bool_]:
    """Returns labels as booleans, True for the positive class.

    Args:
        labels: 0 and 1, or booleans, shape `[rows]` or `[rows, 1]`.
        where: Names the column in an error message.

    Raises:
        DataError: If there are no rows, the shape is another, or a value is neither 0 nor 1.
    """
    values = _column(labels, where, "give one label a row.")
    positive: NDArray[np.bool_] = values == 1
    strange = values[~(positive | (values == 0))]
    if strange.size:
        raise DataError(
            f"{where}: {strange.size:,} of {values.size:,} labels are neither 0 nor 1, the first is {strange[0]:g}",
            "a binary task takes 0 and 1; map the classes to them, and drop rows without a label.",
        )
    return positive


def same_rows(labels: int, baseline: int, candidate: int) -> None:
    """Checks that as many rows were labelled as were scored by both.

    Raises:
        DataError: If one of the numbers differs.
    """
    if not labels == baseline == candidate:
        raise DataError(
            f"{labels:,} labels, {baseline:,} baseline scores and {candidate:,} candidate scores are not of the same "
            "rows",
            "score the same split with both.",
        )


def _column(values: ArrayLike, where: str, hint: str) -> Floats:
    array = _real(values, where)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise DataError(f"{where}: must have the shape [rows] or [rows, 1]; got {list(array.shape)}", hint)
    return _some_rows(array, where).astype(np.float64)


def _real(values: ArrayLike, where: str) -> NDArray[np.generic]:
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise DataError(f"{where}: must hold real numbers; got dtype {array.dtype}", "convert the values to numbers.")
    return array


def _some_rows(array: NDArray[np.generic], where: str) -> NDArray[np.generic]:
    if not array.shape[0]:
        raise DataError(f"{where}: there are no rows", "check the split and its filters.")
    return array


def _finite(values: Floats, where: str) -> Floats:
    finite = np.isfinite(values).reshape(values.shape[0], -1).all(axis=1)
    if not finite.all():
        raise DataError(
            f"{where}: {np.count_nonzero(~finite):,} of {finite.size:,} rows are NaN or infinite",
            "look at the inputs of those rows (missing values, a range the model never saw) and at the precision: "
            "float16 overflows above 65504.",
        )
    return values


def _within_one(values: Floats, where: str) -> None:
    """Refuses rows `[rows, columns]` with a number outside [0, 1]."""
    outside = int(np.count_nonzero(((values < -ROUNDING) | (values > 1 + ROUNDING)).any(axis=1)))
    if outside:
        raise DataError(
            f"{where}: {outside:,} of {values.shape[0]:,} rows lie outside [0, 1] ({values.min():g} to "
            f'{values.max():g}), so they are not probabilities as the task\'s link = "probability" says',
            'set link = "logit".',
        )

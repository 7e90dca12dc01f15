"""Model outputs and labels, checked and brought to the one form that every metric takes."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from compress.errors import DataError

Link = Literal["logit", "probability"]

# A float32 softmax may return 1.0000001; further outside [0, 1] it is not a probability.
ROUNDING = 1e-6


def probabilities(outputs: ArrayLike, link: Link, where: str) -> NDArray[np.float64]:
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
    values = _column(outputs, where, "one number a row answers a binary task; choose the output with task.output.")
    unusable = int(np.count_nonzero(~np.isfinite(values)))
    if unusable:
        raise DataError(
            f"{where}: {unusable:,} of {values.size:,} rows are NaN or infinite",
            "look at the inputs of those rows (missing values, a range the model never saw) and at the precision: "
            "float16 overflows above 65504.",
        )
    if link == "logit":
        result: NDArray[np.float64] = expit(values)
        return result
    outside = int(np.count_nonzero((values < -ROUNDING) | (values > 1 + ROUNDING)))
    if outside:
        raise DataError(
            f"{where}: {outside:,} of {values.size:,} rows lie outside [0, 1] ({values.min():g} to {values.max():g}), "
            'so they are not probabilities as task.link = "probability" says',
            'set task.link = "logit".',
        )
    return np.clip(values, 0.0, 1.0)


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


def _column(values: ArrayLike, where: str, hint: str) -> NDArray[np.float64]:
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise DataError(f"{where}: must hold real numbers; got dtype {array.dtype}", "convert the values to numbers.")
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise DataError(f"{where}: must have the shape [rows] or [rows, 1]; got {list(array.shape)}", hint)
    if not array.size:
        raise DataError(f"{where}: there are no rows", "check the split and its filters.")
    return array.astype(np.float64)

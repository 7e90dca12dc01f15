"""One column of a table: as numbers, as text, or refused with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from compress.data.columns import at, categories_line, shown
from compress.errors import DataError, did_you_mean

_EXACT = 2**24


def as_text(series: pd.Series[Any]) -> NDArray[np.str_]:
    """Returns `[rows]` text; a missing value is `""`, a whole number has no decimal point."""
    values: Any = series
    if series.dtype.kind == "f" and bool((series.dropna() % 1 == 0).all()):
        values = series.astype("Int64")
    missing = values.isna().to_numpy()
    return np.array([("" if empty else str(value)) for value, empty in zip(values.tolist(), missing, strict=True)])


def as_plain(series: pd.Series[Any]) -> NDArray[Any]:
    """Returns `[rows]` booleans or numbers as they are, all else as text."""
    return series.to_numpy() if series.dtype.kind in "biuf" else as_text(series)


def encode(series: pd.Series[Any], values: Sequence[str], file: str, where: str) -> NDArray[np.float64]:
    """Returns `[rows]` the position of each value in `values`, NaN for a missing one.

    Raises:
        DataError: If a value is not listed, or listed twice.
    """
    column = str(series.name)
    twice = [value for value in values if values.count(value) > 1]
    if twice:
        raise DataError(f"{where}: data.categories: {column!r} lists {twice[0]!r} twice", "keep one of them.")
    text = as_text(series).tolist()
    codes = pd.Index(list(values), dtype=object).get_indexer(pd.Index(text, dtype=object))
    missing = series.isna().to_numpy()
    unknown = (codes < 0) & ~missing
    if unknown.any():
        row = int(np.argmax(unknown))
        raise DataError(
            f"{where}: data.categories: {column!r} of {file} holds {text[row]!r} in {at(row)}, which is not listed",
            f"add it to the end of the list, or correct the file; {did_you_mean(text[row], values)}",
        )
    return np.where(missing, np.nan, codes.astype(np.float64))


def as_numbers(series: pd.Series[Any], file: str) -> tuple[NDArray[np.float32], str]:
    """Returns `[rows]` numbers in float32: booleans as 0 and 1, missing values as NaN.

    Returns:
        The numbers, and a note where float32 rounds whole numbers; else an empty note.

    Raises:
        DataError: If the column holds text, dates or anything else, or a number that float32 cannot hold.
    """
    wide = _wide(series, file)
    with np.errstate(over="ignore"):
        values = wide.astype(np.float32)
    infinite = np.isinf(values)
    if infinite.any():
        raise DataError(
            f"{file}: {series.name!r} is infinite in float32 in {int(infinite.sum())} rows, first in "
            f"{at(int(np.argmax(infinite)))}: {wide[np.argmax(infinite)]}",
            "correct the values, or leave the cells empty to mark them as missing.",
        )
    rounded = series.dtype.kind in "iu" and bool((np.abs(wide) > _EXACT).any())
    return values, f"{series.name} holds whole numbers above {_EXACT:,}, which float32 rounds." if rounded else ""


def _wide(series: pd.Series[Any], file: str) -> NDArray[np.float64]:
    if series.dtype.kind in "biuf":
        return np.asarray(series, dtype=np.float64)
    if series.dtype.kind in "mM":
        raise _dates(series, file)
    present = series.dropna()
    kinds = {type(value) for value in present.tolist()}
    if all(issubclass(kind, (bool, int, float, Decimal, np.number, np.bool_)) for kind in kinds):
        result = np.full(len(series), np.nan)
        result[series.notna().to_numpy()] = [float(value) for value in present.tolist()]
        return result
    if kinds == {str}:
        raise _text(series, present, file)
    if any(kind.__module__ == "datetime" for kind in kinds):
        raise _dates(series, file)
    names = ", ".join(sorted(kind.__name__ for kind in kinds))
    raise DataError(
        f"{file}: {series.name!r} holds values of type {names}, not numbers",
        "turn it into columns of numbers or text, or add it to data.drop.",
    )


def _dates(series: pd.Series[Any], file: str) -> DataError:
    return DataError(
        f"{file}: {series.name!r} holds dates or times, which are not numbers",
        "turn them into a number (days since ...) in the file, or add the column to data.drop.",
    )


def _text(series: pd.Series[Any], present: pd.Series[Any], file: str) -> DataError:
    numbers = pd.to_numeric(present, errors="coerce").isna()
    if not numbers.all() and numbers.mean() < 0.5:
        first = str(present[numbers].iloc[0])
        return DataError(
            f"{file}: {series.name!r} holds numbers, but text in {int(numbers.sum())} of {len(series)} rows, first "
            f"{first!r} in {at(int(present.index[numbers][0]))}",
            "correct these cells, or leave them empty to mark them as missing.",
        )
    if present.str.fullmatch(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([ T].*)?").all():
        return _dates(series, file)
    distinct = sorted(set(present.tolist()))
    return DataError(
        f"{file}: {series.name!r} holds text: {shown(distinct)}",
        f"list its values in the order that the model was trained with: "
        f"{categories_line(str(series.name), distinct)}; or add it to data.drop.",
    )

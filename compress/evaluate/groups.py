"""From a column to groups of rows: its values, ranges between given edges, or quarters of many numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compress.errors import DataError

# A column of more distinct numbers is cut into quarters: a group a value would be as many small groups.
VALUES_MAX = 12
# More distinct texts than this are no groups that anybody named.
TEXTS_MAX = 50
MISSING = "missing"


@dataclass(frozen=True, eq=False)
class Groups:
    """Groups of rows by one column: `codes[rows]` is the group of each row, an index of `names`."""

    column: str
    names: tuple[str, ...]
    codes: NDArray[np.int64]
    note: str = ""


def group(column: str, values: NDArray[np.generic], bins: Sequence[float] = (), *, where: str = "segments") -> Groups:
    """Returns the groups that a column makes; every row is in one.

    1. With `bins` a number falls into the range [edge, next edge); below the first and from the last on are open.
    2. Without, each value is a group; more than 12 distinct numbers are cut at their quartiles.
    3. Missing values (NaN, empty text) are a group of their own, named `missing`.

    Args:
        column: The column's name, or the segment's.
        values: `[rows]`, numbers or text.
        bins: Ascending inner edges.
        where: What asked for it, for the message.

    Raises:
        DataError: If a column of text is to be cut into ranges, or has more than 50 distinct values.
    """
    if values.dtype.kind not in "biuf":
        return _of_text(column, values.astype(str), bins, where)
    numbers = values.astype(np.float64)
    missing = np.isnan(numbers)
    known = numbers[~missing]
    distinct = np.unique(known)
    note = ""
    edges = np.asarray(bins, dtype=np.float64)
    if not edges.size and distinct.size > VALUES_MAX:
        edges = np.unique(np.quantile(known, [0.25, 0.5, 0.75], method="closest_observation"))
        edges = edges[edges > distinct[0]]
        note = f"{distinct.size:,} distinct values, cut at the quartiles"
    if edges.size:
        codes = np.searchsorted(edges, numbers, side="right")
        names = _ranges(edges, whole=bool((distinct == np.floor(distinct)).all() and (edges == np.floor(edges)).all()))
    else:
        codes = np.searchsorted(distinct, numbers)
        names = [f"{value:g}" for value in distinct.tolist()]
    return _with_missing(column, names, codes, missing, note)


def _of_text(column: str, values: NDArray[np.str_], bins: Sequence[float], where: str) -> Groups:
    if len(bins):
        raise DataError(
            f"{where}: {column!r} holds text, which has no ranges; the first value is {str(values[0])!r}",
            "remove bins, or name a column of numbers.",
        )
    missing = values == ""
    distinct, codes = np.unique(values, return_inverse=True)
    if distinct.size > TEXTS_MAX:
        raise DataError(
            f"{where}: {column!r} has {distinct.size:,} distinct texts; a segment for each tells nothing",
            f"name a column of at most {TEXTS_MAX} values.",
        )
    names = [str(value) or MISSING for value in distinct]
    return _with_missing(column, names, codes.reshape(-1), np.zeros_like(missing), "")


def _with_missing(
    column: str, names: list[str], codes: NDArray[np.int64], missing: NDArray[np.bool_], note: str
) -> Groups:
    codes = codes.astype(np.int64)
    if missing.any():
        codes[missing] = len(names)
        names = [*names, MISSING]
    return Groups(column, tuple(names), codes, note)


def _ranges(edges: NDArray[np.float64], *, whole: bool) -> list[str]:
    """Names of the ranges between edges: `30-44` for whole numbers, `0.5 to 0.7` for others."""
    shown = [f"{edge:g}" for edge in edges.tolist()]
    between = [
        f"{low}-{high - 1:g}" if whole and high - 1 > float(low) else (low if whole else f"{low} to {high:g}")
        for low, high in zip(shown[:-1], edges[1:].tolist(), strict=True)
    ]
    return [f"below {shown[0]}", *between, f"{shown[-1]} and above"]

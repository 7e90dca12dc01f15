"""Score files: what a model answered somewhere else, one row a line, known by the ids of the recipe's data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from compress.data.files import check_file
from compress.errors import DataError, did_you_mean

ENDINGS = (".csv", ".csv.gz")


def is_score_file(path: Path) -> bool:
    """Whether a path is taken for a score file: by its ending, since text has no other mark."""
    return path.name.lower().endswith(ENDINGS)


def read_scores(
    path: Path, id_column: str, outputs: tuple[str, ...], known: NDArray[np.str_], wanted: NDArray[np.str_]
) -> dict[str, NDArray[np.float64]]:
    """Returns the scores of the wanted rows, in their order, `[rows]` or `[rows, classes]` by output.

    1. The ids must be those of the data: one that the data does not have, that occurs twice, or that is wanted and
       missing is an error. Rows that are known but not wanted (of other splits) are left out.
    2. A column of an output's name holds its scores, or columns `NAME.0, NAME.1, ...` those of its classes. A file with
       one column beside the ids answers a single output whatever the column is called.
    3. A score that is missing or not finite is an error.

    Args:
        path: The CSV.
        id_column: The column of the ids.
        outputs: What is asked for.
        known: Ids of all rows of the data.
        wanted: Ids of the rows to be scored.

    Raises:
        DataError: Naming the file, the column, the number of rows and the first of them.
    """
    check_file(path, "evaluate")
    try:
        frame = pd.read_csv(path, dtype={id_column: str}, keep_default_na=True)
    except (ValueError, UnicodeDecodeError, OSError) as error:
        hint = "write a CSV with a heading, one row a line."
        raise DataError(f"{path}: not a table of scores: {error}", hint) from error
    if id_column not in frame.columns:
        raise DataError(
            f"{path}: there is no column {id_column!r} with the ids of the rows",
            f"{did_you_mean(id_column, [str(name) for name in frame.columns])} It is the data.id of the recipe.",
        )
    order = _order(frame[id_column], known, wanted, path)
    others = [str(name) for name in frame.columns if name != id_column]
    return {name: _of_output(frame, name, others, len(outputs) == 1, path)[order] for name in outputs}


def _order(column: pd.Series[str], known: NDArray[np.str_], wanted: NDArray[np.str_], path: Path) -> NDArray[np.int64]:
    if column.isna().any():
        raise DataError(f"{path}: {int(column.isna().sum()):,} rows have no id", "give every row the id of the data.")
    ids = column.to_numpy().astype(str)
    distinct, counts = np.unique(ids, return_counts=True)
    twice = distinct[counts > 1]
    if twice.size:
        raise DataError(f"{path}: {twice.size:,} ids occur more than once, first {twice[0]!r}", "give each row once.")
    strange = np.setdiff1d(ids, known)
    if strange.size:
        raise DataError(
            f"{path}: {strange.size:,} ids are not in the recipe's data, first {strange[0]!r}",
            "score the rows of that data; are both of the same day?",
        )
    place = {value: index for index, value in enumerate(ids.tolist())}
    missing = [value for value in wanted.tolist() if value not in place]
    if missing:
        raise DataError(
            f"{path}: {len(missing):,} of {wanted.size:,} test rows have no score, first {missing[0]!r}",
            "score every row of the test split; the ids decide, not the order of the lines.",
        )
    return np.array([place[value] for value in wanted.tolist()], dtype=np.int64)


def _of_output(frame: pd.DataFrame, name: str, others: list[str], alone: bool, path: Path) -> NDArray[np.float64]:
    classes = [f"{name}.{index}" for index in range(len(others)) if f"{name}.{index}" in others]
    if name in others:
        chosen = [name]
    elif len(classes) > 1:
        chosen = classes
    elif alone and len(others) == 1:
        chosen = others
    elif alone and "score" in others:
        chosen = ["score"]
    else:
        hint = f"name it {name!r}, or score; the columns are: {', '.join(others) or 'none'}."
        raise DataError(f"{path}: no column holds the scores of {name!r}", hint)
    values = frame[chosen].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        line = int(np.argmax(bad)) + 2
        raise DataError(
            f"{path}: {int(bad.sum()):,} of {bad.size:,} scores in {', '.join(chosen)} are missing, infinite or no "
            f"number, first in line {line}",
            "a row without a score cannot be compared: score it, or say in the model what such a row gets.",
        )
    scores: NDArray[np.float64] = values[:, 0] if len(chosen) == 1 else values
    return scores

"""CSV, read as it stands: comma-separated UTF-8 text with a header, plain or gzip-compressed."""

from __future__ import annotations

import csv
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pandas as pd

from compress.data.files import open_text, reading
from compress.errors import DataError

# Cells that mean "missing", unless data.categories lists them: those of pandas.read_csv.
MISSING = frozenset(["", "NA", "N/A", "n/a", "NaN", "nan", "-NaN", "-nan", "null", "NULL", "None", "<NA>"]) | frozenset(
    ["#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "1.#IND", "1.#QNAN"]
)


def read_csv(path: Path, text: Iterable[str], listed: Mapping[str, Iterable[str]]) -> pd.DataFrame:
    """Reads a CSV file.

    Args:
        path: `.csv` or `.csv.gz`.
        text: Columns that stay text whatever they hold.
        listed: Values of a column that count as values even where they look missing (`NA`).

    Returns:
        One column per header field, in order; whole numbers, floats, booleans or text.

    Raises:
        DataError: If it is damaged, has unnamed or duplicate columns, or a row has too few or too many fields.
    """
    with reading(path, "CSV"):
        header = _header(path)
        _check_header(path, header)
        text = set(text)
        with open_text(path) as handle, warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(
                handle,
                index_col=False,
                dtype={name: str for name in header if name in text},
                na_values={name: sorted(MISSING - set(listed.get(name, ()))) for name in header},
                keep_default_na=False,
                low_memory=False,
            )
        if list(frame.columns) != header:
            raise DataError(f"{path}: the header is not one line of {len(header)} names", "name every column in it.")
        # A row that is cut off has a missing last field; pandas says nothing.
        if len(header) > 1 and frame[header[-1]].isna().any():
            _check_fields(path, len(header))
    return frame


def column_names(path: Path) -> list[str]:
    """Returns the header of a CSV file, without reading its rows.

    Raises:
        DataError: If there is none.
    """
    with reading(path, "CSV"):
        return _header(path)


def check_names(path: Path, names: Iterable[str]) -> None:
    """Checks that no two columns have the same name.

    Raises:
        DataError: Naming the first duplicate.
    """
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{path}: duplicate column {twice[0]!r}", "rename one of them.")


def _check_header(path: Path, header: list[str]) -> None:
    if len(header) == 1 and (";" in header[0] or "\t" in header[0]):
        raise DataError(
            f"{path}: one single column named {header[0]!r}", "fields are separated by commas; convert the file."
        )
    if "" in header:
        raise DataError(
            f"{path}: column {header.index('') + 1} of {len(header)} has no name",
            "name it; a pandas index is left out by to_csv(..., index=False).",
        )
    check_names(path, header)


def _header(path: Path) -> list[str]:
    for _, fields in _lines(path):
        return fields
    raise DataError(f"{path}: no header and no rows", "is this the right file?")


def _check_fields(path: Path, expected: int) -> None:
    for line, fields in _lines(path):
        if len(fields) != expected:
            raise DataError(
                f"{path}: line {line} has {len(fields)} fields, the header has {expected}",
                "the file may be cut off; copy it again.",
            )


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of every record that is not blank."""
    with open_text(path) as handle:
        reader = csv.reader(iter(lambda: handle.readline(1 << 20), ""))
        for fields in reader:
            if len(fields) > 1 or (fields and fields[0].strip()):
                yield reader.line_num, fields

"""Which column (or array) means what, and what ids, labels and groups become."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.errors import DataError, did_you_mean
from compress.recipe import DataConfig

_LONGEST_ID = 256


def check_columns(config: DataConfig, known: Iterable[str], file: str, where: str) -> None:
    """Checks that every column a recipe names exists, and that none means two things that exclude each other.

    Args:
        config: `[data]` of the recipe.
        known: Names in the file.
        file: The file, for the message.
        where: The recipe's name, for the message.

    Raises:
        DataError: Naming the key, the column and the closest known one.
    """
    known = list(known)
    for key, column in _named(config):
        if column not in known:
            raise DataError(f"{where}: {key}: {file} has no column {column!r}", did_you_mean(column, known))
    labels = set(config.label_columns.values())
    for key, column in _input_columns(config):
        if column in labels:
            raise DataError(f"{where}: {key}: {column!r} is a label; the model would see the answer", "remove it.")
        if column == config.id:
            raise DataError(f"{where}: {key}: {column!r} is the id of the rows, not a feature", "remove it.")
        if column in config.drop:
            raise DataError(f"{where}: {key}: {column!r} is also in data.drop", "keep it in one of them.")
    for column in config.drop:
        if column in labels or column == config.id:
            raise DataError(f"{where}: data.drop: {column!r} is also the label or the id", "keep it in one of them.")


def default_inputs(config: DataConfig, known: Iterable[str]) -> list[str]:
    """Returns the names that mean nothing else: not id, label, split column or dropped. Sensitive ones stay."""
    taken = {config.id, config.split.column, *config.label_columns.values(), *config.drop}
    return [name for name in known if name not in taken]


def refuse_keys(config: DataConfig, keys: Iterable[str], why: str, where: str) -> None:
    """Raises if a recipe sets keys that the kind of source does not read.

    Raises:
        DataError: Naming the first such key.
    """
    for key in keys:
        if getattr(config, key):
            raise DataError(f"{where}: data.{key} means nothing for {config.source}: {why}", f"remove data.{key}.")


def as_ids(values: NDArray[Any] | None, rows: int, file: str) -> NDArray[np.str_]:
    """Returns `[rows]` ids as text; without values, `row 0`, `row 1`, ...

    Text, so that `007` stays itself, large numbers keep all digits, and a row's hash is that of what the file says.

    Raises:
        DataError: If an id is missing, occurs twice, or is neither text nor a whole number.
    """
    if values is None:
        return np.array([f"row {row}" for row in range(rows)])
    if values.ndim != 1 or values.dtype.kind not in "iufUS":
        raise DataError(
            f"{file}: ids are {values.dtype} of shape {list(values.shape)}", "ids are one text or whole number a row."
        )
    if values.dtype.kind == "f":
        whole = np.isfinite(values) & (np.trunc(values) == values) & (np.abs(values) < 2**53)
        if not whole.all():
            row = int(np.argmin(whole))
            raise DataError(
                f"{file}: the id {values[row]} in {at(row)} is not a whole number", "store ids as integers or text."
            )
        values = values.astype(np.int64)
    texts = [str(value) for value in (values.astype(str) if values.dtype.kind == "S" else values).tolist()]
    first: dict[str, int] = {}
    for row, text in enumerate(texts):
        if not text or len(text) > _LONGEST_ID:
            problem = f"is longer than {_LONGEST_ID} characters" if text else "is missing"
            raise DataError(f"{file}: the id in {at(row)} {problem}", "every row needs a short id of its own.")
        if first.setdefault(text, row) != row:
            raise DataError(
                f"{file}: the id {text!r} occurs twice, in rows {first[text]} and {row} (the first is row 0)",
                "an id belongs to one row; remove duplicates, or name another column in data.id.",
            )
    return np.array(texts)


def as_label(values: NDArray[Any], name: str, file: str) -> NDArray[Any]:
    """Returns `[rows]` label values: `int64` where all are whole numbers or booleans, else `float64`.

    Raises:
        DataError: If they are not one number a row, if one is missing or infinite, or if all are equal.
    """
    if values.ndim != 1:
        raise DataError(
            f"{file}: the label {name!r} has shape {list(values.shape)}", "one value a row: use array.reshape(-1)."
        )
    if values.dtype.kind not in "biuf":
        distinct = sorted({str(value) for value in values.tolist()})
        raise DataError(
            f"{file}: the label {name!r} holds text: {shown(distinct)}",
            f"write numbers; in a table, {categories_line(name, distinct)} maps them to 0, 1, ... in the order given.",
        )
    if values.dtype.kind == "f":
        bad = ~np.isfinite(values)
        if bad.any():
            raise DataError(
                f"{file}: the label {name!r} is missing or infinite in {int(bad.sum())} of {len(values)} rows, "
                f"first in {at(int(np.argmax(bad)))}",
                "remove rows without a label.",
            )
    numbers = values.astype(np.int64) if values.dtype.kind == "b" else values
    whole = bool(((np.trunc(numbers) == numbers) & (np.abs(numbers) < 2**63)).all())
    result = numbers.astype(np.int64 if whole else np.float64)
    if len(np.unique(result)) < 2:
        raise DataError(
            f"{file}: constant label: {name!r} is {result[0]} in all {len(result)} rows",
            "quality needs rows of at least two classes.",
        )
    return result


def as_group(values: NDArray[Any], name: str, file: str) -> NDArray[Any]:
    """Returns `[rows]` values that segments are made of: numbers as they are, all else as text.

    Raises:
        DataError: If they are not one value a row.
    """
    if values.ndim != 1:
        raise DataError(
            f"{file}: the sensitive column {name!r} has shape {list(values.shape)}", "give one value a row."
        )
    return values if values.dtype.kind in "biufU" else values.astype(str)


def check_lengths(arrays: Mapping[str, NDArray[Any]], file: str) -> int:
    """Returns the number of rows that all arrays share.

    Raises:
        DataError: If there is no array, no row, or lengths differ.
    """
    lengths = {name: values.shape[0] if values.ndim else None for name, values in arrays.items()}
    scalars = [name for name, length in lengths.items() if length is None]
    if scalars:
        raise DataError(f"{file}: {scalars[0]!r} is a single value, not rows", "the first axis of an array is the row.")
    if len(set(lengths.values())) > 1:
        text = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise DataError(f"{file}: arrays of different lengths: {text}", "every array needs one entry a row.")
    rows = next(iter(lengths.values()), 0)
    if not rows:
        raise DataError(f"{file}: no rows", "is this the right file?")
    return rows


def stratify_label(
    config: DataConfig, labels: Mapping[str, NDArray[Any]], name: str | None, where: str
) -> NDArray[Any] | None:
    """Returns the label that `stratified` deals by: the named one, else the only one, else None.

    Raises:
        DataError: If several labels could be meant.
    """
    if config.split.by != "stratified" or not labels:
        return None
    if name is None and len(labels) > 1:
        raise DataError(
            f'{where}: data.split.by = "stratified" with several labels: {", ".join(labels)}', "set task.label."
        )
    chosen = next(iter(labels)) if name is None else name
    if chosen not in labels:
        raise DataError(f"{where}: task.label: there is no label {chosen!r}", did_you_mean(chosen, labels))
    return labels[chosen]


def position_note(config: DataConfig) -> tuple[str, ...]:
    """Returns what must be said when rows have no ids."""
    text = "rows have no id and are known by their position"
    if config.split.by == "hash":
        text += "; the hash split changes when rows are inserted or reordered"
    return (f"{text}.",)


def at(row: int) -> str:
    """Names a row in a message."""
    return f"row {row} (the first is row 0)"


def shown(values: Iterable[str]) -> str:
    """Returns up to 10 quoted values, and how many more there are."""
    values = list(values)
    more = f" and {len(values) - 10} more" if len(values) > 10 else ""
    return ", ".join(repr(value) for value in values[:10]) + more


def categories_line(column: str, values: Iterable[str]) -> str:
    """Returns the line for `[data.categories]` that lists the values of a column; only the first 10 of many."""
    values = list(values)
    key = column if re.fullmatch(r"[A-Za-z0-9_-]+", column) else json.dumps(column, ensure_ascii=False)
    listed = ", ".join(json.dumps(value, ensure_ascii=False) for value in values[:10])
    return f"[data.categories] {key} = [{listed}{', ...' if len(values) > 10 else ''}]"


def _named(config: DataConfig) -> Iterator[tuple[str, str]]:
    """Every column that a recipe names, with the key that does."""
    for name, column in config.label_columns.items():
        yield (f"data.labels.{name}" if config.labels else "data.label"), column
    if config.id is not None:
        yield "data.id", config.id
    yield from _input_columns(config)
    for key in ("drop", "sensitive", "categories"):
        for column in getattr(config, key):
            yield f"data.{key}", column
    if config.split.column is not None:
        yield "data.split.column", config.split.column


def _input_columns(config: DataConfig) -> Iterator[tuple[str, str]]:
    for column in config.features:
        yield "data.features", column
    for name, columns in config.inputs.items():
        for column in (columns,) if isinstance(columns, str) else columns:
            yield f"data.inputs.{name}", column

"""Tables: `.csv`, `.csv.gz` and `.parquet`.

Without `data.inputs` there is one input, named `features`, `[columns]` float32; a model whose only input has another
name gets it through `Dataset.renamed`. Without `data.features` it is made of every column that is not id, label,
split column or dropped. Sensitive columns are features too, unless they are dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from compress.data.base import Dataset, Reader
from compress.data.columns import (
    as_group,
    as_ids,
    as_label,
    at,
    check_columns,
    check_lengths,
    default_inputs,
    position_note,
    stratify_label,
)
from compress.data.csvfile import MISSING, read_csv
from compress.data.memory import MemoryReader, fill_missing, missing_note
from compress.data.parquet import read_parquet
from compress.data.series import as_numbers, as_plain, as_text, encode
from compress.data.split import make_splits
from compress.data.text import TextReader, check_text, cut_note, read_texts, table_keys
from compress.errors import DataError
from compress.recipe import DataConfig

FEATURES = "features"


def load_table(
    config: DataConfig, path: Path, *, where: str, seed_label: str | None, tokenizer: Path | None = None
) -> Dataset:
    """Reads a table into a dataset.

    Args:
        config: `[data]` of the recipe.
        path: The file.
        where: The recipe's name, for the message.
        seed_label: The label that a stratified split deals by; None for the only one.
        tokenizer: The folder of the tokenizer; read only with `data.text`.

    Raises:
        DataError: If the file, a column, a label, a text or the split cannot be used.
    """
    frame = _read(config, path)
    if config.text is not None:
        check_text(config, config.text, frame.columns, str(path), where)
    check_columns(config if config.text is None else table_keys(config), frame.columns, str(path), where)
    rows = check_lengths({"rows": frame.index.to_numpy()}, str(path))
    reader, notes = _reader(config, frame, str(path), where, tokenizer)
    ids = as_ids(None if config.id is None else _ids(frame[config.id]), rows, str(path))
    labels = {
        name: as_label(_label(config, frame[column], str(path), where), column, str(path))
        for name, column in config.label_columns.items()
    }
    splits = make_splits(
        config.split,
        ids,
        column=_split_column(config, frame),
        label=stratify_label(config, labels, seed_label, where),
        where=where,
    )
    if isinstance(reader, TextReader):
        notes = (cut_note(reader, splits),)
    return Dataset(
        source=config.source,
        ids=ids,
        reader=reader,
        labels=labels,
        sensitive={name: as_group(as_plain(frame[name]), name, str(path)) for name in config.sensitive},
        splits=splits,
        notes=(position_note(config) if config.id is None else ()) + notes,
        categories=dict(config.categories),
    )


def _read(config: DataConfig, path: Path) -> pd.DataFrame:
    if path.name.lower().endswith(".parquet"):
        return read_parquet(path)
    text = {*config.categories, *((config.id,) if config.id is not None else ())}
    if config.split.by == "column" and config.split.column is not None:
        text.add(config.split.column)
    listed: dict[str, Iterable[str]] = dict(config.categories)
    if config.text is not None:
        # A message may well say "null"; only an empty cell is no text.
        text.add(config.text.column)
        listed[config.text.column] = MISSING - {""}
    return read_csv(path, text, listed)


def _reader(
    config: DataConfig, frame: pd.DataFrame, file: str, where: str, tokenizer: Path | None
) -> tuple[Reader, tuple[str, ...]]:
    """What feeds the model, and the notes on what became of its values."""
    if config.text is not None:
        return read_texts(config, config.text, frame, file, tokenizer, where), ()
    inputs, notes = _inputs(config, frame, file, where)
    return MemoryReader(inputs), notes


def _inputs(
    config: DataConfig, frame: pd.DataFrame, file: str, where: str
) -> tuple[dict[str, NDArray[np.float32]], tuple[str, ...]]:
    """The model's inputs, and the notes on what became of their values."""
    notes: list[str] = []
    columns: dict[str, tuple[str, ...] | str] = dict(config.inputs)
    if not columns:
        chosen = config.features or tuple(default_inputs(config, frame.columns))
        index = [name for name in chosen if re.fullmatch(r"__index_level_\d+__", name)] if not config.features else []
        if index:
            notes.append(f"the stored pandas index {', '.join(index)} is not a feature.")
        columns = {FEATURES: tuple(name for name in chosen if name not in index)}
    counts: dict[str, str] = {}
    inputs: dict[str, NDArray[np.float32]] = {}
    for name, members in columns.items():
        listed = (members,) if isinstance(members, str) else members
        if not listed:
            raise DataError(f"{where}: data: no column is left for the input {name!r}", "name some in data.features.")
        if len(set(listed)) != len(listed):
            twice = next(column for column in listed if listed.count(column) > 1)
            raise DataError(f"{where}: data: the input {name!r} names {twice!r} twice", "keep one of them.")
        matrix = np.empty((len(frame), len(listed)), np.float32)
        for position, column in enumerate(listed):
            values, note = _feature(config, frame[column], file, where)
            matrix[:, position], counts[column] = fill_missing(values, column, config.missing, file, where)
            notes.extend([note] if note and note not in notes else [])
        inputs[name] = matrix[:, 0].copy() if isinstance(members, str) else matrix
    return inputs, (*notes, *missing_note(list(counts.values()), config.missing))


def _feature(config: DataConfig, series: pd.Series[Any], file: str, where: str) -> tuple[NDArray[np.float32], str]:
    if series.name in config.categories:
        return encode(series, config.categories[str(series.name)], file, where).astype(np.float32), ""
    return as_numbers(series, file)


def _label(config: DataConfig, series: pd.Series[Any], file: str, where: str) -> NDArray[Any]:
    missing = series.isna().to_numpy()
    if missing.any():
        raise DataError(
            f"{file}: the label {series.name!r} is missing in {int(missing.sum())} of {len(series)} rows, first in "
            f"{at(int(np.argmax(missing)))}",
            "remove rows without a label.",
        )
    if series.name in config.categories:
        return encode(series, config.categories[str(series.name)], file, where)
    return as_plain(series)


def _ids(series: pd.Series[Any]) -> NDArray[Any]:
    return series.to_numpy() if series.dtype.kind in "iuf" else as_text(series)


def _split_column(config: DataConfig, frame: pd.DataFrame) -> NDArray[Any] | None:
    if config.split.column is None:
        return None
    series = frame[config.split.column]
    return series.to_numpy() if series.dtype.kind in "biufM" else as_text(series)

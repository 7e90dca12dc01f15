"""Text: a column of a table and a tokenizer, as the ids that a model takes.

`[data.inputs]` maps each model input to what feeds it: `input_ids`, `attention_mask` (1 for a token, 0 for padding)
or `token_type_ids`. Without it the model gets `input_ids` and `attention_mask`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from compress.data.base import Dataset, TensorSpec
from compress.data.columns import at, refuse_keys
from compress.data.text_tokenizer import FILE, KINDS, TextTokenizer, load_tokenizer
from compress.errors import DataError, did_you_mean
from compress.recipe import DataConfig, TextConfig

DEFAULT_INPUTS = {kind: kind for kind in KINDS[:2]}


@dataclass(frozen=True, eq=False)
class TextReader:
    """Texts, tokenized when they are asked for.

    `inputs` maps a model input to one of `text_tokenizer.KINDS`; each is int64 `[length]`.
    """

    texts: Sequence[str]
    tokenizer: TextTokenizer
    inputs: Mapping[str, str]

    def signature(self) -> tuple[TensorSpec, ...]:
        """Returns name, shape of one row and dtype of each input."""
        return tuple(TensorSpec(name, (self.tokenizer.length,), "int64") for name in self.inputs)

    def read(self, rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Returns `[len(rows), length]` of each input."""
        made = self.tokenizer.encode([self.texts[row] for row in rows.tolist()])
        return {name: made[kind] for name, kind in self.inputs.items()}

    def digest(self) -> str:
        """Returns the SHA-256 of what decides all ids: the texts, the tokenizer, and what feeds which input."""
        digest = hashlib.sha256(json.dumps(dict(self.inputs)).encode())
        digest.update(hashlib.sha256(self.tokenizer.definition).digest())
        for text in self.texts:
            content = text.encode()
            digest.update(len(content).to_bytes(8, "little") + content)
        return digest.hexdigest()

    def attachments(self) -> dict[str, bytes]:
        """Returns what must ship beside the model: the tokenizer, cutting and padding included."""
        return {FILE: self.tokenizer.definition}


def text_reader(dataset: Dataset) -> TextReader | None:
    """Returns the reader of texts behind a dataset, None where its inputs are something else."""
    reader: Any = dataset.reader
    while not isinstance(reader, TextReader):
        reader = getattr(reader, "inner", None)
        if reader is None:
            return None
    return reader


def check_text(config: DataConfig, text: TextConfig, known: Iterable[str], file: str, where: str) -> None:
    """Checks what `[data.text]` and `[data.inputs]` say, before anything is tokenized.

    Raises:
        DataError: If the column does not exist or means something else, or an input is fed with something unknown.
    """
    known = list(known)
    if text.column not in known:
        raise DataError(
            f"{where}: data.text.column: {file} has no column {text.column!r}", did_you_mean(text.column, known)
        )
    refuse_keys(config, ("features",), "with [data.text] the model gets what the tokenizer gives", where)
    meanings = {
        "the label": config.label_columns.values(),
        "the id": [config.id],
        "the split": [config.split.column],
        "dropped": config.drop,
        "in data.categories": config.categories,
    }
    for meaning, columns in meanings.items():
        if text.column in columns:
            raise DataError(f"{where}: data.text.column: {text.column!r} is {meaning} too", "name the column of text.")
    for name, kind in config.inputs.items():
        if kind not in KINDS:
            raise DataError(
                f"{where}: data.inputs.{name}: a tokenizer does not give {kind!r}",
                f'name one as text ({name} = "input_ids"); known: {", ".join(KINDS)}.',
            )


def table_keys(config: DataConfig) -> DataConfig:
    """Returns `[data]` as far as it names columns: with `[data.text]`, `inputs` names what the tokenizer gives."""
    return config.model_copy(update={"inputs": {}})


def read_texts(
    config: DataConfig, text: TextConfig, frame: pd.DataFrame, file: str, folder: Path | None, where: str
) -> TextReader:
    """Makes the reader of a table's texts.

    Args:
        config: `[data]` of the recipe.
        text: Its `[data.text]`.
        frame: The table.
        file: Its name, for the message.
        folder: Where the tokenizer lies; None if neither the recipe nor the model names one.
        where: The recipe's name, for the message.

    Raises:
        DataError: If a cell is empty or no text, or the tokenizer cannot be used.
        MissingPackageError: If the package `tokenizers` is not installed.
    """
    if folder is None:
        raise DataError(
            f"{where}: data.text.tokenizer: nothing says which tokenizer the model was trained with",
            "name the folder that holds its tokenizer.json.",
        )
    inputs = {name: str(kind) for name, kind in config.inputs.items()} or DEFAULT_INPUTS
    return TextReader(_texts(frame[text.column], file), load_tokenizer(folder, text.length), inputs)


def cut_note(reader: TextReader, splits: Mapping[str, NDArray[np.int64]]) -> str:
    """Returns what a reader of the figures must know about the length: how many texts are cut, and the longest."""
    counts = reader.tokenizer.lengths(reader.texts)
    length, longest = reader.tokenizer.length, int(counts.max(initial=0))
    cut = counts > length
    if not cut.any():
        return f"no text is cut: the longest has {longest} of {length} tokens."
    test = splits["test"]
    return (
        f"{int(cut.sum()):,} of {len(counts):,} texts are cut at {length} tokens "
        f"({int(cut[test].sum()):,} of the {len(test):,} test rows); the longest has {longest:,}."
    )


def _texts(series: pd.Series[Any], file: str) -> list[str]:
    values, missing = series.tolist(), series.isna().to_numpy()
    for row, value in enumerate(values):
        if not missing[row] and not isinstance(value, str):
            raise DataError(
                f"{file}: {series.name!r} holds {value!r} in {at(row)}, a {type(value).__name__} and no text",
                "name the column of text in data.text.column.",
            )
    empty = np.array([bool(gone) or not value.strip() for value, gone in zip(values, missing, strict=True)])
    if empty.any():
        raise DataError(
            f"{file}: {series.name!r} is empty in {int(empty.sum())} of {len(values)} rows, first in "
            f"{at(int(np.argmax(empty)))}",
            "remove rows without a text.",
        )
    if pd.to_numeric(series, errors="coerce").notna().all():
        raise DataError(
            f"{file}: {series.name!r} holds only numbers, such as {values[0]!r}", "name the column of text."
        )
    return [str(value) for value in values]

"""Arrays that are at hand, assembled into a dataset: what `.npz` files and a user's function have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from compress.data.base import Dataset
from compress.data.columns import as_group, as_ids, as_label, check_lengths, position_note, stratify_label
from compress.data.memory import MemoryReader, as_input, fill_missing, missing_note
from compress.data.split import make_splits
from compress.errors import DataError
from compress.recipe import DataConfig


@dataclass(frozen=True, eq=False)
class Parts:
    """Arrays by what they mean; each has one entry a row along its first axis."""

    inputs: Mapping[str, NDArray[Any]]
    labels: Mapping[str, NDArray[Any]]
    ids: NDArray[Any] | None
    sensitive: Mapping[str, NDArray[Any]]
    split_column: NDArray[Any] | None


def assemble(config: DataConfig, parts: Parts, file: str, *, where: str, seed_label: str | None) -> Dataset:
    """Checks the arrays, treats missing values and deals the rows.

    Args:
        config: `[data]` of the recipe.
        parts: The arrays.
        file: Where they are from, for the message.
        where: The recipe's name, for the message.
        seed_label: The label that a stratified split deals by; None for the only one.

    Raises:
        DataError: If lengths differ, or a dtype, a label, the ids or the split cannot be used.
    """
    if not parts.inputs:
        raise DataError(f"{file}: no array is left for the model's inputs", "name some in data.inputs.")
    arrays = {**parts.inputs, **{f"label {name}": values for name, values in parts.labels.items()}}
    arrays |= {f"sensitive {name}": values for name, values in parts.sensitive.items()}
    arrays |= {} if parts.ids is None else {"ids": parts.ids}
    arrays |= {} if parts.split_column is None else {"split column": parts.split_column}
    rows = check_lengths(arrays, file)
    inputs, counts = {}, []
    for name, values in parts.inputs.items():
        inputs[name], count = fill_missing(as_input(values, name, file), name, config.missing, file, where)
        counts.append(count)
    ids = as_ids(parts.ids, rows, file)
    labels = {name: as_label(values, name, file) for name, values in parts.labels.items()}
    splits = make_splits(
        config.split,
        ids,
        column=parts.split_column,
        label=stratify_label(config, labels, seed_label, where),
        where=where,
    )
    return Dataset(
        source=config.source,
        ids=ids,
        reader=MemoryReader(inputs),
        labels=labels,
        sensitive={name: as_group(values, name, file) for name, values in parts.sensitive.items()},
        splits=splits,
        notes=(position_note(config) if parts.ids is None else ()) + missing_note(counts, config.missing),
    )

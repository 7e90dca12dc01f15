"""A user's own function: `file.py:function`, called with `data.arguments`.

It returns `{"inputs": {name: array}, "labels": {name: array}, "ids": array or None, "sensitive": {name: array} or
None, "splits": array or None}`; all but `inputs` may be left out. `data.label`, `data.labels` and `data.sensitive`
choose among what it returns; without them all of it counts. `splits` names the split of each row and is read with
`data.split.by = "column"`, `data.split.column = "splits"`; any split column may also be one of the labels, groups or
inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.data.base import Dataset
from compress.data.columns import refuse_keys
from compress.data.parts import Parts, assemble
from compress.errors import DataError, did_you_mean
from compress.recipe import DataConfig
from compress.userfunction import call_function, load_function

SPLIT_NAMES = "splits"
_KEYS = ("inputs", "labels", "ids", "sensitive", SPLIT_NAMES)


def load_function_data(config: DataConfig, folder: Path, *, where: str, seed_label: str | None) -> Dataset:
    """Calls a user's function and makes a dataset of what it returns.

    Args:
        config: `[data]` of the recipe.
        folder: The folder of the recipe.
        where: The recipe's name, for the message.
        seed_label: The label that a stratified split deals by; None for the only one.

    Raises:
        DataError: If the function is missing, fails, or returns something else.
    """
    refuse_keys(
        config,
        ("features", "inputs", "categories", "drop", "id"),
        "the function returns inputs and ids under their final names",
        where,
    )
    key = f"{where}: data.source"
    function = load_function(config.source, folder, key, DataError)
    returned = call_function(function, config.arguments, key, DataError)
    parts = _parts(config, returned, where)
    return assemble(config, parts, config.source, where=where, seed_label=seed_label)


def _parts(config: DataConfig, returned: Any, where: str) -> Parts:
    if not isinstance(returned, Mapping):
        raise DataError(f"{config.source}: returned {type(returned).__name__}, not a dictionary", _shape())
    unknown = [key for key in returned if key not in _KEYS]
    if unknown:
        raise DataError(
            f"{config.source}: returned an unknown key {unknown[0]!r}", did_you_mean(str(unknown[0]), _KEYS)
        )
    inputs = _arrays(config, returned, "inputs")
    labels = _arrays(config, returned, "labels")
    sensitive = _arrays(config, returned, "sensitive")
    ids = returned.get("ids")
    return Parts(
        inputs=inputs,
        labels={
            name: _pick(labels, label, "data.label", config, where)
            for name, label in (config.label_columns or {name: name for name in labels}).items()
        },
        ids=None if ids is None else _array(config, "ids", ids),
        sensitive={
            name: _pick(sensitive, name, "data.sensitive", config, where) for name in config.sensitive or sensitive
        },
        split_column=_split_column(config, returned, {**inputs, **labels, **sensitive}, where),
    )


def _split_column(
    config: DataConfig, returned: Mapping[str, Any], known: Mapping[str, NDArray[Any]], where: str
) -> NDArray[Any] | None:
    names = returned.get(SPLIT_NAMES)
    if names is not None:
        # Whoever says which rows are for training must not see them tested without a word.
        if config.split.by != "column":
            raise DataError(
                f'{where}: data.split.by = "{config.split.by}" deals the rows, but {config.source} returned their '
                f"{SPLIT_NAMES}",
                f'set data.split.by = "column" and data.split.column = "{SPLIT_NAMES}", or do not return them.',
            )
        known = {**known, SPLIT_NAMES: _array(config, SPLIT_NAMES, names)}
    if config.split.column is None:
        return None
    return _pick(known, config.split.column, "data.split.column", config, where)


def _arrays(config: DataConfig, returned: Mapping[str, Any], key: str) -> dict[str, NDArray[Any]]:
    group = returned.get(key)
    if group is None:
        return {}
    if not isinstance(group, Mapping) or not all(isinstance(name, str) for name in group):
        raise DataError(f"{config.source}: {key!r} is not a dictionary from name to array", _shape())
    return {name: _array(config, f"{key}.{name}", values) for name, values in group.items()}


def _array(config: DataConfig, name: str, values: Any) -> NDArray[Any]:
    try:
        array = np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:
        raise DataError(f"{config.source}: {name} is not an array: {error}", _shape()) from error
    if array.dtype.kind == "O" and all(isinstance(value, str) for value in array.flat):
        array = array.astype(str)
    if array.dtype.hasobject:
        raise DataError(
            f"{config.source}: {name} holds Python objects",
            "convert it: numpy.asarray(values, dtype=numpy.float32), or .astype(str) for text.",
        )
    return array


def _pick(known: Mapping[str, NDArray[Any]], name: str, key: str, config: DataConfig, where: str) -> NDArray[Any]:
    if name not in known:
        raise DataError(f"{where}: {key}: {config.source} returned no {name!r}", did_you_mean(name, known))
    return known[name]


def _shape() -> str:
    return (
        'return {"inputs": {name: array}, "labels": {name: array}, "ids": array, "sensitive": {name: array}, '
        '"splits": array}; all but "inputs" may be left out.'
    )

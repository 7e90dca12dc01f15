"""Rows without labels, from a second file like the first: what a student may learn from beside the train split."""

from __future__ import annotations

import zipfile
from pathlib import Path

from compress.data.base import Dataset
from compress.data.csvfile import column_names
from compress.data.files import check_file, reading
from compress.errors import DataError
from compress.recipe import DataConfig, SplitConfig
from compress.registry import require

_TABLES = (".csv", ".csv.gz", ".parquet", ".npz")


def without_labels(config: DataConfig, source: str, folder: Path, where: str) -> DataConfig:
    """Returns `[data]` of the second file: what means anything but a feature in the first means nothing here.

    Args:
        config: `[data]` of the recipe.
        source: The second file, relative to `folder`.
        folder: The folder of the recipe.
        where: The recipe's name, for the message.

    Raises:
        DataError: If it is no table and no `.npz`, or cannot be read.
    """
    if not source.lower().endswith(_TABLES):
        raise DataError(f"{where}: data.unlabelled: {source!r} is no table", f"name a {', '.join(_TABLES)} file.")
    path = folder / source
    check_file(path, where)
    meant = {*config.label_columns.values(), config.id, config.split.column, *config.drop}
    dropped = tuple(name for name in _names(path) if name in meant)
    alone: dict[str, object] = {
        "label": None,
        "labels": {},
        "id": None,
        "sensitive": (),
        "unlabelled": None,
        "arguments": {},
    }
    # All rows are used, whatever split they would be in; only the form wants two that are not empty.
    split = SplitConfig(by="random", train=0.0, calibration=0.5, validation=0.0, test=0.5)
    return config.model_copy(update={**alone, "source": source, "drop": dropped, "split": split})


def check_alike(dataset: Dataset, unlabelled: Dataset, where: str) -> None:
    """Checks that rows without labels feed the model the same inputs.

    Raises:
        DataError: Naming the input that differs.
    """
    wanted = {item.name: item for item in dataset.reader.signature()}
    given = {item.name: item for item in unlabelled.reader.signature()}
    for name in sorted({*wanted, *given}):
        if wanted.get(name) != given.get(name):
            shown = [
                f"{list(item.shape)} {item.dtype}" if item else "absent" for item in (wanted.get(name), given.get(name))
            ]
            raise DataError(
                f"{where}: data.unlabelled: the input {name!r} is {shown[0]} in {dataset.source}, {shown[1]} in "
                f"{unlabelled.source}",
                "both files need the same features; name them in data.features or data.inputs.",
            )


def _names(path: Path) -> list[str]:
    with reading(path, "a table"):
        if path.name.lower().endswith(".npz"):
            with zipfile.ZipFile(path) as archive:
                return [name.removesuffix(".npy") for name in archive.namelist()]
        if path.name.lower().endswith(".parquet"):
            return list(require("pyarrow.parquet", why="a .parquet file").read_schema(path).names)
        return column_names(path)

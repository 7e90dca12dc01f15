"""The one entry: what `[data]` of a recipe says, as a `Dataset`."""

from __future__ import annotations

from pathlib import Path

from compress.data.base import Dataset
from compress.data.files import check_file
from compress.errors import DataError
from compress.recipe import DataConfig

ENDINGS = (".csv", ".csv.gz", ".parquet", ".npz")


def load_dataset(
    config: DataConfig, folder: Path, *, where: str = "recipe.toml", seed_label: str | None = None
) -> Dataset:
    """Reads the rows that a recipe names.

    Args:
        config: `[data]` of the recipe.
        folder: The folder of the recipe; the source is relative to it.
        where: The recipe's name, for the message.
        seed_label: The label that a stratified split deals by (`task.label`); None for the only one.

    Raises:
        DataError: If the file, a column, a label or the split cannot be used; the message names it.
        MissingPackageError: If the format needs a package that is not installed.
    """
    # Imported here: whoever only splits rows needs neither pandas nor zip archives.
    if config.source.lower().endswith(ENDINGS):
        path = folder / config.source
        check_file(path, where)
        if config.arguments:
            raise DataError(f"{where}: data.arguments means nothing for {config.source}", "remove data.arguments.")
        if path.name.lower().endswith(".npz"):
            from compress.data.arrays import load_arrays

            return load_arrays(config, path, where=where, seed_label=seed_label)
        from compress.data.table import load_table

        return load_table(config, path, where=where, seed_label=seed_label)
    if ":" in config.source:
        from compress.data.function import load_function_data

        return load_function_data(config, folder, where=where, seed_label=seed_label)
    raise DataError(
        f"{where}: data.source: {config.source!r} is no kind of data that is known",
        f"name a {', '.join(ENDINGS)} file, or file.py:function.",
    )

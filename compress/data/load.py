"""The one entry: what `[data]` of a recipe says, as a `Dataset`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from compress.data.base import Dataset
from compress.data.files import check_file
from compress.errors import DataError
from compress.recipe import DataConfig

TABLES = (".csv", ".csv.gz", ".parquet")
ENDINGS = (*TABLES, ".npz")


def load_dataset(
    config: DataConfig,
    folder: Path,
    *,
    where: str = "recipe.toml",
    seed_label: str | None = None,
    model_folder: Path | None = None,
) -> Dataset:
    """Reads the rows that a recipe names.

    Args:
        config: `[data]` of the recipe.
        folder: The folder of the recipe; the source is relative to it.
        where: The recipe's name, for the message.
        seed_label: The label that a stratified split deals by (`task.label`); None for the only one.
        model_folder: The Hugging Face folder that the model comes from, if it does: its tokenizer reads the texts
            where `data.text.tokenizer` names no other.

    Raises:
        DataError: If the file, a column, a label or the split cannot be used; the message names it.
        MissingPackageError: If the format needs a package that is not installed.
    """
    dataset = _load(config, folder, where=where, seed_label=seed_label, model_folder=model_folder)
    if config.unlabelled is None:
        return dataset
    # Brings pandas, which is half of the time in which a wrong recipe is answered.
    from compress.data.unlabelled import check_alike, without_labels

    more = without_labels(config, config.unlabelled, folder, where)
    unlabelled = _load(more, folder, where=where, seed_label=None, model_folder=model_folder)
    check_alike(dataset, unlabelled, where)
    return replace(dataset, unlabelled=unlabelled)


def _load(
    config: DataConfig, folder: Path, *, where: str, seed_label: str | None, model_folder: Path | None
) -> Dataset:
    if config.text is not None and not config.source.lower().endswith(TABLES):
        raise DataError(
            f"{where}: data.text reads a column of a table; {config.source!r} is none",
            f"name a {', '.join(TABLES)} file, or remove data.text.",
        )
    if config.image is not None or (folder / config.source).is_dir():
        from compress.data.images import load_images

        return load_images(config, folder / config.source, where=where, seed_label=seed_label)
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

        named = config.text.tokenizer if config.text is not None else None
        tokenizer = model_folder if named is None else folder / named
        return load_table(config, path, where=where, seed_label=seed_label, tokenizer=tokenizer)
    if ":" in config.source:
        from compress.data.function import load_function_data

        return load_function_data(config, folder, where=where, seed_label=seed_label)
    raise DataError(
        f"{where}: data.source: {config.source!r} is no kind of data that is known",
        f"name a {', '.join(ENDINGS)} file, a folder of images, or file.py:function.",
    )

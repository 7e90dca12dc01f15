"""`.npz` files: one array an input, a label, the ids or a group. Nothing in them is unpickled.

Without `data.inputs` every array that is not id, label, sensitive, split column or dropped is an input of its own name.
"""

from __future__ import annotations

import zipfile
from collections import Counter
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from compress.data.base import Dataset
from compress.data.columns import check_columns, default_inputs, refuse_keys
from compress.data.files import check_expanded, reading
from compress.data.parts import Parts, assemble
from compress.errors import DataError
from compress.recipe import DataConfig


def load_arrays(config: DataConfig, path: Path, *, where: str, seed_label: str | None) -> Dataset:
    """Reads a `.npz` file into a dataset.

    Args:
        config: `[data]` of the recipe.
        path: The file.
        where: The recipe's name, for the message.
        seed_label: The label that a stratified split deals by; None for the only one.

    Raises:
        DataError: If the file, an array, a label or the split cannot be used.
    """
    refuse_keys(config, ("features", "categories"), "its arrays are named in data.inputs and hold numbers", where)
    with reading(path, "a .npz file"), zipfile.ZipFile(path) as archive:
        known = _names(archive, path)
        check_columns(config, known, str(path), where)
        chosen = _chosen(config, known, where)
        wanted = {*chosen.values(), *config.label_columns.values(), *config.sensitive}
        wanted |= {name for name in (config.id, config.split.column) if name is not None}
        arrays = {name: _array(archive, path, name) for name in known if name in wanted}
    parts = Parts(
        inputs={name: arrays[array] for name, array in chosen.items()},
        labels={name: arrays[array] for name, array in config.label_columns.items()},
        ids=None if config.id is None else arrays[config.id],
        sensitive={name: arrays[name] for name in config.sensitive},
        split_column=None if config.split.column is None else arrays[config.split.column],
    )
    return assemble(config, parts, str(path), where=where, seed_label=seed_label)


def _chosen(config: DataConfig, known: list[str], where: str) -> dict[str, str]:
    """Input name to array name."""
    if not config.inputs:
        return {name: name for name in default_inputs(config, known) if name not in config.sensitive}
    for name, array in config.inputs.items():
        if not isinstance(array, str):
            raise DataError(
                f"{where}: data.inputs.{name}: in a .npz file an input is one array, named as text; got a list",
                f'write {name} = "array".',
            )
    return {name: str(array) for name, array in config.inputs.items()}


def _names(archive: zipfile.ZipFile, path: Path) -> list[str]:
    check_expanded(path, sum(member.file_size for member in archive.infolist()))
    names = []
    for member in archive.infolist():
        if not member.filename.endswith(".npy"):
            raise DataError(f"{path}: {member.filename!r} is not an array", "write the file with numpy.savez.")
        names.append(member.filename.removesuffix(".npy"))
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{path}: two arrays are named {twice[0]!r}", "write the file with numpy.savez.")
    return names


def _array(archive: zipfile.ZipFile, path: Path, name: str) -> NDArray[Any]:
    size = archive.getinfo(f"{name}.npy").file_size
    with archive.open(f"{name}.npy") as stream:
        _check_header(stream, size, path, name)
    with archive.open(f"{name}.npy") as stream:
        array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
    return array


def _check_header(stream: IO[bytes], size: int, path: Path, name: str) -> None:
    """Refuses objects, and an array that claims more bytes than its file has: numpy allocates what it is told."""
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise DataError(f"{path}: the array {name!r} has fields of its own", "store plain arrays, one a field.")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    if dtype.hasobject:
        raise DataError(
            f"{path}: the array {name!r} holds Python objects, which only a pickle can store",
            f"convert it before saving: {name}.astype(str) for text, {name}.astype(numpy.float32) for numbers.",
        )
    claimed = dtype.itemsize
    for length in shape:
        claimed *= length
    if claimed != size - stream.tell():
        raise DataError(
            f"{path}: the array {name!r} claims {claimed:,} bytes and has {size - stream.tell():,}",
            "the file is damaged; write it again.",
        )

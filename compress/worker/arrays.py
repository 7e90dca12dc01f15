"""Named arrays in `.npz` files, without pickle, under any name that a model gives its inputs and outputs."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .errors import JobError

Array = npt.NDArray[np.generic]


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Writes an uncompressed `.npz` in one step.

    `numpy.savez` takes names as keyword arguments and so cannot write an array called `file`.

    Raises:
        JobError: If an array holds Python objects.
    """
    partial = path.with_name(path.name + ".partial")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, array in arrays.items():
            if array.dtype.hasobject:
                raise JobError(f"{path}: the array {name!r} holds Python objects, not numbers")
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)
    os.replace(partial, path)


def read_arrays(path: Path) -> dict[str, Array]:
    """Reads every array of an `.npz`.

    Raises:
        JobError: If the file is missing, broken, or holds pickled objects.
    """
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it holds a single array")
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise JobError(f"{path}: not readable as an .npz file: {error}", "write it with numpy.savez.") from error

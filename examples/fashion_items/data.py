"""Fashion-MNIST as rows for the recipe: pictures, classes, and the official test set as the test split."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.data.split import hash_split
from compress.errors import DataError

HERE = Path(__file__).resolve().parent
SIDE = 28
# Of the official training set; a hash of the id deals, so the counts are near 55,000, 2,500 and 2,500.
FRACTIONS = {"train": 55 / 60, "calibration": 2.5 / 60, "validation": 2.5 / 60}
SPLIT_SEED = 0


def rows(folder: str = "../.cache/fashion_mnist") -> dict[str, Any]:
    """Reads both official sets.

    Args:
        folder: Where the four `*-ubyte.gz` files lie, relative to this file.

    Returns:
        What a recipe's data function returns: the input `image`, float32 `[70000, 1, 28, 28]` of 0..255; the label
        `class`, 0..9; ids such as `train-00042`; the split of each row.

    Raises:
        DataError: If a file is missing or broken.
    """
    place = HERE / folder
    images, classes, ids = [], [], []
    for name, prefix in (("train", "train"), ("test", "t10k")):
        labels = _read(place / f"{prefix}-labels-idx1-ubyte.gz", ())
        images.append(_read(place / f"{prefix}-images-idx3-ubyte.gz", (SIDE, SIDE)))
        if len(images[-1]) != len(labels):
            raise DataError(
                f"{place}: {len(images[-1])} pictures of the {name} set and {len(labels)} labels", _remedy()
            )
        classes.append(labels)
        ids += [f"{name}-{row:05}" for row in range(len(labels))]
    names = np.array(ids)
    official = np.array([row_id.startswith("train") for row_id in ids])
    splits = np.where(official, "", "test").astype("<U11")
    for split, members in hash_split(names[official], FRACTIONS, SPLIT_SEED).items():
        splits[np.flatnonzero(official)[members]] = split
    return {
        "inputs": {"image": np.concatenate(images)[:, None].astype(np.float32)},
        "labels": {"class": np.concatenate(classes).astype(np.int64)},
        "ids": names,
        "splits": splits,
    }


def _read(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Reads an IDX file of bytes, `[rows, *shape]`: a magic number, the lengths of the axes, the values."""
    head = 4 + 4 * (1 + len(shape))
    try:
        with gzip.open(path, "rb") as stream:
            magic, count, *axes = struct.unpack(f">{head // 4}I", stream.read(head))
            if (magic, tuple(axes)) != (0x0801 + len(shape), shape):
                raise DataError(f"{path}: the header is not that of bytes of shape {list(shape)} a row", _remedy())
            content = stream.read(count * math.prod(shape))
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise DataError(f"{path}: cannot be read: {error}", _remedy()) from error
    if len(content) != count * math.prod(shape):
        raise DataError(f"{path}: cut off: {len(content):,} bytes of {count} rows", _remedy())
    return np.frombuffer(content, np.uint8).reshape(count, *shape)


def _remedy() -> str:
    return "fetch it again: python examples/assets.py fashion_mnist"

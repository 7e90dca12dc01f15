"""A folder of images with a folder a class: `photos/cat/001.jpg`, `photos/dog/001.jpg`.

1. A class's index is the position of its folder's name in sorted order, or in `data.categories` where the recipe lists
   the names. The label is named by `data.label`, by default `class`.
2. A row's id is its path below the source, with `/`; rows stand in the order of their ids. Names that begin with a dot
   are left out.
3. Every file is read and decoded once when the folder is loaded, so that a broken one is known before the first
   expensive step; after that, pictures are decoded when they are asked for, and none is kept.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.data.base import Dataset, TensorSpec
from compress.data.columns import as_ids, refuse_keys, shown, stratify_label
from compress.data.files import reading
from compress.data.image_pixels import CHANNELS, check_image, decode, rotated, to_input
from compress.data.split import make_splits
from compress.errors import DataError, did_you_mean
from compress.recipe import DataConfig, ImageConfig

INPUT = "image"
LABEL = "class"
MAX_IMAGE_BYTES = 256 << 20


@dataclass(frozen=True, eq=False)
class ImageReader:
    """Pictures as `[rows, channels, height, width]` float32, decoded when they are read.

    Attributes:
        files: A file a row.
        contents: SHA-256 of each file when the folder was loaded.
        image: How a picture becomes the model's input.
    """

    files: tuple[Path, ...]
    contents: tuple[bytes, ...]
    image: ImageConfig

    def signature(self) -> tuple[TensorSpec, ...]:
        """Returns the one input, `image`."""
        return (TensorSpec(INPUT, (CHANNELS[self.image.mode], *self.image.size), "float32"),)

    def read(self, rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Decodes the pictures of these rows, and no others.

        Raises:
            DataError: If a file is gone, or is not the one that was there when the folder was loaded.
        """
        (specification,) = self.signature()
        result = np.empty((len(rows), *specification.shape), np.float32)
        for position, row in enumerate(rows.tolist()):
            path = self.files[row]
            content = _content(path)
            if hashlib.sha256(content).digest() != self.contents[row]:
                raise DataError(f"{path}: the file changed while the run was going on", "run again.")
            result[position] = to_input(decode(content, path), self.image, path)
        return {INPUT: result}

    def digest(self) -> str:
        """Returns the SHA-256 of how pictures are prepared and of every file's content."""
        digest = hashlib.sha256(json.dumps(self.image.model_dump(mode="json"), sort_keys=True).encode())
        for content in self.contents:
            digest.update(content)
        return digest.hexdigest()


def load_images(config: DataConfig, root: Path, *, where: str, seed_label: str | None) -> Dataset:
    """Reads a folder of images into a dataset.

    Args:
        config: `[data]` of the recipe.
        root: The folder.
        where: The recipe's name, for the message.
        seed_label: The label that a stratified split deals by; None for the only one.

    Raises:
        DataError: If the folder, a class, a picture, `[data.image]` or the split cannot be used.
        MissingPackageError: If Pillow is not installed.
    """
    image = _settings(config, where)
    label = config.label or LABEL
    names, notes = _class_names(root, where)
    names = _ordered(config, label, names, root, where)
    found = sorted((path.relative_to(root).as_posix(), path) for name in names for path in _pictures(root / name))
    ids = as_ids(np.array([row_id for row_id, _ in found]), len(found), str(root))
    files = tuple(path for _, path in found)
    contents, turned = _verify(files, image)
    position = {name: index for index, name in enumerate(names)}
    labels = {label: np.array([position[row_id.partition("/")[0]] for row_id in ids.tolist()], np.int64)}
    splits = make_splits(config.split, ids, label=stratify_label(config, labels, seed_label, where), where=where)
    if turned:
        notes.append(f"{turned} of {len(files)} pictures ask to be rotated (EXIF); they are read as stored.")
    return Dataset(
        source=config.source,
        ids=ids,
        reader=ImageReader(files, contents, image),
        labels=labels,
        sensitive={},
        splits=splits,
        notes=tuple(notes),
        categories={label: names},
    )


def _settings(config: DataConfig, where: str) -> ImageConfig:
    if config.image is None:
        raise DataError(
            f"{where}: data.source: {config.source} is a folder of images, and nothing says how they are prepared",
            "add [data.image] with size = [height, width], as the model was trained.",
        )
    refuse_keys(
        config,
        ("labels", "id", "features", "inputs", "drop", "sensitive", "arguments"),
        "a picture has a class, its folder, and an id, its path",
        where,
    )
    if config.missing != "nan":
        raise DataError(f"{where}: data.missing: no pixel can be missing", "remove data.missing.")
    if config.split.column is not None:
        raise DataError(
            f'{where}: data.split.by = "{config.split.by}" needs a column, and pictures have none',
            'use "hash", "random" or "stratified".',
        )
    check_image(config.image, where)
    return config.image


def _class_names(root: Path, where: str) -> tuple[tuple[str, ...], list[str]]:
    """The names of the class folders, sorted, and a note on files that lie beside them."""
    if not root.is_dir():
        near = [item.name for item in root.parent.glob("*/")] if root.parent.is_dir() else []
        raise DataError(
            f"{where}: data.source: {root} is no folder, and data.image prepares the pictures of one",
            did_you_mean(root.name, near),
        )
    items = list(_visible(root))
    names = tuple(item.name for item in items if item.is_dir())
    if len(names) < 2:
        found = f"one folder, {names[0]!r}" if names else "none"
        raise DataError(
            f"{root}: a folder a class is needed, two classes or more; there is {found}",
            "put the pictures of each class into a folder of its name.",
        )
    loose = [item.name for item in items if not item.is_dir()]
    return names, [f"not read, for it lies in no class folder: {shown(loose)}."] if loose else []


def _ordered(config: DataConfig, label: str, names: tuple[str, ...], root: Path, where: str) -> tuple[str, ...]:
    """The classes in the order of `data.categories`, if the recipe lists them."""
    for key in config.categories:
        if key != label:
            raise DataError(f"{where}: data.categories: there is no label {key!r}", did_you_mean(key, [label]))
    listed = config.categories.get(label, names)
    key = f"{where}: data.categories.{label}"
    twice = [name for name in listed if listed.count(name) > 1]
    if twice:
        raise DataError(f"{key} lists {twice[0]!r} twice", "keep one of them.")
    for name in listed:
        if name not in names:
            raise DataError(f"{key}: {root} has no folder {name!r}", did_you_mean(name, names))
    for name in names:
        if name not in listed:
            raise DataError(f"{key}: the folder {name!r} of {root} is not listed", did_you_mean(name, listed))
    return listed


def _pictures(folder: Path) -> list[Path]:
    found = list(_walk(folder))
    if not found:
        raise DataError(f"{folder}: the class has no pictures", "remove the folder, or put pictures into it.")
    return found


def _walk(folder: Path) -> Iterator[Path]:
    """Every file below a folder; links to folders are not followed, so that nothing goes in circles."""
    for item in _visible(folder):
        if item.is_dir() and not item.is_symlink():
            yield from _walk(item)
        elif item.is_file():
            yield item
        else:
            raise DataError(f"{item}: not a file", "a link to nowhere or to a folder? Put the picture itself there.")


def _visible(folder: Path) -> Iterator[Path]:
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror or error}", "check the folder's permissions.") from error
    for name in names:
        if not name.isprintable():
            raise DataError(f"{folder}: the name {name!r} holds characters that cannot be printed", "rename it.")
        if not name.startswith("."):
            yield folder / name


def _verify(files: tuple[Path, ...], image: ImageConfig) -> tuple[tuple[bytes, ...], int]:
    """Reads and prepares every picture once; returns the SHA-256 of each, and how many ask to be rotated."""
    contents, turned = [], 0
    for path in files:
        content = _content(path)
        contents.append(hashlib.sha256(content).digest())
        picture = decode(content, path)
        to_input(picture, image, path)
        turned += rotated(picture)
    return tuple(contents), turned


def _content(path: Path) -> bytes:
    with reading(path, "an image"):
        size = path.stat().st_size
        if size > MAX_IMAGE_BYTES:
            raise DataError(f"{path}: {size:,} bytes; a picture may have {MAX_IMAGE_BYTES:,}", "store it smaller.")
        if not size:
            raise DataError(f"{path}: the file is empty", "copy it again.")
        return path.read_bytes()

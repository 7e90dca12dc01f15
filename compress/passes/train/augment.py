"""Rows changed at random before they are fed: tables, images, texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.data.base import Dataset
from compress.data.text import text_reader
from compress.errors import RecipeError
from compress.passes.train.options import AugmentOptions

Arrays = dict[str, NDArray[Any]]
_MASKS = ("[MASK]", "<mask>")
_SPECIAL = ("[CLS]", "[SEP]", "[PAD]", "[UNK]", "<s>", "</s>", "<pad>", "<unk>", *_MASKS)


@dataclass(frozen=True)
class Mixed:
    """Rows after augmentation; row i is `share` of itself and the rest of row `partner[i]`. Without a mix `share` is 1.

    Attributes:
        inputs: Input name to `[rows, *shape]`.
        partner: `[rows]` positions within the batch.
        share: Between 0 and 1.
    """

    inputs: Arrays
    partner: NDArray[np.int64]
    share: float = 1.0


@dataclass(frozen=True)
class Augment:
    """Changes batches as the recipe says, by what an input is.

    `[rows, channels, height, width]` are images, the ids of a tokenizer are texts, all else are tables.

    Attributes:
        options: How much of what.
        tokens: Input of token ids -> the id that masks; empty where the data are no texts.
        special: Ids that are never masked.
    """

    options: AugmentOptions
    tokens: Mapping[str, int]
    special: tuple[int, ...] = ()

    def __call__(self, inputs: Arrays, random: np.random.Generator) -> Mixed:
        """Returns the changed rows; what came in stays as it is."""
        count = len(next(iter(inputs.values())))
        made = {}
        for name, values in inputs.items():
            if name in self.tokens:
                made[name] = self._mask(values, self.tokens[name], random)
            elif self.tokens:
                made[name] = values
            elif values.ndim == 4:
                made[name] = self._image(values, random)
            else:
                made[name] = self._swap(values, random)
        partner, share = np.arange(count), 1.0
        if self.options.mixup:
            partner, share = random.permutation(count), float(random.beta(self.options.mixup, self.options.mixup))
            # The larger part is a row's own.
            share = max(share, 1 - share)
            made = {
                name: (share * values + (1 - share) * values[partner]).astype(values.dtype)
                if values.dtype.kind == "f"
                else values
                for name, values in made.items()
            }
        return Mixed(made, partner, share)

    def _swap(self, values: NDArray[Any], random: np.random.Generator) -> NDArray[Any]:
        if not self.options.swap:
            return values
        others = np.take_along_axis(values, np.argsort(random.random(values.shape), axis=0), axis=0)
        return np.where(random.random(values.shape) < self.options.swap, others, values)

    def _image(self, values: NDArray[Any], random: np.random.Generator) -> NDArray[Any]:
        rows, _, height, width = values.shape
        made = values.copy()
        if self.options.flip:
            flipped = random.random(rows) < 0.5
            made[flipped] = made[flipped, :, :, ::-1]
        if self.options.shift:
            made = _shifted(made, self.options.shift, random)
        if self.options.crop:
            cut = self.options.crop * random.random((rows,))
            for row, side in enumerate((1 - cut).tolist()):
                high, wide = max(1, round(side * height)), max(1, round(side * width))
                top, left = random.integers(height - high + 1), random.integers(width - wide + 1)
                down = top + (np.arange(height) * high) // height
                across = left + (np.arange(width) * wide) // width
                made[row] = made[row][:, down[:, None], across]
        return made

    def _mask(self, values: NDArray[Any], mask: int, random: np.random.Generator) -> NDArray[Any]:
        hidden = (random.random(values.shape) < self.options.mask) & ~np.isin(values, self.special)
        return np.where(hidden, mask, values)


def _shifted(values: NDArray[Any], most: int, random: np.random.Generator) -> NDArray[Any]:
    """Moves every image by up to `most` pixels each way; the edge is repeated."""
    rows, _, height, width = values.shape
    down = np.clip(np.arange(height) + random.integers(-most, most + 1, (rows, 1)), 0, height - 1)
    across = np.clip(np.arange(width) + random.integers(-most, most + 1, (rows, 1)), 0, width - 1)
    moved: NDArray[Any] = values[np.arange(rows)[:, None, None], :, down[:, :, None], across[:, None, :]]
    return np.ascontiguousarray(moved.transpose(0, 3, 1, 2))


def make_augment(options: AugmentOptions, dataset: Dataset, where: str) -> Augment | None:
    """Returns what changes the rows of a dataset; None where nothing is asked for.

    Raises:
        RecipeError: If what is asked for does not fit the inputs, so that it would do nothing.
    """
    if not options.active:
        return None
    reader = text_reader(dataset)
    _check_kinds(options, dataset, texts=reader is not None, where=where)
    if options.mask:
        if reader is None:
            raise RecipeError(f"{where}.augment.mask: the data are no texts", "remove the key.")
        known = reader.tokenizer.vocabulary
        masks = [known[token] for token in _MASKS if token in known]
        if not masks:
            raise RecipeError(f"{where}.augment.mask: the tokenizer has no mask token", "remove the key.")
        names = _token_inputs(dataset)
        return Augment(
            options, dict.fromkeys(names, masks[0]), tuple(known[item] for item in _SPECIAL if item in known)
        )
    return Augment(options, {})


def _token_inputs(dataset: Dataset) -> list[str]:
    reader = text_reader(dataset)
    kinds = [] if reader is None else list(reader.inputs.values())
    # A rename keeps the order of the inputs.
    names = [item.name for item in dataset.reader.signature()]
    return [name for name, kind in zip(names, kinds, strict=True) if kind == "input_ids"]


def _check_kinds(options: AugmentOptions, dataset: Dataset, *, texts: bool, where: str) -> None:
    signature = dataset.reader.signature()
    images = any(len(item.shape) == 3 for item in signature)
    tables = any(len(item.shape) != 3 for item in signature) and not texts
    floats = any(item.dtype.startswith("float") for item in signature)
    asked = {
        "swap": (bool(options.swap), tables, "the inputs are no tables"),
        "mixup": (bool(options.mixup), floats, "no input is a float, and only those can be mixed"),
        "flip": (options.flip, images, "no input is [channels, height, width]"),
        "shift": (bool(options.shift), images, "no input is [channels, height, width]"),
        "crop": (bool(options.crop), images, "no input is [channels, height, width]"),
    }
    for key, (is_asked, is_possible, why) in asked.items():
        if is_asked and not is_possible:
            raise RecipeError(f"{where}.augment.{key}: {why}", "remove the key.")

"""Which rows are explained, which numbers of a row are its features, and the probes that both models get."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from compress.data.base import Dataset
from compress.data.columns import default_inputs
from compress.data.load import TABLES
from compress.errors import RecipeError
from compress.evaluate.explain import make_walks
from compress.evaluate.lime import make_masks
from compress.evaluate.probes import Feature, Probes
from compress.recipe import ExplainConfig, Recipe

# More numbers in a row than this are an image or a text: a walk through each of them says nothing to a customer.
FEATURES_MAX = 500


@dataclass(frozen=True, eq=False)
class Explained:
    """Positions of the explained rows within the test split, the features, and the probes."""

    rows: NDArray[np.int64]
    features: tuple[Feature, ...]
    probes: Probes


def explain_rows(
    dataset: Dataset,
    inputs: dict[str, NDArray[np.generic]],
    declined: NDArray[np.bool_] | None,
    config: ExplainConfig,
    recipe: Recipe,
    folder: Path,
    where: str,
) -> Explained:
    """Draws test rows, half of them declined where there are so many, and probes between calibration rows and each.

    Args:
        dataset: All rows.
        inputs: Of the test rows.
        declined: Test rows that the original declines, `[rows]`; None where nothing is decided.
        config: `[explain]`.
        recipe: For the names of the features, and the seed.
        folder: The recipe's.
        where: The recipe's name, for the message.

    Raises:
        RecipeError: If the rows are images or texts.
    """
    features = _features(dataset, recipe, folder)
    if not features:
        raise RecipeError(
            f"{where}: explain: the model's inputs are not numbers of which each has a meaning",
            "remove [explain]; attributions are made for rows of up to 500 numbers.",
        )
    total = next(iter(inputs.values())).shape[0]
    random = np.random.default_rng(recipe.seed)
    order = random.permutation(total)
    wanted = min(config.rows, total)
    if declined is not None:
        first = order[declined[order]][: wanted // 2]
        order = np.concatenate([first, order[~np.isin(order, first)]])
    rows = np.sort(order[:wanted]).astype(np.int64)
    background = dataset.reader.read(dataset.sample("calibration", config.background, recipe.seed))
    chosen = {name: array[rows] for name, array in inputs.items()}
    probes: Probes
    if config.method == "lime":
        probes = make_masks(chosen, background, features, samples=config.samples, seed=recipe.seed)
    else:
        probes = make_walks(chosen, background, features, walks=config.permutations, seed=recipe.seed)
    return Explained(rows, features, probes)


def _features(dataset: Dataset, recipe: Recipe, folder: Path) -> tuple[Feature, ...]:
    """The features by name; none where an input is no vector of numbers."""
    names = _column_names(recipe, folder)
    found: list[Feature] = []
    for index, spec in enumerate(dataset.reader.signature()):
        if len(spec.shape) > 1 or recipe.data.text is not None:
            return ()
        # A single input may have been renamed to what the model calls it.
        columns = names[index] if index < len(names) else ()
        if not spec.shape:
            found.append(Feature(columns[0] if len(columns) == 1 else spec.name, spec.name, None))
            continue
        for column in range(spec.shape[0]):
            name = columns[column] if len(columns) == spec.shape[0] else f"{spec.name}[{column}]"
            found.append(Feature(name, spec.name, column))
    return tuple(found) if len(found) <= FEATURES_MAX else ()


def _column_names(recipe: Recipe, folder: Path) -> list[tuple[str, ...]]:
    """The columns of each input of a table, in the order of the inputs."""
    config = recipe.data
    if config.inputs:
        return [(item,) if isinstance(item, str) else tuple(item) for item in config.inputs.values()]
    if config.features:
        return [tuple(config.features)]
    if not config.source.lower().endswith(TABLES):
        return []
    path = folder / config.source
    if path.name.lower().endswith(".parquet"):
        columns = list(pd.read_parquet(path).columns)
    else:
        columns = list(pd.read_csv(path, nrows=0).columns)
    return [tuple(default_inputs(config, columns))]

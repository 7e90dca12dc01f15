"""What every attribution has in common: features of a row, and rows in which some features are another row's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[np.generic]]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Feature:
    """One number that feeds the model: its name, its input, and its column there (None for an input of one number)."""

    name: str
    input: str
    column: int | None


class Probes(Protocol):
    """Rows to ask a model about, and what its answers say about the features of the rows that they were made from.

    Both models are asked about the same probes: what differs between them is theirs, not the draw's.
    """

    @property
    def inputs(self) -> dict[str, NDArray[np.generic]]:
        """What to feed, `[probes, ...]` each."""

    @property
    def method(self) -> str:
        """How the attributions are found, in words."""

    def attributions(self, outputs: Floats) -> Floats:
        """Returns `[rows, features]`, in the unit of the output, from the answers to `inputs`, `[probes]`."""


def blend(
    inputs: Arrays,
    background: Arrays,
    features: Sequence[Feature],
    taken: NDArray[np.bool_],
    of_row: NDArray[np.int64],
    of_background: NDArray[np.int64],
) -> dict[str, NDArray[np.generic]]:
    """Returns probes: features that are taken are the row's, the others those of a background row.

    Args:
        inputs: The rows to explain, `[rows, ...]` each.
        background: Rows that stand for "not known", `[background rows, ...]` each.
        features: What can be taken; all else in the inputs stays as it is in the row.
        taken: Which features each probe takes, `[probes, features]`.
        of_row: The row that each probe is made from, `[probes]`.
        of_background: The same for the background.
    """
    made = {name: np.array(array[of_row]) for name, array in inputs.items()}
    for index, feature in enumerate(features):
        out = ~taken[:, index]
        source = np.asarray(background[feature.input])
        if feature.column is None:
            made[feature.input][out] = source[of_background[out]]
        else:
            made[feature.input][out, feature.column] = source[of_background[out], feature.column]
    return made

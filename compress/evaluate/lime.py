"""LIME: a linear model of the output around each row, fitted to probes that keep some features of the row.

Ribeiro et al. (2016), KDD, for any model, without gradients: which features are kept is drawn, near probes weigh more,
and the coefficients of a ridge regression are the attributions. Unlike Shapley values they need not add up to what the
output moved by; interactions go where the line has room for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compress.evaluate.probes import Arrays, Feature, Floats, blend

# The package's own: the kernel's width as a share of the root of the number of features, and the ridge's penalty.
KERNEL_WIDTH = 0.75
PENALTY = 1.0


@dataclass(frozen=True, eq=False)
class Masks:
    """Probes of every row, and which features of the row each keeps: `kept[rows, samples, features]`.

    `inputs` has `rows * samples` rows. The first of each row's probes is the row itself.
    """

    inputs: dict[str, NDArray[np.generic]]
    kept: NDArray[np.bool_]

    @property
    def method(self) -> str:
        """How the attributions are found, in words."""
        return f"LIME, {self.kept.shape[1]:,} probes a row"

    def attributions(self, outputs: Floats) -> Floats:
        """Returns the coefficients of the weighted ridge regression of every row, `[rows, features]`.

        Args:
            outputs: What the model answers on `inputs`, `[rows * samples]`.
        """
        rows, samples, count = self.kept.shape
        answers = outputs.reshape(rows, samples)
        found = np.zeros((rows, count))
        for row in range(rows):
            mask = self.kept[row].astype(np.float64)
            weight = kernel(mask)
            # The intercept is not penalised: both sides are centred with the same weights.
            design = mask - np.average(mask, axis=0, weights=weight)
            target = answers[row] - np.average(answers[row], weights=weight)
            gram = design.T @ (design * weight[:, None]) + PENALTY * np.eye(count)
            found[row] = np.linalg.solve(gram, design.T @ (target * weight))
        return found


def make_masks(inputs: Arrays, background: Arrays, features: Sequence[Feature], *, samples: int, seed: int) -> Masks:
    """Returns the probes of every row: each feature is kept with a chance of one half.

    Args:
        inputs: The rows to explain, `[rows, ...]` each.
        background: Rows that stand for "not known", `[background rows, ...]` each.
        features: What can be kept; all else in the inputs stays as it is in the row.
        samples: Probes a row, each with a background row of its own.
        seed: Of the draws.
    """
    generator = np.random.default_rng(seed)
    rows = next(iter(inputs.values())).shape[0]
    kept = generator.random((rows, samples, len(features))) < 0.5
    kept[:, 0] = True
    drawn = generator.integers(0, next(iter(background.values())).shape[0], rows * samples)
    of_row = np.repeat(np.arange(rows), samples)
    return Masks(blend(inputs, background, features, kept.reshape(rows * samples, -1), of_row, drawn), kept)


def kernel(kept: Floats) -> Floats:
    """Returns how much each probe counts, `[samples]`: less, the more features it lost, `kept[samples, features]`."""
    lost = kept.shape[1] - kept.sum(axis=1)
    weights: Floats = np.exp(-lost / (2 * KERNEL_WIDTH**2 * kept.shape[1]))
    return weights

"""Rows gathered into cells, so that a resample of a million rows is one of some ten thousand cells.

Up to `ROWS_MAX` rows each row is its own cell and is drawn with replacement. Beyond, rows of one label
whose two scores lie in the same square of a fine grid form one cell, and a draw is a Poisson number of each (Hanley &
MacGibbon 2006, Computer Methods and Programs in Biomedicine 83:57): only the spread of a figure comes from it, never
the figure itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compress.evaluate import paired

Floats = NDArray[np.float64]

# Beyond, cells take the place of rows: a bootstrap of more rows takes half a minute and says the same.
ROWS_MAX = 20_000
# Steps of the grid by each score: a cell holds about 1 / 400 of the rows by either, so that no figure over tenths, and
# no distance between distributions, moves by more than a quarter of a percent within one.
GRID = 400

BY_ROWS = paired.CENTRED_PLAIN
BY_CELLS = f"paired Poisson bootstrap over a {GRID} x {GRID} grid of scores, percentile, centred on the estimate"


@dataclass(frozen=True)
class Cells:
    """Labels `[cells]`, rows in each `[cells]`, and the mean score in each by baseline and candidate `[cells]`."""

    labels: NDArray[np.bool_]
    rows: Floats
    baseline: Floats
    candidate: Floats
    gathered: bool

    @property
    def method(self) -> str:
        """How intervals from these cells are found."""
        return BY_CELLS if self.gathered else BY_ROWS

    def draws(self, resamples: int, seed: int) -> Iterator[Floats]:
        """Yields rows drawn from each cell, `[some resamples, cells]`, until `resamples` were drawn."""
        if not self.gathered:
            # Not by label: how many rows are positive is part of what calibration and precision hang on.
            yield from paired.draws(np.zeros(self.rows.size), resamples, seed)
            return
        generator = np.random.default_rng(seed)
        together = max(1, paired.CELLS // self.rows.size)
        for start in range(0, resamples, together):
            size = (min(together, resamples - start), self.rows.size)
            yield generator.poisson(self.rows, size).astype(np.float64)


def gather(labels: NDArray[np.bool_], baseline: Floats, candidate: Floats, rows_max: int = ROWS_MAX) -> Cells:
    """Returns the rows as cells.

    Args:
        labels: `[rows]`.
        baseline: Scores by the baseline, `[rows]`, finite.
        candidate: The same by the candidate.
        rows_max: Up to so many rows each is its own cell.
    """
    if labels.size <= rows_max:
        return Cells(labels, np.ones(labels.size), baseline, candidate, gathered=False)
    place = (_step(baseline) * GRID + _step(candidate)) * 2 + labels
    _, first, cell = np.unique(place, return_index=True, return_inverse=True)
    rows = np.bincount(cell).astype(np.float64)
    means = [np.bincount(cell, weights=scores) / rows for scores in (baseline, candidate)]
    return Cells(labels[first], rows, means[0], means[1], gathered=True)


def _step(scores: Floats) -> NDArray[np.int64]:
    """The grid step of every score, 0 to GRID - 1; steps hold about as many rows each."""
    edges = np.unique(np.quantile(scores, np.arange(1, GRID) / GRID))
    return np.searchsorted(edges, scores, side="right").astype(np.int64)

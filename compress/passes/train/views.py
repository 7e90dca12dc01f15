"""Rows in a fixed number of changed forms, so that what a teacher says of each can be kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compress.passes.train.augment import Augment
from compress.passes.train.rows import Arrays, Pool, Positions


@dataclass(frozen=True, eq=False)
class Views:
    """Every row in `count` forms: position p + k * len(pool) is form k of row p, and form 0 is the row as it is.

    A form depends on the seed, the row and its number alone, so whoever reads it sees the same, as often as they read
    (Shen and Xing 2022, arXiv:2112.01528, keep a teacher's answers to random crops in this way).

    Attributes:
        pool: The rows.
        augment: What changes them, row by row.
        count: Forms a row.
        seed: Another seed gives other forms.
    """

    pool: Pool
    augment: Augment
    count: int
    seed: int

    def __len__(self) -> int:
        return self.count * len(self.pool)

    def draw(self, rows: Positions, random: np.random.Generator) -> Positions:
        """Returns the position of one form of each of these rows, all equally likely."""
        return rows + len(self.pool) * random.integers(self.count, size=len(rows))

    def read(self, positions: Positions) -> Arrays:
        """Returns `[len(positions), *shape]` of every input."""
        forms, rows = np.divmod(positions, len(self.pool))
        arrays = {name: np.array(values) for name, values in self.pool.read(rows).items()}
        for place in np.flatnonzero(forms):
            one = slice(place, place + 1)
            random = np.random.default_rng([self.seed, int(rows[place]), int(forms[place])])
            changed = self.augment({name: values[one] for name, values in arrays.items()}, random).inputs
            for name, values in changed.items():
                arrays[name][one] = values
        return arrays

"""The rows that training sees: those of the train split, then those without labels, in an order of every epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from compress.data.base import Dataset
from compress.errors import DataError
from compress.passes.base import Task

Arrays = dict[str, NDArray[Any]]
Positions = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Pool:
    """Rows by position: `labelled` rows of a split first, then rows of another dataset, which have no labels.

    Attributes:
        dataset: Whose split they are.
        split: Its name.
        labels: Task name to `[labelled]`.
        unlabelled: More rows with the same inputs; None for none.
    """

    dataset: Dataset
    split: str
    labels: Mapping[str, NDArray[Any]]
    unlabelled: Dataset | None = None

    @cached_property
    def rows(self) -> Positions:
        """Row numbers of the labelled part in the dataset."""
        return self.dataset.split(self.split)

    @property
    def labelled(self) -> int:
        """Number of rows with labels."""
        return len(self.rows)

    def __len__(self) -> int:
        return self.labelled + (self.unlabelled.rows if self.unlabelled is not None else 0)

    def draw(self, rows: Positions, random: np.random.Generator) -> Positions:
        """Returns the rows: each has one form only. `Views` has more."""
        return rows

    def read(self, positions: Positions) -> Arrays:
        """Returns `[len(positions), *shape]` of every input."""
        with_labels = positions < self.labelled
        if self.unlabelled is None or with_labels.all():
            return self.dataset.reader.read(self.rows[positions])
        others = self.unlabelled.reader.read(positions[~with_labels] - self.labelled)
        if not with_labels.any():
            return others
        own = self.dataset.reader.read(self.rows[positions[with_labels]])
        made = {}
        for name, values in own.items():
            made[name] = np.empty((len(positions), *values.shape[1:]), values.dtype)
            made[name][with_labels], made[name][~with_labels] = values, others[name]
        return made

    def fingerprint(self) -> tuple[str, ...]:
        """Returns what names these rows: equal for equal inputs and labels in equal order."""
        more = () if self.unlabelled is None else (self.unlabelled.reader.digest(),)
        return (self.dataset.fingerprint(), self.dataset.split_fingerprint(self.split), *more)


def make_pool(dataset: Dataset, split: str, tasks: Sequence[Task], unlabelled: Dataset | None = None) -> Pool:
    """Returns the rows of a split with the labels of the tasks.

    Raises:
        DataError: If the split has no rows.
    """
    rows = dataset.split(split)
    if not len(rows):
        raise DataError(f"the {split} split is empty, and a pass trains on it", f"raise data.split.{split}.")
    return Pool(dataset, split, {task.name: dataset.label(task.label)[rows] for task in tasks}, unlabelled)


@dataclass(frozen=True, eq=False)
class Order:
    """Which rows each step sees. An epoch's order depends on the seed and its number, not on what came before.

    1. An epoch has `steps` batches of `batch` rows; what does not fill the last batch is left out, other rows each
       epoch. Fewer rows than a batch make one batch.
    2. `shuffle` draws without replacement. `stratified` does so too, and every stretch of it holds the classes in the
       shares that they have. `balanced` shows every class equally often: rows of a rare one come back within an epoch.

    Attributes:
        groups: `[rows]` class of every row; rows without labels are a class of their own.
        batch: Rows a step.
        sampling: How rows are drawn.
        seed: Another seed gives another order.
    """

    groups: NDArray[np.int64]
    batch: int
    sampling: Literal["shuffle", "stratified", "balanced"]
    seed: int

    @property
    def steps(self) -> int:
        """Batches an epoch."""
        return max(1, len(self.groups) // self.batch)

    def epoch(self, number: int) -> Iterator[Positions]:
        """Yields the positions of every batch of an epoch."""
        random = np.random.default_rng([self.seed, number])
        drawn = random.permutation(len(self.groups)) if self.sampling == "shuffle" else self._spread(random)
        for step in range(self.steps):
            yield drawn[step * self.batch : (step + 1) * self.batch]

    def _spread(self, random: np.random.Generator) -> Positions:
        """Each class in random order, its rows placed evenly along the epoch."""
        members = [np.flatnonzero(self.groups == value) for value in np.unique(self.groups)]
        share = -(-len(self.groups) // len(members))
        rows, places = [], []
        for own in members:
            count = len(own) if self.sampling == "stratified" else share
            # A class that is drawn more often than it has rows comes whole before any of it comes again.
            rounds = [random.permutation(own) for _ in range(-(-count // len(own)))]
            rows.append(np.concatenate(rounds)[:count])
            places.append((np.arange(count) + random.random(count)) / count)
        return np.concatenate(rows)[np.argsort(np.concatenate(places), kind="stable")]


def class_groups(pool: Pool, tasks: Sequence[Task]) -> NDArray[np.int64]:
    """Returns the class of every row by the first task that has classes; -1 for rows without labels.

    Raises:
        DataError: If no task has classes.
    """
    known = [task for task in tasks if task.kind != "regression"]
    if not known:
        raise DataError("sampling by class needs a task with classes", 'keep sampling = "shuffle".')
    groups = np.full(len(pool), -1, np.int64)
    groups[: pool.labelled] = pool.labels[known[0].name]
    return groups

"""Whom the test rows are about: their ids, sensitive values, segments and periods; and rows that other splits know."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from compress.data.base import Dataset
from compress.errors import RecipeError, did_you_mean
from compress.evaluate.groups import Groups, group
from compress.evaluate.periods import period_groups
from compress.evidence import Leak, from_json, to_json
from compress.recipe import Recipe
from compress.store.cache import Cache, key

# Rows read at a time where all of them are hashed.
_BATCH = 1024


@dataclass(frozen=True, eq=False)
class Subjects:
    """The people behind the test rows, `[rows]` each, in the order of the rows.

    Attributes:
        ids: Of the rows.
        sensitive: Sensitive columns as the data has them.
        segments: Groups by sensitive column and by the segments of the recipe.
        periods: The rows by time, if the recipe names a time column.
    """

    ids: NDArray[np.str_]
    sensitive: Mapping[str, NDArray[np.generic]]
    segments: tuple[Groups, ...]
    periods: Groups | None

    @property
    def digest(self) -> str:
        """sha256 over who belongs where: figures of other groups are not reused."""
        hashed = hashlib.sha256("\n".join(self.ids.tolist()).encode())
        for groups in (*self.segments, *([self.periods] if self.periods else [])):
            hashed.update(repr((groups.column, groups.names)).encode() + groups.codes.tobytes())
        for name, values in self.sensitive.items():
            hashed.update(name.encode() + repr(values.tolist()).encode())
        return hashed.hexdigest()


def take_subjects(dataset: Dataset, rows: NDArray[np.int64], recipe: Recipe, where: str) -> Subjects:
    """Groups all rows, so that no edge hangs on which rows are tested, and keeps the test rows.

    A sensitive column that a segment of the recipe cuts into ranges has no segments of its own beside these.

    Args:
        dataset: All rows.
        rows: Positions of the test rows.
        recipe: Its sensitive columns, segments and time column.
        where: The recipe's name, for the message.

    Raises:
        RecipeError: If a segment or the time names a column that the data does not have.
        DataError: If a column cannot be cut as asked.
    """
    named = {segment.column for segment in recipe.segments.values()}
    # A function's or a file's own groups count where the recipe names none.
    sensitive = recipe.data.sensitive or tuple(
        name for name in dataset.sensitive if name not in named and name != recipe.evaluate.time
    )
    groups = [
        group(name, _column(dataset, name, "data.sensitive", where), where=f"{where}: data.sensitive")
        for name in sensitive
        if name not in named
    ]
    for name, segment in recipe.segments.items():
        key = f"segments.{name}"
        values = _column(dataset, segment.column, f"{key}.column", where)
        groups.append(group(name, values, segment.bins, where=f"{where}: {key}"))
    time, periods = recipe.evaluate.time, None
    if time is not None:
        values = _column(dataset, time, "evaluate.time", where)
        periods = _taken(period_groups(time, values, recipe.evaluate.period, where=f"{where}: evaluate.time"), rows)
    return Subjects(
        ids=dataset.ids[rows],
        sensitive={name: dataset.sensitive[name][rows] for name in sensitive},
        segments=tuple(_taken(item, rows) for item in groups),
        periods=periods,
    )


def find_leaks(dataset: Dataset) -> tuple[Leak, ...]:
    """Counts the test rows whose inputs, to the last bit, are also those of a row of another split."""
    seen = {name: _hashes(dataset, rows) for name, rows in dataset.splits.items()}
    if dataset.unlabelled is not None:
        seen["unlabelled"] = _hashes(dataset.unlabelled, np.arange(dataset.unlabelled.rows))
    test = seen.get("test", [])
    found = []
    for name, hashes in seen.items():
        if name != "test":
            known = set(hashes)
            shared = sum(item in known for item in test)
            if shared:
                found.append(Leak("test", name, shared, len(test)))
    return tuple(found)


def known_leaks(dataset: Dataset, cache: Cache, versions: Mapping[str, str]) -> tuple[Leak, ...]:
    """Returns what `find_leaks` finds, from an earlier run where rows, splits and versions are the same."""
    step = key(
        "leaks",
        data=dataset.fingerprint(),
        splits={name: dataset.split_fingerprint(name) for name in dataset.splits},
        unlabelled=dataset.unlabelled.reader.digest() if dataset.unlabelled is not None else "",
        versions=dict(versions),
    )
    kept = cache.get(step)
    if kept is not None:
        return tuple(from_json(Leak, text, step) for text in kept["leaks"])
    found = find_leaks(dataset)
    cache.put(step, {"leaks": [to_json(leak) for leak in found]})
    return found


def _hashes(dataset: Dataset, rows: NDArray[np.int64]) -> list[bytes]:
    found: list[bytes] = []
    for batch in dataset.batches_of(rows, _BATCH):
        arrays = [np.ascontiguousarray(batch[name]) for name in sorted(batch)]
        for row in range(len(arrays[0])):
            hashed = hashlib.blake2b(digest_size=16)
            for array in arrays:
                hashed.update(array[row].tobytes())
            found.append(hashed.digest())
    return found


def _column(dataset: Dataset, name: str, key: str, where: str) -> NDArray[np.generic]:
    if name not in dataset.sensitive:
        known = did_you_mean(name, dataset.sensitive)
        raise RecipeError(
            f"{where}: {key}: the data keeps no column {name!r}",
            f"{known} Outside tables name it in data.sensitive too.",
        )
    values: NDArray[np.generic] = dataset.sensitive[name]
    return values


def _taken(groups: Groups, rows: NDArray[np.int64]) -> Groups:
    return replace(groups, codes=groups.codes[rows])

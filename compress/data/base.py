"""A dataset: rows with ids, what feeds the model, labels, sensitive groups and splits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from compress.data.split import hash_positions
from compress.errors import DataError, did_you_mean
from compress.evidence import DataInfo

# So many classes are counted one by one where a sample is described.
_FEW = 4


@dataclass(frozen=True)
class TensorSpec:
    """One model input: its name, the shape of one row (without the batch), the numpy name of its dtype."""

    name: str
    shape: tuple[int, ...]
    dtype: str


class Reader(Protocol):
    """Gives raw model inputs for rows, when they are asked for."""

    def signature(self) -> tuple[TensorSpec, ...]:
        """Returns what `read` gives, input by input."""
        ...

    def read(self, rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Returns `[len(rows), *shape]` of each input for these row positions."""
        ...

    def digest(self) -> str:
        """Returns the SHA-256 of the content of all inputs of all rows, as hexadecimal text."""
        ...


@dataclass(frozen=True, eq=False)
class Dataset:
    """Rows and what they mean. Immutable.

    1. `ids` is `[rows]` text, unique; a row keeps its id whatever its position.
    2. `labels` are `[rows]`: `int64` where all values are whole, else `float64`; none is missing, none is constant.
    3. `sensitive` are `[rows]` raw values (numbers, or text with `""` for a missing one) that segments are made of.
    4. `splits` holds the ascending row positions of train, calibration, validation and test; each row is in one.
    5. `notes` says what a reader of the figures must know about the rows.
    6. `unlabelled` are more rows with the same inputs and without labels, for training; they are in no split.
    """

    source: str
    ids: NDArray[np.str_]
    reader: Reader
    labels: Mapping[str, NDArray[Any]]
    sensitive: Mapping[str, NDArray[Any]]
    splits: Mapping[str, NDArray[np.int64]]
    notes: tuple[str, ...] = ()
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unlabelled: Dataset | None = None

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.ids)

    def split(self, name: str) -> NDArray[np.int64]:
        """Returns the row positions of a split.

        Raises:
            DataError: If there is no such split.
        """
        if name not in self.splits:
            raise DataError(f"{self.source}: there is no split {name!r}", did_you_mean(name, self.splits))
        return self.splits[name]

    def batches(self, split: str, size: int, limit: int | None = None) -> Iterator[dict[str, NDArray[Any]]]:
        """Streams the inputs of a split in the order of its rows, `size` rows at a time; the last batch may be smaller.

        Args:
            split: Its name.
            size: Rows per batch.
            limit: Only the first so many rows.

        Raises:
            DataError: If there is no such split, or `size` is not positive.
        """
        return self.batches_of(self.split(split)[:limit], size)

    def batches_of(self, rows: NDArray[np.int64], size: int) -> Iterator[dict[str, NDArray[Any]]]:
        """Streams the inputs of these row positions, `size` rows at a time.

        Raises:
            DataError: If `size` is not positive.
        """
        if size < 1:
            raise DataError(f"a batch needs at least 1 row; got {size}", "give a positive batch size.")
        return (self.reader.read(rows[start : start + size]) for start in range(0, len(rows), size))

    def sample(self, split: str, rows: int, seed: int, label: str | None = None) -> NDArray[np.int64]:
        """Draws rows of a split so that a rare class is in the sample.

        Each class but 0 gets its share of the sample rounded up, the rarest class first; class 0 gets the rest. So
        a positive row is in the sample wherever the split has one. Within a class rows are taken in the order of a
        hash of seed and id: a row's turn does not depend on the other rows.

        Args:
            split: Its name.
            rows: Size of the sample; all rows of the split if it has no more.
            seed: Another seed draws other rows.
            label: The label whose classes count; by default all labels together, one class per combination.

        Returns:
            Row positions, ascending, `int64`.

        Raises:
            DataError: If the split or the label does not exist, or `rows` is not positive.
        """
        members = self.split(split)
        if rows < 1:
            raise DataError(f"a sample needs at least 1 row; got {rows}", "give a positive number of rows.")
        if rows >= len(members):
            return members.copy()
        order = np.argsort(hash_positions(self.ids[members], f"sample:{seed}"), kind="stable")
        classes = self._classes(members, label)
        taken = []
        for value, count in _shares(classes, rows).items():
            taken.append(order[classes[order] == value][:count])
        return np.sort(members[np.concatenate(taken)])

    def describe_sample(self, split: str, rows: NDArray[np.int64], label: str | None = None) -> str:
        """Returns how a sample was drawn: `512 of 3,012 calibration rows by class: 399 of class 0, 113 of class 1`.

        Args:
            split: Where it was drawn from.
            rows: What `sample` gave.
            label: What `sample` was told.
        """
        whole = self.split(split)
        said = f"{len(rows):,} of {len(whole):,} {split} rows"
        labels = self._whole_labels(label)
        if not labels:
            return said if len(rows) == len(whole) else f"{said} by a hash of the id"
        names, counts = np.unique(np.stack([values[rows] for values in labels], axis=1), axis=0, return_counts=True)
        known = len(np.unique(np.stack([values[whole] for values in labels], axis=1), axis=0))
        if known <= _FEW:
            each = (f"{n:,} of class {'/'.join(map(str, name))}" for name, n in zip(names, counts, strict=True))
            return f"{said} by class: {', '.join(each)}"
        return f"{said} by class: {len(names):,} of {known:,} classes, {counts.min():,} to {counts.max():,} rows each"

    def fingerprint(self) -> str:
        """Returns the SHA-256 of ids, labels and inputs: equal for equal rows in equal order, whatever the split."""
        return self._fingerprint

    def split_fingerprint(self, split: str) -> str:
        """Returns the SHA-256 of the sorted ids of a split: equal for the same rows in any order."""
        return hashlib.sha256(json.dumps(sorted(self.ids[self.split(split)].tolist())).encode()).hexdigest()

    def info(self, label: str | None = None) -> DataInfo:
        """Returns what evidence says about the rows.

        Args:
            label: The 0/1 label whose ones are counted per split; by default the only label. Without such a label
                `positives` is empty.
        """
        if label is None and len(self.labels) == 1:
            label = next(iter(self.labels))
        values = None if label is None else self.label(label)
        binary = values is not None and bool(np.isin(values, (0, 1)).all())
        return DataInfo(
            source=self.source,
            fingerprint=self.fingerprint(),
            rows=self.rows,
            splits={name: len(rows) for name, rows in self.splits.items()},
            positives={name: int(values[rows].sum()) for name, rows in self.splits.items()}
            if values is not None and binary
            else {},
            split_fingerprints={name: self.split_fingerprint(name) for name in self.splits},
            notes=self.notes,
        )

    def label(self, name: str) -> NDArray[Any]:
        """Returns the `[rows]` values of a label.

        Raises:
            DataError: If there is no such label.
        """
        if name not in self.labels:
            raise DataError(f"{self.source}: there is no label {name!r}", did_you_mean(name, self.labels))
        return self.labels[name]

    def renamed(self, names: Mapping[str, str]) -> Dataset:
        """Returns the same rows with other names of inputs; the fingerprint stays.

        Args:
            names: Old name to new name; inputs that are not in it keep theirs.

        Raises:
            DataError: If an old name does not exist, or two inputs would have one name.
        """
        known = [spec.name for spec in self.reader.signature()]
        for old in names:
            if old not in known:
                raise DataError(f"{self.source}: there is no input {old!r}", did_you_mean(old, known))
        new = [names.get(name, name) for name in known]
        if len(set(new)) != len(new):
            raise DataError(f"{self.source}: two inputs would be named alike: {', '.join(new)}", "rename only one.")
        more = None if self.unlabelled is None else self.unlabelled.renamed(names)
        return replace(self, reader=_Renamed(self.reader, dict(names)), unlabelled=more)

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256(json.dumps(self.ids.tolist()).encode())
        for name in sorted(self.labels):
            values = self.labels[name]
            digest.update(json.dumps([name, values.dtype.name]).encode())
            digest.update(np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes())
        digest.update(self.reader.digest().encode())
        return digest.hexdigest()

    def _whole_labels(self, label: str | None) -> list[NDArray[Any]]:
        """The labels that have classes: all of them, or the one that is named."""
        labels = list(self.labels.values()) if label is None else [self.label(label)]
        return [values for values in labels if values.dtype.kind != "f"]

    def _classes(self, members: NDArray[np.int64], label: str | None) -> NDArray[np.int64]:
        """`[members]` class of each row, 0 where every label is 0."""
        whole = [values[members] for values in self._whole_labels(label)]
        if not whole:
            return np.zeros(len(members), np.int64)
        combinations, codes = np.unique(np.stack(whole, axis=1), axis=0, return_inverse=True)
        numbers = np.where((combinations == 0).all(axis=1), 0, np.arange(1, len(combinations) + 1))
        return numbers[codes.reshape(-1)]


@dataclass(frozen=True)
class _Renamed:
    """A reader whose inputs have other names."""

    inner: Reader
    names: Mapping[str, str]

    def signature(self) -> tuple[TensorSpec, ...]:
        return tuple(replace(spec, name=self.names.get(spec.name, spec.name)) for spec in self.inner.signature())

    def read(self, rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        return {self.names.get(name, name): values for name, values in self.inner.read(rows).items()}

    def digest(self) -> str:
        return self.inner.digest()


def _shares(classes: NDArray[np.int64], rows: int) -> dict[int, int]:
    """How many of `rows` each class gets; they add up to `rows`."""
    values, counts = np.unique(classes, return_counts=True)
    left = rows
    result = {}
    for value, count in sorted(zip(values.tolist(), counts.tolist(), strict=True), key=lambda item: item[::-1]):
        if value:
            result[value] = min(left, -(-rows * count // len(classes)))
            left -= result[value]
    if 0 in values:
        result[0] = left
    return result

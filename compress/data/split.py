"""Which row belongs to which split, decided once and reproducibly."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.errors import DataError, did_you_mean
from compress.recipe import SplitConfig

SPLITS = ("train", "calibration", "validation", "test")

Splits = dict[str, NDArray[np.int64]]


def hash_split(row_ids: NDArray[np.generic], fractions: Mapping[str, float], seed: int) -> dict[str, NDArray[np.int64]]:
    """Assigns rows to splits by a hash of their id, so that a row keeps its split when others come and go.

    A row's position in [0, 1) is the first 8 bytes of `sha256(f"{seed}:{row_id}")`; the splits take
    consecutive stretches of that line in the order of `SPLITS`.

    Args:
        row_ids: `[rows]`, any type with a stable text form.
        fractions: Share of each split; must add up to 1.
        seed: Another seed gives another assignment.

    Returns:
        Row indices per split, ascending, `int64`.
    """
    position = hash_positions(row_ids, str(seed))
    result: dict[str, NDArray[np.int64]] = {}
    start = 0.0
    names = [name for name in SPLITS if name in fractions]
    for index, name in enumerate(names):
        # The last stretch is open: neither fractions that add up to 0.9999999 nor a hash that rounds to 1 lose a row.
        stop = math.inf if index == len(names) - 1 else start + fractions[name]
        result[name] = np.flatnonzero((position >= start) & (position < stop)).astype(np.int64)
        start = stop
    return result


def hash_positions(row_ids: NDArray[Any], salt: str) -> NDArray[np.float64]:
    """Returns `[rows]` positions in [0, 1]: the first 8 bytes of `sha256(f"{salt}:{row_id}")`, as a fraction."""
    return np.array([_position(f"{salt}:{row_id}") for row_id in row_ids.tolist()], dtype=np.float64)


def _position(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def make_splits(
    config: SplitConfig,
    ids: NDArray[Any],
    *,
    column: NDArray[Any] | None = None,
    label: NDArray[Any] | None = None,
    where: str = "recipe.toml",
) -> Splits:
    """Deals every row to exactly one split.

    `random` and `stratified` give the fractions as exactly as whole rows allow; `time` keeps rows of the same time
    together, in the earlier split, so that no later split knows a moment that an earlier one has seen.

    Args:
        config: The method, its seed and its fractions.
        ids: `[rows]`, unique.
        column: `[rows]` values of `config.column`: times (numbers, datetimes, or text in ISO 8601) or split names.
        label: `[rows]` classes, for `stratified`.
        where: The recipe's name, for the message.

    Returns:
        Row indices of train, calibration, validation and test, ascending; train and validation may be empty.

    Raises:
        DataError: If the method lacks what it needs, or the calibration or the test split would be empty.
    """
    if config.by == "hash":
        splits = hash_split(ids, config.fractions, config.seed)
    elif config.by == "random":
        order = np.random.default_rng(config.seed).permutation(len(ids))
        splits = _deal(order, _ends(config, len(ids)))
    elif config.by == "stratified":
        splits = _stratified(config, label, where)
    elif config.by == "time":
        splits = _by_time(config, _needed(column, config, where), where)
    else:
        splits = _by_name(config, _needed(column, config, where), where)
    _check_filled(config, splits, where)
    check_disjoint(splits, ids)
    return splits


def check_disjoint(splits: Mapping[str, NDArray[np.int64]], ids: NDArray[Any]) -> None:
    """Proves by the ids that every row is in exactly one split.

    Args:
        splits: Row indices per split.
        ids: `[rows]`.

    Raises:
        DataError: If splits are overlapping, or rows are in none of them.
    """
    seen: dict[Any, str] = {}
    for name, rows in splits.items():
        for row_id in ids[rows].tolist():
            if row_id in seen:
                raise DataError(
                    f"overlapping splits: the row with id {row_id!r} is in {seen[row_id]} and in {name}",
                    "ids must be unique, and each row belongs to one split.",
                )
            seen[row_id] = name
    if len(seen) != len(ids):
        raise DataError(
            f"incomplete splits: {len(ids) - len(seen)} of {len(ids)} rows are in no split",
            "each row belongs to one split; drop unwanted rows from the file.",
        )


def _ends(config: SplitConfig, rows: int) -> dict[str, int]:
    """Where each split ends on a line of `rows` rows."""
    ends = np.rint(np.cumsum(list(config.fractions.values())) * rows).astype(int)
    ends[-1] = rows
    return dict(zip(config.fractions, ends.tolist(), strict=True))


def _deal(order: NDArray[Any], ends: Mapping[str, int]) -> Splits:
    result, start = {}, 0
    for name, end in ends.items():
        result[name] = np.sort(order[start:end]).astype(np.int64)
        start = end
    return result


def _stratified(config: SplitConfig, label: NDArray[Any] | None, where: str) -> Splits:
    if label is None:
        raise DataError(f'{where}: data.split.by = "stratified" needs a label', "set data.label, or use another split.")
    if label.dtype.kind == "f":
        raise DataError(
            f'{where}: data.split.by = "stratified" needs classes; the label holds fractions',
            'use data.split.by = "random" or "hash".',
        )
    random = np.random.default_rng(config.seed)
    parts = []
    for value in np.unique(label):
        members = random.permutation(np.flatnonzero(label == value))
        parts.append(_deal(members, _ends(config, len(members))))
    return {name: np.sort(np.concatenate([part[name] for part in parts])) for name in config.fractions}


def _by_time(config: SplitConfig, column: NDArray[Any], where: str) -> Splits:
    times = _times(column, config.column, where)
    order = np.argsort(times, kind="stable")
    ordered = times[order]
    ends = _ends(config, len(times))
    for name, end in ends.items():
        if end:
            ends[name] = int(np.searchsorted(ordered, ordered[end - 1], side="right"))
    return _deal(order, ends)


def _times(column: NDArray[Any], name: str | None, where: str) -> NDArray[Any]:
    import pandas as pd

    values: Any = pd.Series(column)
    if column.dtype.kind not in "iufbM":
        values = values.astype(str).replace("", None)
        try:
            values = pd.to_numeric(values)
        except (ValueError, TypeError):
            try:
                values = pd.to_datetime(values, format="ISO8601", utc=True)
            except (ValueError, TypeError) as error:
                raise DataError(
                    f"{where}: data.split.column: {name!r} holds neither numbers nor ISO 8601 dates: "
                    f"{str(error).splitlines()[0]}",
                    "write dates as 2024-01-31 or 2024-01-31T12:00:00.",
                ) from error
    missing = int(values.isna().sum())
    if missing:
        raise DataError(
            f"{where}: data.split.column: {name!r} has {missing} missing times",
            "every row needs a time; fill or remove these rows.",
        )
    return np.asarray(values.astype("int64") if values.dtype.kind == "M" else values)


def _by_name(config: SplitConfig, column: NDArray[Any], where: str) -> Splits:
    names = np.array([str(value) for value in column.tolist()])
    for row, value in enumerate(names.tolist()):
        if value not in SPLITS:
            raise DataError(
                f"{where}: data.split.column: {config.column!r} says {value!r} in row {row} (the first is row 0)",
                f"a row's split is one of {', '.join(SPLITS)}; {did_you_mean(value, SPLITS)}",
            )
    return {name: np.flatnonzero(names == name).astype(np.int64) for name in SPLITS}


def _needed(column: NDArray[Any] | None, config: SplitConfig, where: str) -> NDArray[Any]:
    if column is None:
        raise DataError(
            f'{where}: data.split.by = "{config.by}" needs the column {config.column!r}, and the data has none',
            "name a column of the data.",
        )
    return column


def _check_filled(config: SplitConfig, splits: Splits, where: str) -> None:
    remedies = {
        "time": "rows of the same time stay together; use a finer time column, or other fractions.",
        "column": f"the column {config.column!r} must name rows of every split that is needed.",
    }
    for name in ("calibration", "test"):
        if not len(splits[name]):
            counts = ", ".join(f"{split} {len(rows)}" for split, rows in splits.items())
            raise DataError(
                f"{where}: data.split: the {name} split is empty: {sum(map(len, splits.values()))} rows dealt by "
                f'"{config.by}" as {counts}',
                remedies.get(config.by, f"bring more rows, or raise data.split.{name}."),
            )

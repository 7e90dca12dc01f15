"""Arrays made fit for an artifact: names, dtypes and shapes checked, rows dealt to a fixed batch and joined again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .arrays import Array
from .errors import JobError
from .session import TensorSpec


def check_inputs(specs: Mapping[str, TensorSpec], given: Mapping[str, Array]) -> dict[str, Array]:
    """Returns contiguous arrays of the artifact's dtypes, one per input.

    The first dimension is not compared here: `portions` deals rows to a fixed batch.

    Args:
        specs: What the artifact takes.
        given: Arrays by name; other names are ignored, since artifacts of one model may drop an unused input.

    Raises:
        JobError: If an input is missing, or its dtype or shape does not fit.
    """
    feed: dict[str, Array] = {}
    for name, spec in specs.items():
        if name not in given:
            raise JobError(f"the input {name!r} is missing", f"given: {', '.join(sorted(given)) or 'nothing'}.")
        array = _cast(name, np.asarray(given[name]), np.dtype(spec.dtype))
        if not _shape_fits(array.shape, spec.shape):
            raise JobError(f"the input {name!r} must be {_shown(spec.shape)}; got {_shown(array.shape)}")
        # Not ascontiguousarray, which would turn a scalar into a vector.
        feed[name] = np.require(array, requirements=["C", "A"])
    return feed


def portions(
    specs: Mapping[str, TensorSpec], feed: Mapping[str, Array], most: int | None = None
) -> list[dict[str, Array]]:
    """Deals rows to calls: one call where the batch is free or right, else portions of the artifact's fixed batch.

    A free batch may have an upper bound, `most`: more rows are dealt to several calls, the last of them the shortest.

    The last portion is filled up by repeating its last row; `join` drops these rows again.

    Raises:
        JobError: If inputs disagree about the number of rows or about the batch.
    """
    fixed = _fixed_batch(specs, feed)
    batch = most if fixed is None else fixed
    if batch is None or (fixed is None and all(array.shape[0] <= batch for array in feed.values() if array.ndim)):
        return [dict(feed)]
    rows = {name: array.shape[0] for name, array in feed.items() if array.ndim}
    if len(set(rows.values())) != 1 or len(rows) != len(feed):
        raise JobError(f"the inputs must have the same number of rows; got {rows}")
    count = next(iter(rows.values()))
    if count == 0:
        raise JobError("the inputs have no rows")
    if fixed is None:
        return [{name: array[at : at + batch] for name, array in feed.items()} for at in range(0, count, batch)]
    whole = -(-count // batch) * batch
    index = np.minimum(np.arange(whole), count - 1)
    return [
        {name: np.ascontiguousarray(array[index[start : start + batch]]) for name, array in feed.items()}
        for start in range(0, whole, batch)
    ]


def join(parts: Sequence[tuple[int, Mapping[str, Array]]], rows: int) -> dict[str, Array]:
    """Puts the outputs of portions together.

    Args:
        parts: For each call, the rows that went in and the outputs.
        rows: Rows wanted; what filled up the last portion is cut off.

    Raises:
        JobError: If an output does not have one entry per row.
    """
    for size, part in parts:
        for name, array in part.items():
            if array.ndim == 0 or array.shape[0] != size:
                raise JobError(
                    f"the output {name!r} is {_shown(array.shape)} for {size} rows; the batch must come first",
                    "export the model so that every output has one entry per row.",
                )
    return {name: np.concatenate([part[name] for _, part in parts])[:rows] for name in parts[0][1]}


def zeros(specs: Mapping[str, TensorSpec]) -> dict[str, Array]:
    """Returns one array of zeros per input, every free dimension 1."""
    return {name: np.zeros([size or 1 for size in spec.shape], spec.dtype) for name, spec in specs.items()}


def _cast(name: str, array: Array, dtype: np.dtype[np.generic]) -> Array:
    if array.dtype == dtype:
        return array
    if not np.can_cast(array.dtype, dtype, "same_kind"):
        raise JobError(f"the input {name!r} must be {dtype.name}; got {array.dtype.name}")
    if dtype.kind in "iu" and array.dtype.kind in "iu" and array.size:
        bounds = np.iinfo(dtype.name)
        low, high = int(array.min()), int(array.max())
        if low < bounds.min or high > bounds.max:
            raise JobError(
                f"the input {name!r} holds {low} to {high}; the artifact takes {dtype.name},"
                f" {bounds.min} to {bounds.max}",
                "this runtime narrows 64-bit inputs: keep the values in that range.",
            )
    return array.astype(dtype)


def _shape_fits(given: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    if len(given) != len(wanted):
        return False
    return all(wanted[axis] in (None, given[axis]) for axis in range(1, len(wanted)))


def _fixed_batch(specs: Mapping[str, TensorSpec], feed: Mapping[str, Array]) -> int | None:
    """The artifact's batch where rows must be dealt to it, None where all of them go into one call."""
    wanted = {name: spec.shape[0] for name, spec in specs.items() if spec.shape}
    if all(batch is None or feed[name].shape[0] == batch for name, batch in wanted.items()):
        return None
    batches = {batch for batch in wanted.values() if batch is not None}
    if len(batches) > 1:
        raise JobError(f"the inputs fix different first dimensions: {wanted}", "give arrays of exactly these sizes.")
    return batches.pop()


def _shown(shape: Sequence[int | None]) -> str:
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"

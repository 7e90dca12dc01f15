"""Disturbed inputs: small noise, missing values, values out of range, infinities; and what they do to both models.

Only floating-point inputs are disturbed: an integer input holds positions (tokens, categories), for which noise and NaN
mean nothing. Of those, columns of at most 12 distinct values are taken for categories and get no noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from compress.evaluate.groups import VALUES_MAX
from compress.evaluate.scores import Link
from compress.review import Robustness

Arrays = Mapping[str, NDArray[np.generic]]
Floats = NDArray[np.float64]

# How far out of range: so many times the width of the column's own range.
OUT_OF_RANGE = 10.0


@dataclass(frozen=True)
class Disturbed:
    """Inputs of the same rows, disturbed in one way; `name` says which, in words."""

    name: str
    inputs: dict[str, NDArray[np.generic]]


def disturb(inputs: Arrays, *, noise: float, seed: int) -> tuple[Disturbed, ...]:
    """Returns the disturbances of these rows; none where no input is floating-point.

    1. Noise: normal, its standard deviation `noise` times that of the column, in all columns that vary.
    2. Missing: one column of each row, drawn at random, is NaN. 3. Infinity: it is +infinity.
    4. Out of range: it lies 10 widths of the column's range above its largest value.

    Args:
        inputs: `[rows, ...]` each.
        noise: Share of a column's standard deviation.
        seed: Of the draws.
    """
    floats = {name: array for name, array in inputs.items() if array.dtype.kind == "f"}
    if not floats:
        return ()
    generator = np.random.default_rng(seed)
    rows = next(iter(floats.values())).shape[0]
    flat = {name: array.reshape(rows, -1) for name, array in floats.items()}
    widths = [array.shape[1] for array in flat.values()]
    chosen = np.asarray(generator.integers(0, sum(widths), rows), dtype=np.int64)
    shifted = {name: _noisy(array, noise, generator) for name, array in flat.items()}
    far = {name: _beyond(array) for name, array in flat.items()}
    return (
        Disturbed(f"noise of {100 * noise:g} % of each input's spread", _shaped(shifted, inputs)),
        Disturbed("one value a row missing (NaN)", _shaped(_placed(flat, chosen, np.nan), inputs)),
        Disturbed("one value a row infinite", _shaped(_placed(flat, chosen, np.inf), inputs)),
        Disturbed("one value a row out of range", _shaped(_placed(flat, chosen, far), inputs)),
    )


def compare_disturbed(
    name: str,
    undisturbed: tuple[Floats, Floats],
    disturbed: tuple[Floats | None, Floats | None],
    *,
    link: Link | None,
    cutoff: float | None,
    note: str = "",
) -> Robustness:
    """Returns what a disturbance does to both models.

    Args:
        name: Of the disturbance.
        undisturbed: Raw outputs of baseline and candidate on the rows as they are, `[rows]` each.
        disturbed: The same on the disturbed rows; None where the runtime refused them.
        link: What the outputs hold; None for regression.
        cutoff: Probability from which a row counts as positive; None where nothing is decided.
        note: What else to say.
    """
    rows = undisturbed[0].size
    scores = [expit(values) if link == "logit" else values for values in undisturbed]
    after = [
        np.full(rows, np.nan) if values is None else (expit(values) if link == "logit" else values)
        for values in disturbed
    ]
    answered = [np.isfinite(values) for values in after]
    both = answered[0] & answered[1]
    shifts = [
        float(np.abs(new - old)[known].mean()) if known.any() else None
        for new, old, known in zip(after, scores, answered, strict=True)
    ]
    kept: list[float | None] = [None, None]
    agreement = None
    if cutoff is not None:
        kept = [
            float(((new >= cutoff) == (old >= cutoff))[known].mean()) if known.any() else None
            for new, old, known in zip(after, scores, answered, strict=True)
        ]
        agreement = float(((after[0] >= cutoff) == (after[1] >= cutoff))[both].mean()) if both.any() else None
    return Robustness(
        disturbance=name,
        rows=rows,
        baseline_shift=shifts[0],
        candidate_shift=shifts[1],
        baseline_kept=kept[0],
        candidate_kept=kept[1],
        agreement=agreement,
        baseline_answers=int(answered[0].sum()),
        candidate_answers=int(answered[1].sum()),
        same_answer=bool((answered[0] == answered[1]).all()),
        note=note,
    )


def _noisy(array: NDArray[np.generic], noise: float, generator: np.random.Generator) -> NDArray[np.generic]:
    values = array.astype(np.float64)
    spread = np.nanstd(np.where(np.isfinite(values), values, np.nan), axis=0) if values.size else np.zeros(0)
    categories = np.array([np.unique(column).size <= VALUES_MAX for column in values.T])
    spread = np.where(categories | ~np.isfinite(spread), 0.0, spread)
    return (values + generator.standard_normal(values.shape) * noise * spread).astype(array.dtype)


def _beyond(array: NDArray[np.generic]) -> Floats:
    values = array.astype(np.float64)
    finite = np.where(np.isfinite(values), values, 0.0)
    largest = finite.max(axis=0)
    width = largest - finite.min(axis=0)
    far: Floats = largest + OUT_OF_RANGE * np.where(width > 0, width, np.maximum(1.0, np.abs(largest)))
    return far


def _placed(
    flat: Mapping[str, NDArray[np.generic]], chosen: NDArray[np.int64], value: float | Mapping[str, Floats]
) -> dict[str, NDArray[np.generic]]:
    """Puts a value into the chosen column of each row; columns are counted through all inputs."""
    start, made = 0, {}
    for name, array in flat.items():
        copy = array.copy()
        column = chosen - start
        rows = np.flatnonzero((column >= 0) & (column < array.shape[1]))
        copy[rows, column[rows]] = value[name][column[rows]] if isinstance(value, Mapping) else value
        made[name] = copy
        start += array.shape[1]
    return made


def _shaped(flat: Mapping[str, NDArray[np.generic]], inputs: Arrays) -> dict[str, NDArray[np.generic]]:
    return {
        name: flat[name].reshape(array.shape) if name in flat else np.asarray(array) for name, array in inputs.items()
    }

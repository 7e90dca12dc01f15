"""Disturbed inputs: small noise, missing values, values out of range, infinities; and what they do to both models.

Only floating-point inputs are disturbed: an integer input holds positions (tokens, categories), for which noise and NaN
mean nothing. Of those, columns of at most 12 distinct values are taken for categories and get no noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from compress.evaluate.decisions import Decision
from compress.evaluate.groups import VALUES_MAX
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
    decision: Decision,
    *,
    note: str = "",
) -> Robustness:
    """Returns what a disturbance does to both models.

    Args:
        name: Of the disturbance.
        undisturbed: Raw outputs of baseline and candidate on the rows as they are, `[rows]`, or `[rows, classes]`.
        disturbed: The same on the disturbed rows; None where the runtime refused them.
        decision: How the outputs decide.
        note: What else to say.
    """
    scores = [_scores(values, decision) for values in undisturbed]
    rows = scores[0].shape[0]
    after = [np.full_like(scores[0], np.nan) if values is None else _scores(values, decision) for values in disturbed]
    answered = [np.isfinite(values).reshape(rows, -1).all(axis=1) for values in after]
    both = answered[0] & answered[1]
    shifts, kept = [], []
    for new, old, known in zip(after, scores, answered, strict=True):
        shifts.append(_distance(new[known], old[known]))
        kept.append(_alike(new[known], old[known], decision))
    return Robustness(
        disturbance=name,
        rows=rows,
        baseline_shift=shifts[0],
        candidate_shift=shifts[1],
        baseline_kept=kept[0],
        candidate_kept=kept[1],
        agreement=_alike(after[0][both], after[1][both], decision),
        baseline_answers=int(answered[0].sum()),
        candidate_answers=int(answered[1].sum()),
        same_answer=bool((answered[0] == answered[1]).all()),
        note=note,
    )


def _scores(outputs: Floats, decision: Decision) -> Floats:
    """Probabilities where the outputs are log-odds or logits, else the outputs."""
    if decision.link != "logit":
        return outputs
    with np.errstate(invalid="ignore"):
        found: Floats = softmax(outputs, axis=1) if decision.kind == "multiclass" else expit(outputs)
    return found


def _distance(new: Floats, old: Floats) -> float | None:
    """The mean over rows of the absolute change; of classes, half the sum: the probability that moved elsewhere."""
    if not new.shape[0]:
        return None
    moved = np.abs(new - old)
    return float((moved if moved.ndim == 1 else moved.sum(axis=1) / 2).mean())


def _alike(a: Floats, b: Floats, decision: Decision) -> float | None:
    """The share of rows decided alike; None where nothing is decided, or there are no rows."""
    if not a.shape[0] or decision.kind == "regression":
        return None
    decided = [
        values.argmax(axis=1) if decision.kind == "multiclass" else values >= decision.cutoff for values in (a, b)
    ]
    return float((decided[0] == decided[1]).mean())


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

"""Quality of one task from a model's raw outputs, whatever kind of task it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from compress.errors import InternalError
from compress.evaluate.multiclass import compare_multiclass
from compress.evaluate.quality import compare
from compress.evaluate.regression import compare_regression
from compress.evaluate.scores import (
    SUM_ROUNDING,
    Link,
    TaskKind,
    binary_labels,
    class_outputs,
    class_probabilities,
    numbers,
    probabilities,
)
from compress.evidence import Metric


def compare_task(
    kind: TaskKind,
    labels: ArrayLike,
    baseline_outputs: ArrayLike,
    candidate_outputs: ArrayLike,
    *,
    task: str,
    link: Link | None,
    cutoff: float,
    resamples: int,
    seed: int,
    level: float = 0.95,
    where: str,
) -> tuple[Metric, ...]:
    """Returns the metrics of a task, each with its name; exactly one of them is primary.

    `compare` (binary), `compare_multiclass` and `compare_regression` say which metrics these are, and what their
    intervals mean.

    Args:
        kind: What the task is.
        labels: 0 and 1 (binary), numbers of classes (multiclass) or numbers (regression), `[rows]`.
        baseline_outputs: Raw outputs of the baseline: `[rows]` or `[rows, 1]`, for multiclass `[rows, classes]`.
        candidate_outputs: The same of the candidate, for the same rows in the same order.
        task: Name of the task; every metric carries it.
        link: What the outputs hold, see `find_link`; None for regression.
        cutoff: The probability from which a row counts as positive; read for binary only.
        resamples: Number of bootstrap draws.
        seed: Seed of the draws; equal seeds give equal intervals.
        level: Level of every interval.
        where: Names the candidate's output in an error message.

    Raises:
        DataError: If there are no rows, shapes differ, a label is not one, an output is not finite or no probability.
        InternalError: If a task that decides has no link.
    """
    if kind == "regression":
        found = compare_regression(
            labels, baseline_outputs, candidate_outputs, resamples=resamples, seed=seed, level=level, where=where
        )
    elif link is None:
        raise InternalError(f"{where}: a {kind} task needs a link")
    elif kind == "multiclass":
        found = compare_multiclass(
            labels,
            baseline_outputs,
            candidate_outputs,
            link=link,
            resamples=resamples,
            seed=seed,
            level=level,
            where=where,
        )
    else:
        found = compare(
            binary_labels(labels, f"{where}: labels"),
            probabilities(baseline_outputs, link, f"{where} of the baseline"),
            probabilities(candidate_outputs, link, where),
            cutoff=cutoff,
            resamples=resamples,
            seed=seed,
            level=level,
        )
    return tuple(replace(metric, task=task) for metric in found)


def find_link(kind: TaskKind, outputs: ArrayLike, said: Link | None, where: str) -> Link | None:
    """Returns what a task's output holds, and checks on some rows that the task can be answered by it.

    Args:
        kind: What the task is.
        outputs: Raw outputs of the original on rows that decide nothing else (calibration rows).
        said: What the user says; None to find out. An output is a probability if all of it lies in [0, 1] and, for
            multiclass, every row adds up to 1 within 0.001.
        where: Names the output in an error message.

    Returns:
        `logit` or `probability`; None for regression, which has no link.

    Raises:
        DataError: If the shape does not fit the task, a number is not finite, or it is no probability where the user
            says so.
    """
    if kind == "regression":
        numbers(outputs, where)
        return None
    if said is not None:
        (class_probabilities if kind == "multiclass" else probabilities)(outputs, said, where)
        return said
    if kind == "binary":
        probabilities(outputs, "logit", where)
        values = np.asarray(outputs, dtype=np.float64)
        sums = np.ones(1)
    else:
        values = class_outputs(outputs, where)
        sums = values.sum(axis=1)
    within = bool(np.all((values >= 0) & (values <= 1)) and np.all(np.abs(sums - 1) <= SUM_ROUNDING))
    return "probability" if within else "logit"

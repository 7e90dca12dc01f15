"""Rows with labels whose chances are known functions of a model's own outputs: what a recalibration must find."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, softmax

from compress.data.base import Dataset
from compress.data.memory import MemoryReader
from compress.model.core import Model
from compress.passes.base import Task

Arrays = dict[str, NDArray[Any]]
Change = Callable[[NDArray[Any]], NDArray[Any]]


def labelled(model: Model, rows: Arrays, tasks: tuple[Task, ...], change: Change, seed: int = 0) -> Dataset:
    """Gives a dataset of calibration rows; each label is drawn with the chance that `change` makes of the log-odds."""
    random = np.random.default_rng(seed)
    answers = model.run(rows)
    labels = {task.label: _drawn(answers[task.output].astype(np.float64), task, change, random) for task in tasks}
    count = len(next(iter(rows.values())))
    ids = np.arange(count).astype(str)
    splits = {"calibration": np.arange(count), "test": np.empty(0, dtype=np.int64)}
    return Dataset("rows", ids, MemoryReader(rows), labels, {}, splits)


def _drawn(values: NDArray[Any], task: Task, change: Change, random: np.random.Generator) -> NDArray[Any]:
    if task.kind == "regression":
        return values.reshape(len(values), -1)[:, 0]
    if task.kind == "binary":
        odds = values.reshape(len(values), -1)[:, 0]
        odds = logit(np.clip(odds, 1e-6, 1 - 1e-6)) if task.link == "probability" else odds
        return (random.random(len(values)) < expit(change(odds))).astype(np.int64)
    logits = np.log(np.clip(values, 1e-6, 1)) if task.link == "probability" else values
    chances = softmax(change(logits), axis=1)
    # Gumbel's trick: the largest of log-chances with Gumbel noise is a draw.
    return (np.log(chances) + random.gumbel(size=chances.shape)).argmax(axis=1)

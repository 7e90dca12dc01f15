"""Figures of the validation rows: what training is steered by. Point estimates; the gate has intervals of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

from compress.data.base import Dataset
from compress.model.core import Model
from compress.passes.base import Task
from compress.passes.train.losses import TaskLoss, column, log_probabilities

_METRICS = {"binary": "auc", "multiclass": "top_1", "regression": "r2"}
Forward = Callable[[tuple[Tensor, ...]], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Score:
    """What the validation rows say.

    Attributes:
        loss: Mean labelled loss, summed over the tasks, without weights of classes.
        figures: `auc`, `top_1` or `r2` of every task, named `task figure` where there are several; None where the rows
            do not define it.
    """

    loss: float
    figures: Mapping[str, float | None]

    @property
    def metric(self) -> float | None:
        """The mean of the figures; None where one of them is undefined."""
        known = [value for value in self.figures.values() if value is not None]
        return float(np.mean(known)) if known and len(known) == len(self.figures) else None


@dataclass(frozen=True, eq=False)
class Validator:
    """Scores what answers on the rows of a split.

    Attributes:
        dataset: Whose split it is.
        split: Its name; it has rows.
        model: Whose inputs the rows feed.
        losses: The loss of each task as validation counts it: without weights, focus and smoothing.
        batch: Rows at a time.
    """

    dataset: Dataset
    split: str
    model: Model
    losses: Sequence[TaskLoss]
    batch: int

    @property
    def metric(self) -> str:
        """What `Score.metric` is."""
        names = [_METRICS[loss.task.kind] for loss in self.losses]
        return names[0] if len(names) == 1 else f"mean of {', '.join(names)}"

    def __call__(self, forward: Forward, device: torch.device) -> Score:
        """Returns the figures of a function from input tensors to outputs by name."""
        rows = self.dataset.split(self.split)
        made: dict[str, list[Tensor]] = {loss.task.output: [] for loss in self.losses}
        with torch.no_grad():
            for batch in self.dataset.batches_of(rows, self.batch):
                outputs = forward(tuple(value.to(device) for value in self.model.arguments(batch)))
                for name, parts in made.items():
                    parts.append(outputs[name].float().cpu())
        total, figures = 0.0, {}
        for loss in self.losses:
            labels = self.dataset.label(loss.task.label)[rows]
            output = torch.cat(made[loss.task.output])
            total += float(loss(output, torch.from_numpy(labels)).double().mean())
            name = f"{loss.task.name} {_METRICS[loss.task.kind]}".strip()
            figures[name] = figure(loss.task, output, labels)
        return Score(total, figures)


def figure(task: Task, output: Tensor, labels: NDArray[Any]) -> float | None:
    """Returns AUC (binary), top-1 accuracy (multiclass) or R² (regression) of an output; None where it is undefined.

    Args:
        task: What the output answers.
        output: `[rows]`, `[rows, 1]` or `[rows, classes]`.
        labels: `[rows]`.
    """
    if not torch.isfinite(output).all():
        return None
    if task.kind == "regression":
        errors = column(output, task).double().numpy() - labels
        spread = float(np.square(labels - labels.mean()).sum())
        return 1 - float(np.square(errors).sum()) / spread if spread else None
    if task.kind == "multiclass":
        return float((log_probabilities(output, task).argmax(dim=1).numpy() == labels).mean())
    positive = labels == 1
    count, others = int(positive.sum()), int((~positive).sum())
    if not count or not others:
        return None
    # Mann and Whitney 1947; equal scores share their rank.
    ranks = rankdata(column(output, task).double().numpy())
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * others))

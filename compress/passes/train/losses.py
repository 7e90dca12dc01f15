"""What is minimised of a task on labelled rows, row by row."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from compress.errors import ModelError
from compress.passes.base import Task

# A probability closer to 0 or 1 has no gradient worth following.
_LEAST = 1e-6


@dataclass(frozen=True)
class TaskLoss:
    """The loss of one task.

    Attributes:
        task: What the output answers.
        weight: Factor of this task beside the others.
        class_weights: `[classes]`, 1 on average over the training rows; None for none, and for regression.
        focal: Exponent of the focal loss; 0 is cross-entropy.
        smoothing: Share of a label that is spread over the other classes.
        variance: Of a regression's labels on the training rows; its squared error is in units of it, so that no task
            drowns the others.
    """

    task: Task
    weight: float = 1.0
    class_weights: Tensor | None = None
    focal: float = 0.0
    smoothing: float = 0.0
    variance: float = 1.0

    def __call__(self, output: Tensor, labels: Tensor) -> Tensor:
        """Returns `[rows]` losses.

        Args:
            output: The task's output, `[rows]`, `[rows, 1]` or `[rows, classes]`.
            labels: `[rows]`: 0 and 1, numbers of classes, or numbers.

        Raises:
            ModelError: If the output's shape does not answer the task.
        """
        if self.task.kind == "regression":
            return self.weight * (column(output, self.task) - labels.to(output.dtype)).square() / self.variance
        logs = log_probabilities(output, self.task)
        classes = labels.long()
        own = logs.gather(1, classes[:, None])[:, 0]
        # Lin et al. 2017, equation 4: a row that is known already counts little.
        losses = -own if not self.focal else -own * (1 - own.exp()).clamp(min=0) ** self.focal
        if self.smoothing:
            losses = (1 - self.smoothing) * losses - self.smoothing * logs.mean(dim=1)
        if self.class_weights is not None:
            losses = losses * self.class_weights.to(losses.device)[classes]
        return self.weight * losses


def log_probabilities(output: Tensor, task: Task, temperature: float = 1.0) -> Tensor:
    """Returns log-probabilities, `[rows, classes]`; of a binary task `[rows, 2]`.

    Args:
        output: What the model gives, logits or probabilities as the task's link says.
        task: A task with classes.
        temperature: Logits are divided by it; probabilities are turned into logits first.
    """
    if task.kind == "binary":
        value = column(output, task)
        if task.link == "probability":
            value = torch.logit(value, eps=_LEAST)
        value = value / temperature
        return torch.stack([F.logsigmoid(-value), F.logsigmoid(value)], dim=1)
    if output.dim() != 2 or output.shape[1] < 2:
        raise ModelError(
            f"the output {task.output!r} is [rows{_sizes(output)}]; a multi-class task needs [rows, classes]",
            "choose another output, or another kind of task.",
        )
    value = output.clamp(min=_LEAST).log() if task.link == "probability" else output
    return F.log_softmax(value / temperature, dim=1)


def column(output: Tensor, task: Task) -> Tensor:
    """Returns an output of one number a row as `[rows]`.

    Raises:
        ModelError: If it is more than one number a row.
    """
    if output.dim() == 2 and output.shape[1] == 1:
        output = output[:, 0]
    if output.dim() != 1:
        raise ModelError(
            f"the output {task.output!r} is [rows{_sizes(output)}]; a {task.kind} task needs one number a row",
            "choose another output, or another kind of task.",
        )
    return output


def _sizes(output: Tensor) -> str:
    return "".join(f", {size}" for size in output.shape[1:])

"""What a row's gradient is taken of: the loss of the tasks, or, without tasks, the size of the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from compress.errors import ModelError
from compress.passes.base import Task

# A probability closer to 0 or 1 has no gradient worth following.
_LEAST = 1e-6


def total_loss(outputs: Mapping[str, Tensor], labels: Mapping[str, Tensor], tasks: Sequence[Task]) -> Tensor:
    """Returns the sum of the tasks' losses over the rows, a number.

    1. Cross-entropy for classes; half the squared error for numbers, whose labels come divided by their spread, so
       that no task drowns the others.
    2. Without tasks: half the squared length of every floating-point answer. A row's own answer as its target would
       have no gradient; the length says how far an answer moves at all (Aljundi et al. 2018, "Memory aware synapses",
       arXiv:1711.09601, section 4.1).

    Args:
        outputs: Every output by name, `[rows, ...]`.
        labels: Label -> `[rows]`: 0 and 1, numbers of classes, or numbers.
        tasks: What the outputs answer.

    Raises:
        ModelError: If an output has not one number a row, or one a class.
    """
    if not tasks:
        floats = [value for value in outputs.values() if value.is_floating_point()]
        return torch.stack([value.square().sum() / 2 for value in floats]).sum()
    return torch.stack([_task_loss(task, outputs[task.output], labels[task.label]) for task in tasks]).sum()


def _task_loss(task: Task, output: Tensor, labels: Tensor) -> Tensor:
    if task.kind == "multiclass":
        if output.dim() != 2:
            raise ModelError(
                f"the output {task.output!r} has the shape {list(output.shape)}, not one number a class",
                "set task.output to the output that has a column a class.",
            )
        logs = output.log_softmax(dim=1) if task.link == "logit" else output.clamp(min=_LEAST).log()
        return F.nll_loss(logs, labels.long(), reduction="sum")
    if output.numel() != len(output):
        raise ModelError(
            f"the output {task.output!r} has the shape {list(output.shape)}, not one number a row",
            "set task.output to the output that has one number a row.",
        )
    column, wanted = output.reshape(-1), labels.to(output.dtype)
    if task.kind == "regression":
        return (column - wanted).square().sum() / 2
    if task.link == "logit":
        return F.binary_cross_entropy_with_logits(column, wanted, reduction="sum")
    return F.binary_cross_entropy(column.clamp(_LEAST, 1 - _LEAST), wanted, reduction="sum")

"""How much each position counts on rows: what it gives, and what the loss would say if it gave nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils import _pytree as pytree

from compress.data.base import Dataset
from compress.errors import DataError, PassError
from compress.model.core import Model
from compress.passes.base import Task
from compress.passes.prune.groups import Analysis, Group
from compress.passes.prune.reads import Looking, Read, find_reads
from compress.passes.train.losses import TaskLoss

Floats = NDArray[np.float64]
_BATCH = 64


@dataclass(frozen=True)
class Sample:
    """The rows that importance is taken from.

    Attributes:
        data: Where they lie.
        rows: Their positions, `[rows]`; never test rows.
        tasks: What the Model's outputs answer; empty for none.
    """

    data: Dataset
    rows: NDArray[np.int64]
    tasks: tuple[Task, ...] = ()

    @property
    def losses(self) -> tuple[TaskLoss, ...]:
        """The loss of each task; half the squared error in units of the labels' variance for numbers."""
        found = []
        for task in self.tasks:
            spread = np.var(self.data.label(task.label)[self.rows]) if task.kind == "regression" else 0.0
            weight = 0.5 if task.kind == "regression" else 1.0
            found.append(TaskLoss(task, weight=weight, variance=float(spread) or 1.0))
        return tuple(found)

    def singles(self, model: Model) -> Iterator[tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]]:
        """Yields row by row what the graph takes, and its labels."""
        labels = {task.label: self.data.label(task.label)[self.rows] for task in self.tasks}
        done = 0
        for batch in self.data.batches_of(self.rows, _BATCH):
            for row in range(len(next(iter(batch.values())))):
                given = model.arguments({name: values[row : row + 1] for name, values in batch.items()})
                yield given, {name: torch.as_tensor(values[done : done + 1]) for name, values in labels.items()}
                done += 1


def activations(model: Model, analysis: Analysis, groups: Sequence[Group], sample: Sample) -> dict[str, Floats]:
    """Returns the root mean square of what each position gives to the calls that read it last, group -> `[size]`.

    A position that nobody reads counts as 0. Sums run in double precision, one batch in memory.

    Args:
        model: Whose graph it is.
        analysis: Of the graph.
        groups: Which groups.
        sample: Rows to run; labels are not looked at.

    Raises:
        DataError: If there are no rows.
    """
    sums = {group.name: np.zeros(group.size) for group in groups}
    counts: dict[str, int] = defaultdict(int)
    rows = 0

    def look(read: Read, value: torch.Tensor) -> torch.Tensor:
        for place, dim in read.places:
            others = [other for other in range(value.dim()) if other != place]
            squares = value.double().square()
            along = (squares.sum(dim=others) if others else squares).numpy()
            index = read.index(dim, rows)
            np.add.at(sums[read.group], index[index >= 0], along[index >= 0])
            counts[read.group] += value.numel() // len(index) * int((index >= 0).sum()) // read.axis.size
        return value

    watch = Looking(analysis.module, find_reads(analysis, groups), look)
    with torch.no_grad():
        for batch in sample.data.batches_of(sample.rows, _BATCH):
            rows = len(next(iter(batch.values())))
            watch.run(*model.arguments(batch))
    if not len(sample.rows):
        raise DataError("prune.importance: there are no calibration rows", "give data.split.calibration a share.")
    return {name: np.sqrt(found / max(1, counts[name])) for name, found in sums.items()}


def gate_gradients(
    model: Model, analysis: Analysis, groups: Sequence[Group], sample: Sample
) -> Iterator[dict[str, Floats]]:
    """Yields row by row the derivative of the row's loss by a gate on each position, group -> `[size]`.

    The gate is a factor of 1 on what is read; closing it is what a cut does. The derivative is `sum of activation times
    gradient` over all places where the position is read. Weights need no gradient, and the graph stays in eval form.
    """
    reads = find_reads(analysis, groups)
    indices: dict[tuple[Read, int], torch.Tensor] = {}
    gates: dict[str, torch.Tensor] = {}

    def look(read: Read, value: torch.Tensor) -> torch.Tensor:
        for place, dim in read.places:
            index = indices.get((read, place))
            if index is None:
                index = indices[read, place] = torch.from_numpy(read.index(dim, 1))
            gate = gates[read.group].to(value.dtype)
            factor = torch.where(index >= 0, gate[index.clamp(min=0)], torch.ones((), dtype=value.dtype))
            # A copy: what is written over in place further on would be missed by the derivative.
            value = value.clone() * factor.reshape([-1 if other == place else 1 for other in range(value.dim())])
        return value

    watch = Looking(analysis.module, reads, look)
    read_groups = {read.group for found in reads.values() for read in found}
    names = [item.name for item in model.signature.outputs]
    losses = sample.losses
    for given, labels in sample.singles(model):
        gates = {group.name: torch.ones(group.size, requires_grad=True) for group in groups}
        with torch.enable_grad():
            answer = pytree.tree_leaves(watch.run(*given))
            loss = total_loss(dict(zip(names, answer, strict=True)), labels, losses)
        used = [gates[name] for name in gates if name in read_groups]
        got = torch.autograd.grad(loss, used, allow_unused=True) if used and loss.requires_grad else [None] * len(used)
        found = dict(zip((name for name in gates if name in read_groups), got, strict=True))
        yield {
            group.name: np.zeros(group.size) if (value := found.get(group.name)) is None else value.double().numpy()
            for group in groups
        }


def total_loss(
    outputs: Mapping[str, torch.Tensor], labels: Mapping[str, torch.Tensor], losses: Sequence[TaskLoss]
) -> torch.Tensor:
    """Returns the sum of the tasks' losses over the rows, a number.

    Without tasks it is half the squared length of every floating-point answer. A row's own answer as its target would
    have no gradient; the length says how far an answer moves at all (Aljundi et al. 2018, "Memory aware synapses",
    arXiv:1711.09601, section 4.1).

    Args:
        outputs: Every output by name, `[rows, ...]`.
        labels: Label -> `[rows]`: 0 and 1, numbers of classes, or numbers.
        losses: Of what the outputs answer.

    Raises:
        ModelError: If an output has not one number a row, or one a class.
    """
    if not losses:
        floats = [value for value in outputs.values() if value.is_floating_point()]
        return torch.stack([value.square().sum() / 2 for value in floats]).sum()
    return torch.stack([loss(outputs[loss.task.output], labels[loss.task.label]).sum() for loss in losses]).sum()


def first_order(rows: Iterator[Mapping[str, Floats]]) -> dict[str, Floats]:
    """Returns the mean size of the gate's derivative, group -> `[size]`: what the loss changes by, to first order.

    Molchanov et al. 2017, arXiv:1611.06440, equation 8: the absolute value is taken row by row, so that rows which
    get better do not hide those which get worse.
    """
    return _mean(rows, np.abs)


def fisher(rows: Iterator[Mapping[str, Floats]]) -> dict[str, Floats]:
    """Returns half the mean square of the gate's derivative, group -> `[size]`: the diagonal of its Fisher information.

    What the loss grows by, to second order, where the model is at a minimum of it and labels are as likely as the model
    says (Theis et al. 2018, arXiv:1801.05787, equation 6; over coupled channels: Liu et al. 2021, arXiv:2108.00708).
    """
    return {name: values / 2 for name, values in _mean(rows, np.square).items()}


def _mean(rows: Iterator[Mapping[str, Floats]], figure: np.ufunc) -> dict[str, Floats]:
    sums: dict[str, Floats] = {}
    count = 0
    for row in rows:
        count += 1
        for name, values in row.items():
            sums[name] = sums.get(name, 0.0) + figure(values)
    if not count:
        raise DataError("prune.importance: there are no calibration rows", "give data.split.calibration a share.")
    broken = next((name for name, values in sums.items() if not np.isfinite(values).all()), None)
    if broken is not None:
        raise PassError(
            f"prune.importance: the gradient at {broken} is not a finite number on calibration rows",
            'rows with missing values? Set data.missing to a number, or choose importance = "l2".',
        )
    return {name: values / count for name, values in sums.items()}

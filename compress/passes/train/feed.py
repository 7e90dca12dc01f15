"""What a step sees: rows as tensors on the device, with the labels that are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.model.core import Model
from compress.passes.train.augment import Augment
from compress.passes.train.losses import TaskLoss
from compress.passes.train.rows import Order, Pool
from compress.passes.train.views import Views


@dataclass(frozen=True, eq=False)
class Batch:
    """The rows of one step.

    Attributes:
        positions: `[rows]` places in the pool, or among its views.
        inputs: In the Model's order, `[rows, *shape]` each.
        labels: Task name to `[rows]`; anything where `known` is false.
        known: `[rows]` whether a row has labels.
        partner: `[rows]` the row that each is mixed with; None where nothing is mixed.
        share: How much of a mixed row is its own.
    """

    positions: NDArray[np.int64]
    inputs: tuple[Tensor, ...]
    labels: Mapping[str, Tensor]
    known: Tensor
    partner: Tensor | None = None
    share: float = 1.0


@dataclass(frozen=True, eq=False)
class Feed:
    """Reads, augments and moves rows.

    Attributes:
        pool: The rows.
        source: What a step reads of them: the pool itself, or fixed forms of which each time one is drawn.
        order: Which of them a step sees.
        model: Whose inputs they are.
        device: Where they go.
        augment: What changes them anew each time; None for nothing.
    """

    pool: Pool
    source: Pool | Views
    order: Order
    model: Model
    device: torch.device
    augment: Augment | None = None

    @property
    def steps(self) -> int:
        """Batches an epoch."""
        return self.order.steps

    def batch(self, positions: NDArray[np.int64], random: np.random.Generator) -> Batch:
        """Returns the rows at these places of the pool.

        Args:
            positions: `[rows]`.
            random: What augmentation draws from.
        """
        places = self.source.draw(positions, random)
        arrays = self.source.read(places)
        partner, share = None, 1.0
        if self.augment is not None:
            mixed = self.augment(arrays, random)
            arrays, share = mixed.inputs, mixed.share
            partner = torch.from_numpy(mixed.partner).to(self.device) if share < 1 else None
        known = positions < self.pool.labelled
        own = np.where(known, positions, 0)
        return Batch(
            positions=places,
            inputs=tuple(value.to(self.device) for value in self.model.arguments(arrays)),
            labels={name: torch.from_numpy(values[own]).to(self.device) for name, values in self.pool.labels.items()},
            known=torch.from_numpy(known).to(self.device),
            partner=partner,
            share=share,
        )


def label_loss(losses: Sequence[TaskLoss], outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
    """Returns the loss of the rows that have labels, a mean over them, summed over the tasks.

    A mixed row answers both labels, each as far as it is in it (Zhang et al. 2018, arXiv:1710.09412, section 2).
    """
    total = torch.zeros((), device=batch.known.device)
    for loss in losses:
        output, labels = outputs[loss.task.output], batch.labels[loss.task.name]
        if batch.partner is None:
            total = total + _mean(loss(output, labels), batch.known)
        else:
            total = total + batch.share * _mean(loss(output, labels), batch.known)
            other = _mean(loss(output, labels[batch.partner]), batch.known[batch.partner])
            total = total + (1 - batch.share) * other
    return total


def _mean(values: Tensor, known: Tensor) -> Tensor:
    return torch.where(known, values, 0.0).sum() / known.sum().clamp(min=1)

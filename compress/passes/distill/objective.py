"""What a student minimises: the labels, the teacher's answers, and the distance inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.passes.distill.answers import Answers
from compress.passes.distill.options import DistillOptions
from compress.passes.distill.pairing import Pair, Pairing, Relation
from compress.passes.train.feed import Batch, label_loss
from compress.passes.train.losses import TaskLoss, column, log_probabilities

# An additive mask this low hides a token.
_HIDDEN = -100.0


class Distillation:
    """The objective of `DistillOptions`.

    Args:
        losses: The loss of every task.
        answers: The teacher.
        pairing: What is compared inside.
        options: The weights.
        seed: Of the projections' start.
        device: Where.
    """

    def __init__(
        self,
        losses: Sequence[TaskLoss],
        answers: Answers,
        pairing: Pairing,
        options: DistillOptions,
        seed: int,
        device: torch.device,
    ) -> None:
        self._losses = losses
        self._answers = answers
        self._pairing = pairing
        self._options = options
        generator = torch.Generator().manual_seed(seed)
        self._projections = {
            item: _projection(item, generator, device)
            for item in pairing.pairs
            if item.student.width != item.teacher.width
        }

    @property
    def parameters(self) -> Mapping[str, nn.Parameter]:
        """The projections from the student's widths to the teacher's; they go when training ends."""
        return {f"projection {index}": value for index, value in enumerate(self._projections.values())}

    def __call__(self, outputs: Mapping[str, Tensor], taps: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Returns the mean loss of a batch; rows without labels count for all but the labels."""
        options = self._options
        taught, inside = self._answers.of(batch)
        total = (1 - options.labels) * soft_loss(self._losses, outputs, taught, options.temperature)
        if options.labels:
            total = total + options.labels * label_loss(self._losses, outputs, batch)
        # Once a batch: layers share their mask.
        visible = {name: _visible(taps[name]) for name in self._pairing.masks}
        for item in self._pairing.pairs:
            weight = options.hidden if item.kind == "hidden" else options.features
            own = _projected(taps[item.student.node], self._projections.get(item))
            seen = None if item.mask is None else visible[item.mask]
            total = total + weight * distance(own, inside[item.teacher.node], seen)
        relation = self._pairing.relation
        if relation is not None:
            total = total + options.relations * _relations(relation, taps, inside, visible)
        return total


def soft_loss(
    losses: Sequence[TaskLoss], outputs: Mapping[str, Tensor], taught: Mapping[str, Tensor], temperature: float
) -> Tensor:
    """Returns the mean distance from a teacher's answers, summed over the tasks.

    With classes: the Kullback-Leibler divergence of the student from the teacher, both at a temperature, times its
    square, so that gradients keep their size (Hinton et al. 2015, section 2.1). Regression: the squared error in units
    of the labels' variance.
    """
    total = torch.zeros((), device=next(iter(outputs.values())).device)
    for loss in losses:
        task = loss.task
        own, other = outputs[task.output].float(), taught[task.output].float()
        if task.kind == "regression":
            values = (column(own, task) - column(other, task)).square() / loss.variance
        else:
            logs, wanted = (log_probabilities(value, task, temperature) for value in (own, other))
            values = temperature**2 * (wanted.exp() * (wanted - logs)).sum(dim=1)
        total = total + loss.weight * values.mean()
    return total


def distance(own: Tensor, other: Tensor, visible: Tensor | None = None) -> Tensor:
    """Returns the mean squared error in units of the teacher's variance, so that weights mean alike in all layers.

    Args:
        own: A value of the student.
        other: The teacher's, of the same shape.
        visible: `[batch, tokens]` which tokens are real, for values `[batch, tokens, width]`; None for all.
    """
    own, other = own.float(), other.float()
    if visible is not None:
        own, other = own[visible], other[visible]
    return (own - other).square().mean() / other.var().clamp(min=1e-6)


def relation_loss(own: Tensor, other: Tensor, heads: int, visible: Tensor | None) -> Tensor:
    """Returns the divergence of the relations between tokens (Wang et al. 2021, arXiv:2012.15828, equations 5 to 7).

    Args:
        own: Queries, keys or values of the student, `[batch, heads, tokens, width]`.
        other: The same of the teacher; number and width of heads may differ.
        heads: Relation heads: the channels of all heads are divided anew among them, on both sides.
        visible: `[batch, tokens]` which tokens are real; None for all.
    """
    logs, wanted = (_relation_logs(value.float(), heads, visible) for value in (own, other))
    divergence = (wanted.exp() * (wanted - logs)).sum(dim=-1).mean(dim=1)
    if visible is None:
        return divergence.mean()
    return torch.where(visible, divergence, 0.0).sum() / visible.sum().clamp(min=1)


def _relation_logs(value: Tensor, heads: int, visible: Tensor | None) -> Tensor:
    batch, _, tokens, _ = value.shape
    split = value.transpose(1, 2).reshape(batch, tokens, heads, -1).transpose(1, 2)
    scores = split @ split.transpose(-1, -2) * split.shape[-1] ** -0.5
    if visible is not None:
        # Finite, so that a hidden token adds exactly nothing and no infinity meets a zero.
        scores = scores.masked_fill(~visible[:, None, None, :], torch.finfo(scores.dtype).min)
    return F.log_softmax(scores, dim=-1)


def _relations(
    relation: Relation, taps: Mapping[str, Tensor], inside: Mapping[str, Tensor], visible: Mapping[str, Tensor]
) -> Tensor:
    own, other = relation.student, relation.teacher
    seen = None if own.mask is None else visible[own.mask]
    total = torch.zeros((), device=taps[own.query].device)
    for name, wanted in ((own.query, other.query), (own.key, other.key), (own.value, other.value)):
        total = total + relation_loss(taps[name], inside[wanted], relation.heads, seen) / 3
    return total


def _visible(mask: Tensor) -> Tensor:
    """`[batch, tokens]`: which tokens any other one may look at, from a mask `[batch, heads, tokens, tokens]`."""
    seen = mask if mask.dtype is torch.bool else mask > _HIDDEN
    return seen.flatten(1, -2).any(dim=1)


def _projection(item: Pair, generator: torch.Generator, device: torch.device) -> nn.Parameter:
    shape = (item.teacher.width, item.student.width)
    start = torch.randn(shape, generator=generator) * item.student.width**-0.5
    return nn.Parameter(start.to(device))


def _projected(value: Tensor, weight: nn.Parameter | None) -> Tensor:
    if weight is None:
        return value
    if value.dim() == 4:
        return torch.einsum("bchw,oc->bohw", value.float(), weight)
    return value.float() @ weight.T

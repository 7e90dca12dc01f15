"""The pass: a Model that goes on learning from the rows of the train split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from compress.data.base import Dataset
from compress.model.core import Model
from compress.passes.base import Change, Context, PassResult
from compress.passes.train.feed import Batch, label_loss
from compress.passes.train.losses import TaskLoss
from compress.passes.train.network import with_weights
from compress.passes.train.options import TrainOptions
from compress.passes.train.session import open_session
from compress.schema import validate


@dataclass(frozen=True)
class Labels:
    """The objective of plain training: what the labels say."""

    losses: Sequence[TaskLoss]
    parameters: Mapping[str, nn.Parameter] = field(default_factory=dict)

    def __call__(self, outputs: Mapping[str, Tensor], taps: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Returns the mean loss of the labelled rows."""
        return label_loss(self.losses, outputs, batch)


class Train:
    """Trains a Model's weights, in the graph that it has.

    Dropout and batch normalisation work as in training in a copy of the graph; the Model stays in the form in which it
    is used, and the weights of the best epoch are copied back.
    """

    def check(self, options: Mapping[str, Any], where: str) -> None:
        """Checks the options by themselves; see `ChecksOptions`."""
        _options(options, where)

    def apply(self, model: Model, data: Dataset | None, ctx: Context) -> PassResult:
        """Trains; the Model stays as it is where no epoch was better on the validation rows.

        Raises:
            RecipeError: If an option is unknown or wrong.
            PassError: If there are no rows, or training diverges.
        """
        options = _options(ctx.options, ctx.where)
        session = open_session("train", model, data, ctx, options)
        fitted = session.fit(session.network(model), Labels(session.losses))
        info, remarks = session.info(fitted), session.remarks(fitted)
        if not fitted.weights:
            return PassResult(model, (), remarks, training=info)
        change = Change(
            "weights", f"{len(fitted.weights)} tensors trained, epoch {fitted.best} of {len(fitted.epochs) - 1}"
        )
        trained = with_weights(model, fitted.weights, f"train: {options.epochs} epochs")
        return PassResult(trained, (change,), remarks, training=info)


def _options(options: Mapping[str, Any], where: str) -> TrainOptions:
    return validate(TrainOptions, dict(options), f"{where}: train")

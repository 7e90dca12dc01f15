"""What every pass that trains sets up alike: rows, losses, validation, the loop, and what is told of it."""

from __future__ import annotations

import fnmatch
import math
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compress.data.base import Dataset
from compress.errors import DataError, PassError, RecipeError, did_you_mean
from compress.evidence import ScoreInfo, TrainingInfo
from compress.model.core import Model
from compress.model.layers import MULTIPLYING, layers
from compress.passes.base import Context, Skip, Task
from compress.passes.train.augment import Augment, make_augment
from compress.passes.train.device import choose_device
from compress.passes.train.feed import Feed
from compress.passes.train.loop import Fitted, Objective, Trainer
from compress.passes.train.losses import TaskLoss
from compress.passes.train.network import Network
from compress.passes.train.options import TrainOptions
from compress.passes.train.rows import Order, Pool, class_groups, make_pool
from compress.passes.train.score import Score, Validator
from compress.passes.train.views import Views
from compress.store.cache import key

VALIDATION = "validation"


@dataclass(frozen=True, eq=False)
class Session:
    """A pass at work: what it was given, checked.

    Attributes:
        kind: The pass.
        model: What learns.
        data: Its rows; the test split is not among them.
        ctx: What the runner hands in.
        options: How to train.
        pool: The rows that are fed.
        device, precision: Where, and in which type.
    """

    kind: str
    model: Model
    data: Dataset
    ctx: Context
    options: TrainOptions
    pool: Pool
    device: torch.device
    precision: torch.dtype | None

    @property
    def where(self) -> str:
        """What stands before an option's name in a message."""
        return self.ctx.where

    @cached_property
    def losses(self) -> tuple[TaskLoss, ...]:
        """The loss of every task, with the weights that the options ask for."""
        return tuple(self._loss(task) for task in self.ctx.tasks)

    @cached_property
    def validator(self) -> Validator | None:
        """What scores; None without validation rows."""
        if not len(self.data.splits.get(VALIDATION, ())):
            return None
        plain = [replace(loss, weight=1.0, class_weights=None, focal=0.0, smoothing=0.0) for loss in self.losses]
        return Validator(self.data, VALIDATION, self.model, plain, 4 * self.options.batch)

    @cached_property
    def augment(self) -> Augment | None:
        """What changes rows; None where nothing is asked for."""
        return make_augment(self.options.augment, self.data, self.where)

    @cached_property
    def source(self) -> Pool | Views:
        """What a step reads: fixed forms of the rows, or the rows as they are, which `anew` may change each time."""
        count = self.options.augment.views
        return Views(self.pool, self.augment, count, self.ctx.seed) if self.augment is not None and count else self.pool

    @property
    def anew(self) -> Augment | None:
        """What changes rows anew each time they are read; None for nothing."""
        return self.augment if self.source is self.pool else None

    def network(self, model: Model, **arguments: Any) -> Network:
        """Returns a Model's graph ready to learn, as the options say. `arguments` go to `Network`."""
        made = Network(
            model,
            self.device,
            dropout=self.options.dropout,
            attention_dropout=self.options.attention_dropout,
            frozen_statistics=self.options.batch_norm == "frozen",
            **arguments,
        )
        made.freeze(_matching(self.options.freeze, list(made.parameters), f"{self.where}.freeze"))
        return made

    def score(self, model: Model) -> Score | None:
        """Returns the figures of a Model on the validation rows."""
        if self.validator is None:
            return None
        network = Network(model, self.device)
        return self.validator(lambda inputs: network(inputs)[0], self.device)

    def folder(self, name: str, **inputs: Any) -> Path | None:
        """Returns a folder for unfinished work that is named by what goes into it; None where none is kept.

        Folders of the same name and other inputs are of an older recipe and are no longer needed; they are removed.
        """
        if self.ctx.work is None:
            return None
        folder = self.ctx.work / key(name, **inputs, torch=torch.__version__)
        self.ctx.work.mkdir(parents=True, exist_ok=True)
        for other in self.ctx.work.glob(f"{name}-*"):
            if other != folder:
                shutil.rmtree(other, ignore_errors=True)
        return folder

    def fit(self, network: Network, objective: Objective, **inputs: Any) -> Fitted:
        """Trains a network.

        Args:
            network: What `network` gave.
            objective: What to minimise.
            inputs: JSON-able; what determines the result beside model, rows, seed and options.
        """
        groups = np.zeros(len(self.pool), np.int64)
        if self.options.sampling != "shuffle":
            groups = class_groups(self.pool, self.ctx.tasks)
        order = Order(groups, self.options.batch, self.options.sampling, self.ctx.seed)
        decayed = {layer.weight for layer in layers(self.model) if layer.operator in MULTIPLYING}
        trainer = Trainer(
            network=network,
            objective=objective,
            feed=Feed(self.pool, self.source, order, self.model, self.device, self.anew),
            validator=self.validator,
            # A tied weight has one of its names in the network.
            decayed=frozenset(decayed | {network.alias(name) for name in decayed}),
            options=self.options,
            seed=self.ctx.seed,
            precision=self.precision,
            folder=self.folder(self.kind, **self._identity(), **inputs),
            title=self.kind,
            say=self.ctx.say,
        )
        return trainer.fit()

    def info(self, fitted: Fitted, teacher: Score | None = None, pairs: Iterable[str] = ()) -> TrainingInfo:
        """Returns what the report says of a training run."""
        before, after = fitted.before, fitted.after
        names = list(before.figures) if before is not None else []
        scores = [
            ScoreInfo(
                name,
                before.figures[name] if before else None,
                after.figures[name] if after else None,
                teacher.figures[name] if teacher else None,
            )
            for name in names
        ]
        if before is not None and after is not None:
            scores.append(ScoreInfo("loss", before.loss, after.loss, teacher.loss if teacher else None))
        return TrainingInfo(
            epochs=fitted.epochs,
            best_epoch=fitted.best,
            metric=self.validator.metric if self.validator is not None else "",
            scores=tuple(scores),
            pairs=tuple(pairs),
            ended=fitted.ended,
            rows=len(self.pool),
            steps=fitted.steps,
            seconds=fitted.seconds,
        )

    def remarks(self, fitted: Fitted) -> tuple[Skip, ...]:
        """Returns what a reader must know of a run that did not go the usual way."""
        found = []
        if self.validator is None:
            found.append(
                Skip("validation", "there are no validation rows: the last epoch is kept, whatever it is worth")
            )
        elif fitted.best == 0:
            found.append(Skip("weights", f"no epoch was better than what came in ({_told(fitted)})"))
        return tuple(found)

    def _identity(self) -> dict[str, Any]:
        return {
            "model": self.model.digest,
            "rows": self.pool.fingerprint(),
            "validation": self.data.split_fingerprint(VALIDATION) if self.validator is not None else "",
            "tasks": [repr(task) for task in self.ctx.tasks],
            "options": self.options.model_dump(mode="json", exclude={"checkpoint_s"}),
            "seed": self.ctx.seed,
            "device": self.device.type,
        }

    def _loss(self, task: Task) -> TaskLoss:
        labels = self.pool.labels[task.name]
        if task.kind == "multiclass":
            _check_classes(self.model, task, labels)
        return TaskLoss(
            task=task,
            weight=self.options.task_weights.get(task.name, 1.0),
            class_weights=None if task.kind == "regression" else self._class_weights(task, labels),
            focal=self.options.focal,
            smoothing=self.options.label_smoothing,
            # Labels that are all equal on the training rows have no unit of their own.
            variance=float(np.var(labels)) or 1.0 if task.kind == "regression" else 1.0,
        )

    def _class_weights(self, task: Task, labels: Any) -> Tensor | None:
        said = self.options.class_weights
        if said == "none" or (isinstance(said, Mapping) and task.name not in said):
            return None
        counts = np.bincount(labels.astype(np.int64), minlength=2)
        if said == "balanced":
            # A class that no training row has cannot be weighted by how many there are.
            weights = np.where(counts > 0, len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1)), 1.0)
            return torch.tensor(weights, dtype=torch.float32)
        given = said[task.name] if isinstance(said, Mapping) else said
        place = f"{self.where}.class_weights" + (f".{task.name}" if isinstance(said, Mapping) else "")
        if len(given) < len(counts):
            raise RecipeError(
                f"{place} has {len(given)} weights, the label {task.label!r} {len(counts)} classes",
                "give one a class, in the order of the classes.",
            )
        weights = np.array([float(weight) for weight in given])
        mean = (weights[: len(counts)] * counts).sum() / len(labels)
        return torch.tensor(weights / mean, dtype=torch.float32)


def open_session(
    kind: str, model: Model, data: Dataset | None, ctx: Context, options: TrainOptions, unlabelled: bool = False
) -> Session:
    """Checks what a pass that trains needs, before anything expensive.

    Args:
        kind: The pass.
        model: What learns.
        data: Its rows.
        ctx: What the runner hands in.
        options: How to train.
        unlabelled: Whether rows without labels are of use.

    Raises:
        PassError: If there are no rows or no tasks.
        RecipeError: If an option names a task or a device that does not exist.
        DataError: If the train split is empty.
    """
    if data is None or not ctx.tasks:
        raise PassError(
            f"the pass {kind!r} learns from labelled rows, and there are none", "run it from a recipe with [data]."
        )
    names = [task.name for task in ctx.tasks]
    said = options.class_weights if isinstance(options.class_weights, dict) else {}
    for option, keys in (("task_weights", options.task_weights), ("class_weights", said)):
        for name in keys:
            if name not in names:
                raise RecipeError(f"{ctx.where}.{option}: there is no task {name!r}", did_you_mean(name, names))
    classes = [task for task in ctx.tasks if task.kind != "regression"]
    if isinstance(options.class_weights, tuple) and len(classes) != 1:
        raise RecipeError(
            f"{ctx.where}.class_weights is a list, and {len(classes)} tasks have classes",
            "write a table: class_weights = { task = [1.0, 5.0] }.",
        )
    device, precision = choose_device(options, ctx.where)
    pool = make_pool(data, "train", ctx.tasks, data.unlabelled if unlabelled else None)
    return Session(kind, model, data, ctx, options, pool, device, precision)


def _check_classes(model: Model, task: Task, labels: Any) -> None:
    shape = next(item.shape for item in model.signature.outputs if item.name == task.output)
    classes = shape[-1] if shape else 0
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(
            f"the label {task.label!r} holds classes from {labels.min()} to {labels.max()}, the output "
            f"{task.output!r} has {classes}",
            "a class is the position of its score; map the labels to 0, 1, ...",
        )


def _matching(patterns: Sequence[str], names: Sequence[str], where: str) -> list[str]:
    found = []
    for pattern in patterns:
        matched = [name for name in names if fnmatch.fnmatchcase(name, pattern)]
        if not matched:
            raise RecipeError(f"{where}: the pattern {pattern!r} matches no parameter", did_you_mean(pattern, names))
        found += matched
    return found


def _told(fitted: Fitted) -> str:
    seen = fitted.epochs[0]
    if seen.metric is not None:
        best = max((item.metric for item in fitted.epochs[1:] if item.metric is not None), default=math.nan)
        return f"{seen.metric:.4f} before, at best {best:.4f}"
    best = min((item.loss for item in fitted.epochs[1:] if item.loss is not None), default=math.nan)
    return f"loss {seen.loss:.4f} before, at best {best:.4f}"

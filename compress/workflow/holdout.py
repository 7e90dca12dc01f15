"""The test rows, and what is asked of the model on them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compress.data.base import Dataset
from compress.errors import RecipeError
from compress.evaluate.decisions import Decision, decide_rows
from compress.evaluate.scores import Link, TaskKind
from compress.passes.base import Task
from compress.recipe import Recipe
from compress.workflow.as_file import ask
from compress.workflow.build import Models, Opened, class_names
from compress.workflow.explained import Explained, explain_rows
from compress.workflow.plan import Plan
from compress.workflow.subjects import Subjects, take_subjects
from compress.workflow.tasks import bind_tasks


@dataclass(frozen=True)
class Question:
    """A task bound to the model and the rows: which output answers which labels, and what that output holds.

    `name` is empty where the model has one task only; `label` is the one that `labels` are the values of.
    """

    name: str
    kind: TaskKind
    output: str
    label: str
    labels: NDArray[np.generic]
    link: Link | None
    cutoff: float
    margin: float | None

    @property
    def decision(self) -> Decision:
        """How the output decides about a row."""
        return Decision(self.kind, self.link, self.cutoff)

    @property
    def task(self) -> Task:
        """What a pass is told of it; the test rows are left out."""
        return Task(self.name, self.kind, self.output, self.label, self.link)


@dataclass(frozen=True)
class Holdout:
    """The rows of a split (of what is shipped: the test rows), what feeds the model, and what is asked of it.

    Parity and robustness are measured on some of them. `class_names` are those of the only task, where it has several
    classes and the data names them.
    """

    rows: int
    inputs: Mapping[str, NDArray[np.generic]]
    questions: tuple[Question, ...]
    parity_rows: NDArray[np.int64]
    fingerprint: str
    subjects: Subjects
    disturbed_rows: NDArray[np.int64]
    explained: Explained | None
    class_names: tuple[str, ...]
    split: str = "test"

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What a pass is told of the questions."""
        return tuple(item.task for item in self.questions)


def take_holdout(
    models: Models | Opened, labels: Mapping[str, str], plan: Plan, split: str = "test", *, explain: bool = True
) -> Holdout:
    """Reads a split once, and checks what can be told of the original's answers before anything is lowered.

    Args:
        models: What answers.
        labels: Task -> label, as `load_rows` gives them.
        plan: The recipe.
        split: `test` for what is shipped; a search looks at `validation`.
        explain: Whether rows are explained, where the recipe asks for it, and disturbed.

    Raises:
        RecipeError: If a task names no output of the model, or `measure.batch` is more than there are rows.
        ModelError: If the model has no output.
        DataError: If an output does not fit its task.
    """
    dataset, settings = models.dataset, plan.recipe.measure
    rows = dataset.split(split)
    if settings.batch > len(rows):
        raise RecipeError(
            f"{plan.where}: measure.batch: {settings.batch} rows a call, but the {split} split has {len(rows)}",
            "choose a smaller batch, or bring more rows.",
        )
    config = plan.recipe.questions
    questions = tuple(
        Question(
            name=task.name,
            kind=task.kind,
            output=task.output,
            label=task.label,
            labels=dataset.label(task.label)[rows],
            link=task.link,
            cutoff=config[task.name].cutoff,
            margin=config[task.name].margin,
        )
        for task in bind_tasks(models.original, dataset, plan)
    )
    subjects = take_subjects(dataset, rows, plan.recipe, plan.where)
    inputs = dataset.reader.read(rows)
    sample = dataset.sample(split, min(settings.parity_rows, len(rows)), plan.recipe.seed, only_label(labels))
    return Holdout(
        rows=len(rows),
        inputs=inputs,
        questions=questions,
        parity_rows=np.searchsorted(rows, sample).astype(np.int64),
        fingerprint=hashlib.sha256(f"{dataset.fingerprint()}:{dataset.split_fingerprint(split)}".encode()).hexdigest(),
        subjects=subjects,
        disturbed_rows=_first_of(dataset, plan.recipe, split, rows if explain else rows[:0]),
        explained=_explained(models, inputs, questions, plan) if explain else None,
        class_names=class_names(plan.recipe, dataset),
        split=split,
    )


def take_validation(models: Models | Opened, labels: Mapping[str, str], plan: Plan) -> Holdout:
    """Returns the rows that a search decides by: the validation split, or the calibration split where that is empty."""
    split = "validation" if len(models.dataset.split("validation")) > 1 else "calibration"
    return take_holdout(models, labels, plan, split, explain=False)


def _first_of(dataset: Dataset, recipe: Recipe, split: str, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions within the split of the rows that are fed disturbed."""
    wanted = min(recipe.evaluate.robustness_rows, len(rows))
    if not wanted:
        return np.empty(0, dtype=np.int64)
    return np.searchsorted(rows, dataset.sample(split, wanted, recipe.seed)).astype(np.int64)


def _explained(
    models: Models | Opened, inputs: Mapping[str, NDArray[np.generic]], questions: Sequence[Question], plan: Plan
) -> Explained | None:
    config, timeout_s = plan.recipe.explain, plan.recipe.measure.timeout_s
    if config is None:
        return None
    deciding = next((question for question in questions if question.kind == "binary"), None)
    declined = None
    if deciding is not None:
        favourable = 0 if plan.recipe.evaluate.favourable == "negative" else 1
        decided = decide_rows(
            ask(models.original, dict(inputs), timeout_s)[deciding.output], deciding.decision, "explain"
        )
        declined = None if decided is None else decided != favourable
    return explain_rows(models.dataset, dict(inputs), declined, config, plan.recipe, plan.folder, plan.where)


def only_label(labels: Mapping[str, str]) -> str | None:
    """The label of the only task; None where there are several, and all of them count."""
    return next(iter(labels.values())) if len(labels) == 1 else None

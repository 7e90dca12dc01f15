"""The pass: fits on calibration rows, checks on rows that the fit did not see, and puts the function into the graph."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import logit
from torch.fx import GraphModule

from compress.data.base import Dataset
from compress.errors import PassError, RecipeError, did_you_mean
from compress.model.core import Model
from compress.model.edit import edited
from compress.passes.base import Change, Context, PassResult, Skip, Task
from compress.passes.recalibrate.fit import (
    Classes,
    Fit,
    Fitted,
    Floats,
    Method,
    fit_isotonic,
    fit_platt,
    fit_temperature,
    held_out,
)
from compress.passes.recalibrate.graph import EPSILON, recalibrate_output
from compress.schema import Strict, validate

_BATCH = 1024
# With fewer rows (of a class) a fit says more about these rows than about the model.
ROWS_MIN = 20
_NAMES = {"temperature": "temperature scaling", "platt": "Platt scaling", "isotonic": "isotonic regression"}


class Options(Strict):
    """`[[passes]] kind = "recalibrate"`.

    `method` is `temperature` (one factor; the only one for several classes), `platt` (factor and shift) or `isotonic`
    (a rising curve of straight lines between at most `knots` points). `tasks` names those that are recalibrated; by
    default all that decide. At most `rows` calibration rows are read.
    """

    method: Method | None = None
    tasks: tuple[str, ...] = ()
    knots: int = Field(default=20, ge=2, le=200)
    rows: int = Field(default=20_000, ge=100)


class Recalibrate:
    """Puts a rising function behind the output of each task, so that probabilities are what happened more closely.

    1. The order of scores stays. Logits stay logits, probabilities stay probabilities.
    2. It is fitted on calibration rows and their labels. Where it does not lower the log-loss of calibration rows that
       the fit did not see (five folds), the output stays as it is.
    3. Decisions at a fixed cut-off change with the probabilities: that is the point of it.
    """

    def apply(self, model: Model, data: Dataset | None, ctx: Context) -> PassResult:
        """Recalibrates the tasks that decide.

        Raises:
            RecipeError: If an option is wrong, a task is unknown, or a method does not fit a task.
            PassError: If there are no rows, too few of a class, or the scores do not rise with the labels.
        """
        options = validate(Options, dict(ctx.options), "passes: recalibrate")
        chosen, skipped = _chosen(options, ctx.tasks)
        if data is None:
            raise PassError("the pass 'recalibrate' needs rows with labels", "give the recipe data with a label.")
        rows = data.sample("calibration", options.rows, ctx.seed)
        answers = _answers(model, data, rows, tuple(task.output for task in chosen))
        changed: list[Change] = []
        found: list[tuple[Task, Fitted]] = []
        for task in chosen:
            values = _log_odds(answers[task.output], task)
            labels = data.label(task.label)[rows].astype(np.int64)
            _check_rows(labels, task)
            fit, name = _fit(task, options)
            fitted = fit(values, labels)
            before, after = held_out(fit, values, labels, ctx.seed)
            said = f"log-loss of {len(rows):,} calibration rows {before:.4f} -> {after:.4f}, each by a fit on others"
            if after < before:
                found.append((task, fitted))
                changed.append(Change(task.output, f"{name}: {fitted}; {said}"))
            else:
                skipped.append(Skip(task.output, f"{name} does not help: {said}"))
        names = [item.name for item in model.signature.outputs]
        touched = {task.output for task in chosen}
        skipped += [
            Skip(name, "no task that is recalibrated is answered by it") for name in names if name not in touched
        ]
        if not found:
            return PassResult(model, (), tuple(skipped))

        def edit(module: GraphModule) -> None:
            for task, fitted in found:
                recalibrate_output(
                    module,
                    names.index(task.output),
                    fitted,
                    is_probability=task.link == "probability",
                    classes=task.kind == "multiclass",
                )

        return PassResult(edited(model, edit, "recalibrate"), tuple(changed), tuple(skipped))


def _chosen(options: Options, tasks: tuple[Task, ...]) -> tuple[list[Task], list[Skip]]:
    known = {task.name: task for task in tasks}
    for name in options.tasks:
        if name not in known:
            raise RecipeError(f"passes: recalibrate.tasks: there is no task {name!r}", did_you_mean(name, known))
    wanted = [known[name] for name in options.tasks] if options.tasks else list(tasks)
    deciding = [task for task in wanted if task.kind != "regression"]
    skipped = [
        Skip(task.output, "a regression task has no probability") for task in wanted if task.kind == "regression"
    ]
    outputs = [task.output for task in deciding]
    for task in deciding:
        if outputs.count(task.output) > 1:
            raise RecipeError(
                f"passes: recalibrate: two tasks are answered by the output {task.output!r}",
                "name one of them in tasks; an output can be right for one of them only.",
            )
        if task.kind == "multiclass" and options.method not in (None, "temperature"):
            raise RecipeError(
                f"passes: recalibrate.method: {options.method!r} is for two classes; "
                f"{task.name or task.output!r} has more",
                'set method = "temperature", or name the other tasks in tasks.',
            )
    return deciding, skipped


def _answers(
    model: Model, data: Dataset, rows: NDArray[np.int64], outputs: tuple[str, ...]
) -> dict[str, NDArray[np.generic]]:
    parts = [model.run(batch, _BATCH) for batch in data.batches_of(rows, _BATCH)]
    return {name: np.concatenate([part[name] for part in parts]) for name in outputs}


def _log_odds(outputs: NDArray[np.generic], task: Task) -> Floats:
    """What the fit works on: log-odds `[rows]`, or logits `[rows, classes]`, as the graph will compute them."""
    values: Floats = outputs.astype(np.float64)
    if not np.isfinite(values).all():
        raise PassError(
            f"the output {task.output!r} is NaN or infinite on calibration rows",
            "look at missing values and ranges of the inputs before it is recalibrated.",
        )
    if task.kind == "multiclass":
        return np.log(np.clip(values, EPSILON, 1.0)) if task.link == "probability" else values
    values = values.reshape(len(values), -1)[:, 0]
    odds: Floats = logit(np.clip(values, EPSILON, 1 - EPSILON)) if task.link == "probability" else values
    return odds


def _check_rows(labels: Classes, task: Task) -> None:
    # One factor for all classes needs rows, not rows of each.
    few = int(np.bincount(labels, minlength=2).min()) if task.kind == "binary" else labels.size
    if few < ROWS_MIN:
        of = " of a class" if task.kind == "binary" else ""
        raise PassError(
            f"{few} calibration rows{of} are too few to recalibrate {task.output!r}; {ROWS_MIN} are needed",
            "give the calibration split a larger share: data.split.calibration.",
        )


def _fit(task: Task, options: Options) -> tuple[Fit, str]:
    method = options.method or ("platt" if task.kind == "binary" else "temperature")
    if method == "isotonic":
        return (lambda values, labels: fit_isotonic(values, labels, options.knots)), _NAMES[method]
    return (fit_platt if method == "platt" else fit_temperature), _NAMES[method]

"""Which output of the model answers which label, and what that output holds."""

from __future__ import annotations

from compress.data.base import Dataset
from compress.errors import ModelError, RecipeError, did_you_mean
from compress.evaluate.tasks import find_link
from compress.model.core import Model
from compress.model.onnx_file import OnnxFile
from compress.passes.base import Task
from compress.recipe import TaskConfig
from compress.workflow.as_file import ask
from compress.workflow.plan import Plan, find_labels

# Enough to tell a probability from a logit.
_LINK_ROWS = 256


def bind_tasks(model: Model | OnnxFile, dataset: Dataset, plan: Plan) -> tuple[Task, ...]:
    """Returns the tasks of a recipe, bound to the original's outputs; links are found on calibration rows.

    Raises:
        RecipeError: If a task names no output of the model, or no label of the data.
        ModelError: If the model has no output.
        DataError: If an output does not fit its task.
    """
    questions = plan.recipe.questions
    labels = find_labels(plan, dataset)
    outputs = {name: _output(model, name, config, plan) for name, config in questions.items()}
    # The test rows decide nothing.
    rows = dataset.split("calibration")[:_LINK_ROWS]
    answers = ask(model, dataset.reader.read(rows), plan.recipe.measure.timeout_s)
    found = []
    for name, config in questions.items():
        output = outputs[name]
        where = f"{plan.where}: the model's output {output!r} on {len(rows)} calibration rows"
        said = None if config.link == "auto" else config.link
        found.append(
            Task(name, config.kind, output, labels[name], find_link(config.kind, answers[output], said, where))
        )
    return tuple(found)


def _output(model: Model | OnnxFile, name: str, config: TaskConfig, plan: Plan) -> str:
    names = [item.name for item in model.signature.outputs]
    key, output = (f"tasks.{name}.output" if name else "task.output"), config.output
    if not names:
        raise ModelError(f"{plan.recipe.model.source}: the model has no output", "let forward return what it scores.")
    if output is None and name in names:
        return name
    if output is None and len(names) > 1:
        raise RecipeError(
            f"{plan.where}: {key} must say which of the model's {len(names)} outputs answers the label",
            f"set {key} to one of: {', '.join(names)}.",
        )
    if output is not None and output not in names:
        raise RecipeError(f"{plan.where}: {key}: the model has no output {output!r}", did_you_mean(output, names))
    return output or names[0]

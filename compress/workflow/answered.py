"""A model or score file of `edge-compress evaluate`, and what it answers on the test rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compress.data.base import Dataset
from compress.errors import DataError, ModelError, did_you_mean
from compress.evidence import ArtifactInfo, Placement
from compress.hosts import Host
from compress.hosts.calls import describe, run_outputs
from compress.model.fileinfo import identify
from compress.recipe import Recipe, TaskConfig
from compress.target import Target
from compress.workflow.arrays import Arrays
from compress.workflow.files import ModelFile, open_files
from compress.workflow.review import Ask
from compress.workflow.score_file import is_score_file, read_scores


@dataclass(frozen=True)
class Answered:
    """What a file answers on the test rows by task; of a model also how to ask it more, and where its operators run.

    `feeds` gives its name of every input of the data.
    """

    name: str
    path: Path
    answers: Arrays
    model: ModelFile | None = None
    ask: Ask | None = None
    feeds: Mapping[str, str] | None = None
    placement: Placement | None = None

    @property
    def artifact(self) -> ArtifactInfo | None:
        """The file as evidence; None of scores."""
        model = self.model
        if model is None:
            return None
        return ArtifactInfo(
            scheme=self.name,
            runtime=model.runtime,
            file=model.path.name,
            sha256=model.sha256,
            size_bytes=model.size_bytes,
            inputs=(),
            outputs=(),
            layers=(),
            notes=tuple(
                f"weights beside it: {name}, sha256 {identify(model.path.parent / name).sha256}"
                for name in model.beside
            ),
            beside=model.beside,
        )


def answer(
    path: Path,
    recipe: Recipe,
    dataset: Dataset,
    rows: NDArray[np.int64],
    inputs: Arrays,
    target: Target | None,
    host: Host,
) -> Answered:
    """Asks a file about the test rows.

    Args:
        path: A model file that a runtime opens, or a CSV of scores.
        recipe: Its tasks and data.
        dataset: All rows, for their ids.
        rows: Positions of the test rows.
        inputs: Of the test rows.
        target: Its threads, and its runtime where that opens such a file; None for one thread of the usual runtime.
        host: Where a model runs.

    Raises:
        DataError: If ids or scores cannot be used.
        ModelError: If a file cannot be opened, or has not the inputs of the data or the outputs of the tasks.
        WorkerError: If a runtime fails.
    """
    tasks = {name: answer_key(name, config) for name, config in recipe.questions.items()}
    if is_score_file(path):
        if recipe.data.id is None:
            raise DataError(
                f"{path}: the recipe's data has no ids to find its rows by", "name the column of the ids in data.id."
            )
        scores = read_scores(path, recipe.data.id, tuple(tasks.values()), dataset.ids, dataset.ids[rows])
        return Answered(str(path), path, {name: scores[key] for name, key in tasks.items()})
    (model,) = open_files([path])
    threads = target.threads if target else 1
    if target is not None and model.runs_in(target.runtime):
        model = replace(model, runtime=target.runtime)
    timeout_s = recipe.measure.timeout_s
    opened = describe(host, model.runtime, path, precision=model.precision, threads=threads, timeout_s=timeout_s)
    feeds = _inputs(tuple(opened.inputs), tuple(inputs), path)

    def run(given: Arrays, batch: int) -> Arrays:
        fed = {feeds[name]: array for name, array in given.items() if name in feeds}
        return run_outputs(host, model.runtime, path, fed, threads=threads, batch=batch, timeout_s=timeout_s)

    outputs = run(inputs, recipe.measure.batch)
    found = {name: outputs[_output(name, config, outputs, path)] for name, config in recipe.questions.items()}
    return Answered(str(path), path, found, model, lambda given: run(given, 1), feeds, opened.placement)


def answer_key(name: str, config: TaskConfig) -> str:
    """Returns what a task's answers are called, and its column of a score file."""
    return config.output or name or "score"


def _inputs(wanted: tuple[str, ...], given: tuple[str, ...], path: Path) -> dict[str, str]:
    """The data's name of each input -> the file's. A single one may be called differently."""
    if len(wanted) == len(given) == 1:
        return {given[0]: wanted[0]}
    if all(name == f"input_{index}" for index, name in enumerate(wanted)) and len(wanted) == len(given):
        # A .pte carries no names: its inputs are those of the data, in their order.
        return dict(zip(given, wanted, strict=True))
    for name in wanted:
        if name not in given:
            raise ModelError(f"{path}: the data has no input {name!r}", did_you_mean(name, given))
    return {name: name for name in wanted}


def _output(name: str, config: TaskConfig, outputs: Mapping[str, NDArray[np.generic]], path: Path) -> str:
    wanted = config.output or (name if name in outputs else None)
    if wanted in outputs:
        return str(wanted)
    # A file made elsewhere calls its only output as it likes.
    if len(outputs) == 1:
        return next(iter(outputs))
    raise ModelError(f"{path}: there is no output {wanted or name!r}", did_you_mean(wanted or name, outputs))

"""Everything a run can know before its first expensive step: recipe, targets, runtimes, data, task."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import compress
from compress.data.base import Dataset
from compress.data.checks import check_binary
from compress.data.load import load_dataset
from compress.errors import MissingPackageError, RecipeError, did_you_mean
from compress.hosts import HOSTS
from compress.recipe import QuantScheme, Recipe, TaskConfig
from compress.registry import Registry, require
from compress.store.cache import digest
from compress.target import Target, load_target
from compress.workflow.columns import with_columns

if TYPE_CHECKING:
    from compress.runtimes.base import Runtime

# What does the work of a runtime's lowering and session: a new version makes old results stale.
PACKAGES = {
    "torch": ("torch",),
    "onnxruntime": ("torch", "onnx", "onnxscript", "onnxruntime"),
    "litert": ("torch", "litert-torch", "ai-edge-quantizer", "ai-edge-litert"),
    "executorch": ("torch", "torchao", "executorch"),
}
_IMPORTS = {
    "onnxruntime": ("onnx", "onnxscript", "onnxruntime"),
    "litert": ("ai_edge_litert", "ai_edge_quantizer", "litert_torch"),
    "executorch": ("executorch", "torchao"),
}


@dataclass(frozen=True)
class Plan:
    """A checked recipe.

    Attributes:
        recipe: As resolved.
        folder: The recipe's folder; its paths are relative to it.
        where: The recipe's name for messages.
        targets: In the recipe's order.
        schemes: float32 first.
        places: Targets on whose hosts artifacts run once more, for parity.
    """

    recipe: Recipe
    folder: Path
    where: str
    targets: tuple[Target, ...]
    schemes: tuple[QuantScheme, ...]
    places: tuple[Target, ...] = ()

    @property
    def digest(self) -> str:
        """sha256 of the resolved recipe and targets."""
        targets = (*self.targets, *self.places)
        text = json.dumps([self.recipe.model_dump(mode="json"), [t.model_dump(mode="json") for t in targets]])
        return digest(text.encode())

    def schemes_for(self, target: Target) -> tuple[QuantScheme, ...]:
        """The schemes to try on a target: the recipe's, or those that the target names, float32 always first."""
        if target.schemes is None:
            return self.schemes
        return tuple(scheme for scheme in self.schemes if scheme.name in ("float32", *target.schemes))


def make_plan(recipe: Recipe, folder: Path, where: str) -> Plan:
    """Checks what can be checked without data and models; what can be told without loading torch comes first.

    Raises:
        RecipeError: If a target, a runtime or a pass does not exist, or a target names a scheme that is not tried.
        MissingPackageError: If a runtime is not installed; the hint names the extra.
    """
    targets = tuple(_target(name, folder, where) for name in recipe.targets)
    places = tuple(_place(name, folder, where) for name in recipe.parity.hosts)
    for named in (targets, places):
        names = [target.name for target in named]
        if len(set(names)) != len(names):
            raise RecipeError(f"{where}: two targets have the same name", "give each target file its own name.")
    known = {scheme.name for scheme in recipe.quant_schemes()}
    for target in targets:
        for package in _IMPORTS.get(target.runtime, ()):
            _installed(package, target, where)
        for scheme in target.schemes or ():
            if scheme not in known:
                raise RecipeError(
                    f"{where}: the target {target.name!r} names the scheme {scheme!r}, the recipe does not",
                    f"add it to the recipe's schemes; {did_you_mean(scheme, known)}",
                )
    _check_names(recipe, (*targets, *places), where)
    return Plan(recipe, folder, where, targets, recipe.quant_schemes(), places)


def runtime(name: str) -> Runtime:
    """Returns a runtime's lowering by name."""
    from compress.runtimes.base import RUNTIMES

    made: Runtime = RUNTIMES.load(name)()
    return made


def versions(name: str) -> dict[str, str]:
    """Returns the versions of what does a runtime's work (`torch`: the graph's own), for cache keys."""
    packages = PACKAGES.get(name, PACKAGES["torch"])
    return {"edge-compress": code_digest(), **{package: _version(package) for package in packages}}


@functools.cache
def code_digest() -> str:
    """sha256 over the source of the rooms whose results are kept: a change of the program makes old results stale."""
    root = Path(compress.__file__).parent
    hashed = hashlib.sha256()
    for room in ("bench", "calibrate", "model", "passes", "runtimes", "worker"):
        for path in sorted((root / room).rglob("*.py")):
            hashed.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return hashed.hexdigest()


def load_rows(plan: Plan) -> tuple[Dataset, dict[str, str]]:
    """Reads the data and decides which label each task answers.

    Returns:
        The dataset, and task -> label.

    Raises:
        RecipeError: If a task names no label, or the data has several to choose from.
        DataError: If the rows, columns, labels or splits cannot be used.
    """
    questions = plan.recipe.questions
    dealt_by = plan.recipe.task.label if not plan.recipe.tasks else next(iter(questions.values())).label
    source = plan.folder / plan.recipe.model.source
    dataset = load_dataset(
        with_columns(plan.recipe),
        plan.folder,
        where=plan.where,
        seed_label=dealt_by,
        model_folder=source if source.is_dir() else None,
    )
    return dataset, find_labels(plan, dataset)


def find_labels(plan: Plan, dataset: Dataset) -> dict[str, str]:
    """Returns which label each task answers, by the task's name.

    Raises:
        RecipeError: If a task names no label, or the data has several to choose from.
    """
    return {name: _label(dataset, name, config, plan.where) for name, config in plan.recipe.questions.items()}


def _label(dataset: Dataset, name: str, config: TaskConfig, where: str) -> str:
    wanted = config.label or (name if name in dataset.labels else None)
    if config.kind == "binary":
        return check_binary(dataset, wanted, where)
    if wanted is None and len(dataset.labels) == 1:
        return next(iter(dataset.labels))
    key = f"tasks.{name}.label" if name else "task.label"
    if wanted is None or wanted not in dataset.labels:
        known = ", ".join(sorted(dataset.labels)) or "none; set data.label"
        problem = f"there is no label {wanted!r}" if wanted else "it must say which of the labels counts"
        raise RecipeError(f"{where}: {key}: {problem}", f"known: {known}.")
    return wanted


def _target(name: str, folder: Path, where: str) -> Target:
    try:
        return load_target(name, folder)
    except RecipeError as error:
        # A target's own file is named in the message; who asked for it is not.
        raise RecipeError(f"{where}: {error.message}", error.hint) from error


def _place(name: str, folder: Path, where: str) -> Target:
    place = _target(name, folder, f"{where}: parity.hosts")
    if place.host == "local":
        raise RecipeError(
            f'{where}: parity.hosts: {name!r} is this machine (host = "local"), with which others are compared',
            'name a target on another host, such as one with host = "emulated".',
        )
    return place


def _check_names(recipe: Recipe, targets: Iterable[Target], where: str) -> None:
    """Checks the names of runtimes, hosts and passes, and the passes' options by themselves.

    Imported here: their contracts know the Model, and so torch.
    """
    from compress.passes.base import PASSES, ChecksOptions
    from compress.runtimes.base import RUNTIMES

    for target in targets:
        _known(target.runtime, RUNTIMES, f"{where}: the target {target.name!r}: runtime")
        _known(target.host, HOSTS, f"{where}: the target {target.name!r}: host")
    for index, step in enumerate(recipe.passes):
        _known(step.kind, PASSES, f"{where}: passes[{index}].kind")
        made = PASSES.load(step.kind)()
        if isinstance(made, ChecksOptions):
            made.check(step.options, f"{where}: passes[{index}]")


def _known(name: str, registry: Registry, key: str) -> None:
    if name not in registry.names():
        raise RecipeError(f"{key}: there is no {registry.kind} {name!r}", did_you_mean(name, registry.names()))


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _installed(package: str, target: Target, where: str) -> None:
    if importlib.util.find_spec(package) is None:
        try:
            require(package, why=f"the target {target.name!r}")
        except MissingPackageError as error:
            raise MissingPackageError(f"{where}: targets: {error.message}", error.hint) from error

"""Everything a run can know before its first expensive step: recipe, targets, runtimes, data, task."""

from __future__ import annotations

import importlib.metadata
import json
from dataclasses import dataclass
from pathlib import Path

from compress.data.base import Dataset
from compress.data.checks import check_binary
from compress.data.load import load_dataset
from compress.errors import MissingPackageError, RecipeError, did_you_mean
from compress.hosts import HOSTS
from compress.passes.base import PASSES
from compress.recipe import QuantScheme, Recipe
from compress.registry import require
from compress.runtimes.base import RUNTIMES, Runtime
from compress.store.cache import digest
from compress.target import Target, load_target

# What does the work of a runtime's lowering and session: a new version makes old results stale.
PACKAGES = {
    "onnxruntime": ("torch", "onnx", "onnxscript", "onnxruntime"),
    "litert": ("torch", "litert-torch", "ai-edge-quantizer", "ai-edge-litert"),
}
_IMPORTS = {
    "onnxruntime": ("onnx", "onnxscript", "onnxruntime"),
    "litert": ("ai_edge_litert", "ai_edge_quantizer"),
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
    """

    recipe: Recipe
    folder: Path
    where: str
    targets: tuple[Target, ...]
    schemes: tuple[QuantScheme, ...]

    @property
    def digest(self) -> str:
        """sha256 of the resolved recipe and targets."""
        text = json.dumps([self.recipe.model_dump(mode="json"), [t.model_dump(mode="json") for t in self.targets]])
        return digest(text.encode())

    def schemes_for(self, target: Target) -> tuple[QuantScheme, ...]:
        """The schemes to try on a target: the recipe's, or those that the target names, float32 always first."""
        if target.schemes is None:
            return self.schemes
        return tuple(scheme for scheme in self.schemes if scheme.name in ("float32", *target.schemes))


def make_plan(recipe: Recipe, folder: Path, where: str) -> Plan:
    """Checks what can be checked without data and models.

    Raises:
        RecipeError: If a target or pass does not exist.
        MissingPackageError: If a runtime is not installed; the hint names the extra.
    """
    targets = tuple(load_target(name, folder) for name in recipe.targets)
    names = [target.name for target in targets]
    if len(set(names)) != len(names):
        raise RecipeError(f"{where}: two targets have the same name", "give each target file its own name.")
    for target in targets:
        runtime(target.runtime)
        HOSTS.load(target.host)
        for package in _IMPORTS.get(target.runtime, ()):
            _installed(package, target)
        known = {scheme.name for scheme in recipe.quant_schemes()}
        for scheme in target.schemes or ():
            if scheme not in known:
                raise RecipeError(
                    f"{where}: the target {target.name!r} names the scheme {scheme!r}, the recipe does not",
                    did_you_mean(scheme, known),
                )
    for index, step in enumerate(recipe.passes):
        if step.kind not in PASSES.names():
            raise RecipeError(
                f"{where}: passes[{index}].kind: there is no pass {step.kind!r}", did_you_mean(step.kind, PASSES.names())
            )
    return Plan(recipe, folder, where, targets, recipe.quant_schemes())


def runtime(name: str) -> Runtime:
    """Returns a runtime's lowering by name."""
    made: Runtime = RUNTIMES.load(name)()
    return made


def versions(name: str) -> dict[str, str]:
    """Returns the versions of what does a runtime's work, for cache keys and the manifest."""
    found = {}
    for package in PACKAGES.get(name, ()):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def load_rows(plan: Plan) -> tuple[Dataset, str]:
    """Reads the data and decides which label the task answers.

    Returns:
        The dataset and the label's name.

    Raises:
        DataError: If the rows, columns, labels or splits cannot be used.
    """
    task = plan.recipe.task
    dataset = load_dataset(plan.recipe.data, plan.folder, where=plan.where, seed_label=task.label)
    label = check_binary(dataset, task.label, plan.where)
    return dataset, label


def _installed(package: str, target: Target) -> None:
    import importlib.util

    if importlib.util.find_spec(package) is None:
        try:
            require(package, why=f"the target {target.name!r}")
        except MissingPackageError as error:
            raise MissingPackageError(f"targets: {error.message}", error.hint) from error

"""What two files cost, for `edge-compress evaluate`: measured as a run does, and only where a bound asks for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from compress.bench.conductor import BenchItem, BenchResult
from compress.errors import RecipeError
from compress.hosts import Host
from compress.recipe import GateConfig, Recipe
from compress.target import Budgets, Target, load_target
from compress.workflow.answered import Answered
from compress.workflow.arrays import Arrays
from compress.workflow.progress import Progress
from compress.workflow.timing import time_files

# Bounds of the policy on what a file costs -> the budget of a target that says the same.
BOUNDS = {
    "max_latency_ms": "latency_ms",
    "max_size_bytes": "size_bytes",
    "max_memory_bytes": "memory_bytes",
    "min_accelerated": "min_accelerated",
}
_TIMED = ("latency_ms", "memory_bytes")


def target_of(recipe: Recipe, folder: Path, where: str, runtime: str) -> Target | None:
    """Returns the recipe's target of a runtime, whose threads and budgets then hold; None where it names none.

    Raises:
        RecipeError: If it names several with different hosts, threads or budgets.
    """
    found = [target for target in (load_target(name, folder) for name in recipe.targets) if target.runtime == runtime]
    if any(_measured(target) != _measured(found[0]) for target in found):
        raise RecipeError(
            f"{where}: targets: {', '.join(target.name for target in found)} are all of {runtime}, with other hosts,"
            " threads or budgets",
            "say which one counts with --target.",
        )
    return found[0] if found else None


def _measured(target: Target) -> tuple[object, ...]:
    """What decides about a target's figures here."""
    return target.threads, target.budgets, target.host, target.ssh, target.adb


def stated_bounds(policy: GateConfig, budgets: Budgets) -> tuple[str, ...]:
    """Returns the names of the bounds on cost that the policy or the target states."""
    stated = [key for key in BOUNDS if getattr(policy, key) is not None]
    return (*stated, *(key for key in BOUNDS.values() if getattr(budgets, key) is not None))


def measure_costs(
    sources: Sequence[Answered],
    recipe: Recipe,
    target: Target | None,
    host: Host,
    inputs: Arrays,
    progress: Progress,
) -> Mapping[str, BenchResult]:
    """Returns latency and memory of the sources that are models, interleaved, on a host.

    Nothing where no bound asks for either, or times there mean nothing: a bound that asks is then not comparable.

    Args:
        sources: The baseline first.
        recipe: How much is measured, and the policy.
        target: Threads and budgets.
        host: Where they are timed.
        inputs: Of the test rows, by the data's names.
        progress: Told what is happening.
    """
    models = [source for source in sources if source.model is not None]
    stated = stated_bounds(recipe.gate, target.budgets if target else Budgets())
    if not models or not host.tells_time or not any(BOUNDS.get(key, key) in _TIMED for key in stated):
        return {}
    progress.step(f"measuring latency and memory, {len(models)} files interleaved")
    # Each file reads its own names and leaves the others.
    fed = {ours: inputs[name] for source in models for name, ours in (source.feeds or {}).items()}
    items = [BenchItem(item.name, item.model.runtime, item.path, item.model.precision) for item in models if item.model]
    return time_files(host, items, fed, recipe, target.threads if target else 1, progress)

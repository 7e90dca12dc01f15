"""What distillation gives: one small model with and without a teacher over several seeds, and the examples' recipes.

    python benchmarks/distillation.py credit               # 5 seeds; goes on where it stopped; writes distillation.md
    python benchmarks/distillation.py multitask --seeds 5
    python benchmarks/distillation.py fashion messages     # one run of each recipe, after examples/assets.py

Rows, splits, architecture and settings are those of the example's recipe; only the seed and the share of the labels
differ between the two columns: with `labels = 1` the teacher counts nothing. A small model then learns from scratch; a
pruned one goes on from what the cut left. The test rows are read when all training is done.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from scipy.stats import t as student_t

from compress.bench.environment import environment
from compress.evaluate.tasks import compare_task
from compress.evidence import Metric
from compress.model.core import Model
from compress.model.cost import cost
from compress.recipe import PassConfig, Recipe, load_recipe
from compress.store.atomic import write_atomic
from compress.store.cache import Cache
from compress.workflow.build import open_model
from compress.workflow.holdout import Holdout, take_holdout
from compress.workflow.passes import run_passes
from compress.workflow.plan import load_rows, make_plan
from compress.workflow.progress import Silent

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parent / "examples"
DATA, TABLE = HERE / "distillation_data", HERE / "distillation.md"
RESAMPLES = 1000
# Suite -> recipes, by what the table calls them. Those of one suite are compared with each other.
SUITES = {
    "credit": {
        "credit, a small model": "credit_default/recipe-student.toml",
        "credit, pruned": "credit_default/recipe-distilled.toml",
    },
    "multitask": {
        "hard sharing": "credit_multitask/recipe-hard-distilled.toml",
        "soft sharing": "credit_multitask/recipe-soft-distilled.toml",
    },
    "fashion": {"fashion": "fashion_items/recipe-distilled.toml"},
    "messages": {"messages": "message_intent/recipe-distilled.toml"},
}
SEEDED = ("credit", "multitask")


class Told(Silent):
    """Prints what is happening, with the time."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._began = time.monotonic()

    def step(self, title: str) -> None:
        """Prints a line."""
        print(f"{time.monotonic() - self._began:7.0f} s  {self._title}  {title}", flush=True)


def main() -> None:
    """Runs what is missing, writes the table."""
    options = _options()
    torch.set_num_threads(options.threads)
    DATA.mkdir(exist_ok=True)
    for suite in options.suites:
        for name, recipe in SUITES[suite].items():
            seeds = range(options.seeds if suite in SEEDED else 1)
            for seed in seeds:
                for kind in ("distilled", "labels alone") if suite in SEEDED else ("distilled",):
                    _once(name, EXAMPLES / recipe, kind, seed, options.threads)
    text = "\n\n".join(_table()) + "\n"
    write_atomic(TABLE, text.encode())
    print(f"\n{text}")


def _once(name: str, path: Path, kind: str, seed: int, threads: int) -> None:
    """Trains one student and keeps its figures; one that is there is not trained again."""
    out = DATA / f"{name}, {kind}, {seed}.json".replace(" ", "-").replace(",", "")
    if out.is_file():
        return
    recipe = _changed(load_recipe(path), kind, seed)
    plan = make_plan(recipe, path.parent, str(path))
    told = Told(f"{name}, {kind}, seed {seed}:")
    dataset, labels = load_rows(plan)
    opened = open_model(plan, dataset, told)
    holdout = take_holdout(opened, labels, plan)
    if not isinstance(opened.source, Model) or not isinstance(opened.original, Model):
        raise SystemExit(f"{path}: the model is no graph")
    cache = Cache(HERE / ".distillation")
    passed = run_passes(opened.source, plan, opened.dataset, holdout.tasks, cache, told, {})
    trained = [step.training for step in passed.steps if step.training is not None]
    values = {
        "name": name,
        "kind": kind,
        "seed": seed,
        "threads": threads,
        "processor": environment([]).machine.get("cpu"),
        "macs": cost(passed.model).macs / cost(opened.source).macs,
        "parameters": cost(passed.model).parameters / cost(opened.source).parameters,
        "seconds": sum(item.seconds for item in trained),
        "epochs": [item.epochs[-1].epoch for item in trained],
        "validation": [
            {score.name: [score.teacher, score.before, score.after] for score in item.scores} for item in trained
        ],
        "test": list(_on_test(opened.original, passed.model, holdout)),
    }
    write_atomic(out, json.dumps(values, indent=1).encode())


def _changed(recipe: Recipe, kind: str, seed: int) -> Recipe:
    if kind == "distilled":
        return recipe.model_copy(update={"seed": seed})
    passes = tuple(
        PassConfig.model_validate({"kind": item.kind, **item.options, "labels": 1.0})
        if item.kind == "distill"
        else item
        for item in recipe.passes
    )
    return recipe.model_copy(update={"seed": seed, "passes": passes})


def _on_test(teacher: Model, student: Model, holdout: Holdout) -> Iterator[dict[str, Any]]:
    before, after = teacher.run(holdout.inputs), student.run(holdout.inputs)
    for item in holdout.questions:
        found = compare_task(
            item.kind,
            item.labels,
            before[item.output],
            after[item.output],
            task=item.name,
            link=item.link,
            cutoff=item.cutoff,
            resamples=RESAMPLES,
            seed=0,
            where=item.output,
        )
        yield from (_plain(metric) for metric in found if metric.primary)


def _plain(metric: Metric) -> dict[str, Any]:
    interval = metric.interval
    return {
        "figure": f"{metric.task} {metric.name}".strip(),
        "value": metric.value,
        "teacher": metric.baseline,
        "difference": metric.difference,
        "interval": [interval.low, interval.high] if interval is not None else None,
        "rows": metric.rows,
    }


def _table() -> Iterator[str]:
    """The tables, from all that is recorded."""
    runs = [json.loads(path.read_bytes()) for path in sorted(DATA.glob("*.json"))]
    yield "# Distillation"
    yield (
        "Written by `python benchmarks/distillation.py` from the figures in `distillation_data/`. AUC, top-1 accuracy "
        "and R² are those of the test rows, in float32, before any quantization; intervals are 95 %."
    )
    for name in dict.fromkeys(run["name"] for run in runs):
        own = [run for run in runs if run["name"] == name]
        taught = [run for run in own if run["kind"] == "distilled"]
        alone = [run for run in own if run["kind"] == "labels alone"]
        if not taught:
            continue
        yield f"## {name}"
        first = taught[0]
        seconds = [run["seconds"] for run in own]
        yield (
            f"{first['macs']:.3f} of the teacher's multiply-adds, {first['parameters']:.3f} of its parameters; seeds "
            f"{', '.join(str(run['seed']) for run in taught)}; training took {sum(seconds) / 60:.0f} minutes in all, "
            f"{min(seconds) / 60:.1f} to {max(seconds) / 60:.1f} a student "
            f"({first['threads']} thread, {first['processor']})."
        )
        yield "\n".join(_rows(taught, alone))


def _rows(taught: Sequence[dict[str, Any]], alone: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield (
        "| figure | teacher | distilled, mean over seeds | difference to the teacher, seed 0 (paired over rows) "
        "| same model, labels alone | distilled - labels alone (paired over seeds) |"
    )
    yield "|---|---|---|---|---|---|"
    by_seed = {run["seed"]: run for run in alone}
    for index, figure in enumerate(taught[0]["test"]):
        values = np.array([run["test"][index]["value"] for run in taught])
        both = [(run, by_seed[run["seed"]]) for run in taught if run["seed"] in by_seed]
        others = [other["test"][index]["value"] for _, other in both]
        gaps = [own["test"][index]["value"] - other["test"][index]["value"] for own, other in both]
        interval = figure["interval"]
        shown = f" [{interval[0]:+.4f}, {interval[1]:+.4f}]" if interval else ""
        yield (
            f"| {figure['figure']} | {figure['teacher']:.4f} | {_spread(values.tolist())} | "
            f"{figure['difference']:+.4f}{shown} | {_spread(others)} | {_paired(gaps)} |"
        )


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    return f"{mean(values):.4f}" + (f" ({min(values):.4f} to {max(values):.4f})" if len(values) > 1 else "")


def _paired(gaps: Sequence[float]) -> str:
    """The mean difference with Student's interval, and what it says."""
    if len(gaps) < 2:
        return "-"
    half = float(student_t.ppf(0.975, len(gaps) - 1)) * stdev(gaps) / math.sqrt(len(gaps))
    low, high = mean(gaps) - half, mean(gaps) + half
    said = "better" if low > 0 else "worse" if high < 0 else "no difference"
    return f"{mean(gaps):+.4f} [{low:+.4f}, {high:+.4f}]: {said}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="+", choices=list(SUITES))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()

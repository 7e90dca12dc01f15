"""Quality after the same recovery, and latency, of what both tools make of the trained Fashion-MNIST model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pruning_latency import Timed, lowered, ratio, ratios
from pruning_models import EXAMPLES, SUBJECTS, module_of
from torch.fx import GraphModule

from compress.data.base import Dataset
from compress.data.load import load_dataset
from compress.evaluate.shares import tango_interval
from compress.hosts.calls import run_outputs
from compress.hosts.local import LocalHost
from compress.model.core import Model
from compress.model.cost import cost
from compress.model.edit import batch_norms, edited
from compress.model.factory import export_module
from compress.passes.base import Context, run_pass
from compress.passes.prune.statistics import renew_statistics
from compress.recipe import load_recipe

STATISTICS_ROWS, BATCH, LEARNING_RATE, SEED = 512, 64, 1e-3, 0
# Where the peer reached its widths, ours reaches the same share of multiply-adds in these ways.
WAYS: dict[str, dict[str, Any]] = {
    "uniform": {"ratio": "$ratio", "allocation": "uniform"},
    "uniform, same MACs": {"macs": "$macs", "allocation": "uniform"},
}


@dataclass(frozen=True)
class Effort:
    """What is compared, and how much is spent on each candidate: the same on all."""

    ratios: tuple[float, ...] = (0.5,)
    train_rows: int = 2000
    epochs: int = 1
    test_rows: int = 2000


def compare(
    folder: Path,
    peer: Callable[[Mapping[str, Any]], Any],
    ways: Mapping[str, Mapping[str, Any]],
    effort: Effort,
    timed: Timed,
) -> dict[str, Any]:
    """Prunes at some ratios with both tools, recovers all alike, and compares them on the same test rows."""
    recipe = load_recipe(EXAMPLES / "fashion_items" / "recipe.toml")
    data = load_dataset(recipe.data, EXAMPLES / "fashion_items", seed_label="class")
    original = export_module(module_of("fashion_items"), SUBJECTS["fashion_items"].inputs, (), "fashion_items")
    bench = _Bench(folder, data, original, effort, timed)
    points = []
    for wanted in effort.ratios:
        common = {"ratio": wanted, "round_to": 8, "importance": "l2", "floor": 0.1}
        theirs = {name: peer({**common, "allocation": name}) for name in ("uniform", "global")}
        for name, side in theirs.items():
            point: dict[str, Any] = {"ratio": wanted, "peer": name, "ours": {}}
            points.append(point)
            if side.model is None:
                point["error"] = side.said.get("error", "it made nothing")
                reached = {"$ratio": wanted, "$macs": 1 - wanted, "$speedup": 1.0}
            else:
                point["figures"] = bench.figures(side.model, f"peer-{name}")
                speedup = 1 / point["figures"]["latency"]["onnxruntime"]["ratio"]
                reached = {"$ratio": wanted, "$macs": point["figures"]["macs_share"], "$speedup": speedup}
            for label, way in {**WAYS, **ways}.items():
                point["ours"][label] = bench.ours(way, reached, point)
    return {"original": bench.original_figures, "points": points, "settings": _settings(effort)}


class _Bench:
    """The rows, the original, and how a candidate is judged beside it."""

    def __init__(self, folder: Path, data: Dataset, original: Model, effort: Effort, timed: Timed) -> None:
        self.folder, self.data, self.original, self.effort, self.timed = folder, data, original, effort, timed
        self.train = data.sample("train", effort.train_rows, SEED)
        self.statistics = data.sample("calibration", STATISTICS_ROWS, SEED)
        self.test = data.sample("test", effort.test_rows, SEED)
        self.labels = data.labels["class"]
        self.right: dict[str, Any] = {}
        self.known: dict[str, dict[str, Any]] = {}
        self.original_figures = {
            "accuracy": float(self._right(original, "original").mean()),
            "macs": cost(original).macs,
        }

    def ours(self, way: Mapping[str, Any], reached: Mapping[str, float], point: Mapping[str, Any]) -> dict[str, Any]:
        """Prunes one way of ours; figures beside the original and, where there is one, beside the peer's."""
        options = {"importance": "l2", "round_to": 8} | {
            key: reached.get(value, value) if isinstance(value, str) else value for key, value in way.items()
        }
        try:
            model = run_pass("prune", self.original, self.data, Context(SEED, options)).model
        except Exception as error:
            return {"options": options, "error": str(error)}
        name = f"ours-{len(self.known)}"
        figures = self.figures(model, name)
        if "figures" in point:
            figures["beside_peer"] = self._beside(point["figures"]["name"], figures["name"])
        return {"options": options, **figures}

    def figures(self, model: Model, name: str) -> dict[str, Any]:
        """Recovers a candidate and measures it; an equal candidate is not measured twice."""
        if model.digest in self.known:
            return dict(self.known[model.digest])
        name = f"{name}-{len(self.known)}"
        pair = {"original": self.original, name: model}
        latency = ratios(pair, [("original", name)], self.folder, self.timed)
        before = float(self._right(model, f"{name}-raw").mean())
        recovered = self._recovered(model)
        figures = {
            "name": name,
            "macs_share": cost(model).macs / cost(self.original).macs,
            "parameters": cost(model).parameters,
            "latency": {runtime: next(iter(found.values())) for runtime, found in latency.items()},
            "accuracy_before": before,
            "accuracy": float(self._right(recovered, name).mean()),
        }
        self.known[model.digest] = figures
        return dict(figures)

    def _beside(self, peer: str, ours: str) -> dict[str, Any]:
        was, now = self.right[peer], self.right[ours]
        gained, lost = int((now & ~was).sum()), int((was & ~now).sum())
        interval = tango_interval(gained, lost, len(was), 0.95)
        found: dict[str, Any] = {
            "accuracy_difference": (gained - lost) / len(was),
            "accuracy_interval": [interval.low, interval.high],
            "latency": {},
        }
        rows = self.folder / "rows.npz"
        for runtime, suffix in (("onnxruntime", ".onnx"), ("litert", ".tflite")):
            files = [(self.folder / side).with_suffix(suffix) for side in (peer, ours)]
            if all(path.exists() for path in files):
                found["latency"][runtime] = ratio(*files, runtime, rows, self.timed)
        return found

    def _right(self, model: Model, name: str) -> Any:
        path = lowered(model, "onnxruntime", self.folder / f"judged-{name}")
        inputs = {key: np.concatenate(parts) for key, parts in self._columns(self.test).items()}
        outputs = run_outputs(LocalHost(), "onnxruntime", path, inputs, threads=1, batch=100, timeout_s=600)
        self.right[name] = next(iter(outputs.values())).argmax(1) == self.labels[self.test]
        return self.right[name]

    def _columns(self, rows: Any) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}
        for batch in self.data.batches_of(rows, 500):
            for key, values in batch.items():
                found.setdefault(key, []).append(values)
        return found

    def _recovered(self, model: Model) -> Model:
        """The same for every candidate: batch statistics anew, then a short training on the same rows in one order."""

        def recover(module: GraphModule) -> None:
            renew_statistics(module, model, self.data.batches_of(self.statistics, BATCH))
            _train(module, model, self.data, self.train, self.effort.epochs)

        return edited(model, recover, "recovered")


def _train(module: GraphModule, model: Model, data: Dataset, rows: Any, epochs: int) -> None:
    torch.manual_seed(SEED)
    norms = batch_norms(module)
    _set_training(norms, True)
    module.recompile()
    parameters = [parameter.requires_grad_(True) for parameter in module.parameters() if parameter.is_floating_point()]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=0.01)
    steps = epochs * (len(rows) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    order = np.random.default_rng(SEED)
    for _ in range(epochs):
        mixed = order.permutation(rows)
        for start in range(0, len(rows) - BATCH + 1, BATCH):
            chosen = mixed[start : start + BATCH]
            (batch,) = data.batches_of(chosen, BATCH)
            batch = {key: _mirrored(values, order) for key, values in batch.items()}
            answer = module(*model.arguments(batch))
            scores = next(iter(answer.values())) if isinstance(answer, dict) else answer
            loss = F.cross_entropy(scores, torch.from_numpy(data.labels["class"][chosen]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    _set_training(norms, False)
    for parameter in parameters:
        parameter.requires_grad_(False)
        parameter.grad = None


def _set_training(norms: list[torch.fx.Node], training: bool) -> None:
    for node in norms:
        node.update_arg(5, training)


def _mirrored(values: Any, order: np.random.Generator) -> Any:
    flipped = order.random((len(values), 1, 1, 1)) < 0.5
    return np.where(flipped, values[..., ::-1], values)


def _settings(effort: Effort) -> dict[str, Any]:
    settled = {"statistics_rows": STATISTICS_ROWS, "batch": BATCH, "learning_rate": LEARNING_RATE, "seed": SEED}
    return {**asdict(effort), **settled}

"""Rows that a tiny model can learn, and a short way to run a pass on them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tiny_models import Arrays, built, exported
from torch import Tensor, nn

from compress.data.base import Dataset
from compress.data.memory import MemoryReader
from compress.model.core import Model
from compress.passes.base import Context, PassResult, Task, run_pass

BINARY = Task("", "binary", "score", "late", "logit")
SHARES = {"train": 0.6, "calibration": 0.1, "validation": 0.15, "test": 0.15}
# Short and without averages, so that every test says what it adds.
QUICK: dict[str, Any] = {"epochs": 3, "batch": 32, "learning_rate": 0.01, "ema": 0.0, "warm_up": 0.0, "device": "cpu"}


class Scorer(nn.Module):
    """Two layers, dropout and batch normalisation between them, one logit."""

    def __init__(self, width: int = 16, dropout: float = 0.25) -> None:
        super().__init__()
        self.first = nn.Linear(6, width)
        self.norm = nn.BatchNorm1d(width)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(width, 1)

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        return {"score": self.head(self.drop(torch.relu(self.norm(self.first(features))))).squeeze(-1)}


class Plain(nn.Module):
    """A linear layer: what it learns is easily told."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 1)

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        return {"score": self.head(features).squeeze(-1)}


class Tied(nn.Module):
    """One matrix that is read twice, under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(6, 6, bias=False)
        self.again = nn.Linear(6, 6, bias=False)
        self.again.weight = self.up.weight
        self.head = nn.Linear(6, 1)

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        return {"score": self.head(torch.relu(self.again(torch.relu(self.up(features))))).squeeze(-1)}


def model_of(module: nn.Module, seed: int = 0) -> Model:
    """Gives the Model of a module on six features, its weights drawn by the seed."""
    return exported(built(lambda: _fresh(module), seed), {"features": np.zeros((2, 6), np.float32)})


def _fresh(module: nn.Module) -> nn.Module:
    for part in module.modules():
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
    return module


def dataset(
    rows: int = 400,
    *,
    noise: float = 0.0,
    rate: float = 0.5,
    seed: int = 0,
    shares: dict[str, float] = SHARES,
    unlabelled: int = 0,
) -> Dataset:
    """Gives rows of six features and three labels: `late` (0 or 1), `grade` (0, 1, 2), `amount` (a number).

    Args:
        noise: How much of the sum that decides is chance.
        rate: Share of late rows.
    """
    random = np.random.default_rng(seed)
    features = random.normal(size=(rows, 6)).astype(np.float32)
    total = features @ np.array([1.5, -1.0, 0.5, 0.0, 0.0, 0.8]) + noise * random.normal(size=rows)
    more = None
    if unlabelled:
        values = random.normal(size=(unlabelled, 6)).astype(np.float32)
        more = rows_of({"features": values}, {}, {"train": 1.0})
    labels = {
        "late": (total > np.quantile(total, 1 - rate)).astype(np.int64),
        "grade": np.digitize(total, np.quantile(total, [1 / 3, 2 / 3])).astype(np.int64),
        "amount": total.astype(np.float64),
    }
    return rows_of({"features": features}, labels, shares, more)


def rows_of(
    inputs: Arrays, labels: dict[str, NDArray[Any]], shares: dict[str, float], unlabelled: Dataset | None = None
) -> Dataset:
    """Gives arrays as a dataset; the splits are stretches of them."""
    count = len(next(iter(inputs.values())))
    ends = np.round(np.cumsum([0.0, *shares.values()]) * count).astype(int)
    splits = {
        name: np.arange(start, end)
        for name, start, end in zip(shares, ends[:-1].tolist(), ends[1:].tolist(), strict=True)
    }
    ids = np.array([f"row {row}" for row in range(count)])
    return Dataset("rows", ids, MemoryReader(inputs), labels, {}, splits, unlabelled=unlabelled)


def run(kind: str, model: Model, data: Dataset, tasks: tuple[Task, ...] = (BINARY,), **options: Any) -> PassResult:
    """Runs a pass; `ctx` among the options replaces fields of the context."""
    given = options.pop("ctx", {})
    context = Context(options={**QUICK, **options}, tasks=tasks, **{"where": "recipe.toml: passes[0]", **given})
    return run_pass(kind, model, data, context, allow_no_change=True)


def weights(model: Model) -> dict[str, NDArray[Any]]:
    """Gives every stored tensor of a Model."""
    return {name: value.detach().numpy().copy() for name, value in model.program.state_dict.items()}

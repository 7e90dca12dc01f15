"""A small real project: a trained scorer, its rows, a recipe. Built once a session, copied for each test."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file

import compress
from compress.evidence import Evidence, load_evidence
from compress.recipe import Recipe, load_recipe
from compress.workflow.progress import Silent
from compress.workflow.run import Outcome, run

ROWS = 900
FEATURES = ["income", "debt", "age", "limit", "late", "months"]
COEFFICIENTS = np.array([-1.5, 1.0, -0.4, -0.7, 1.2, 0.3])

MODEL = """
import torch
from torch import nn


class Scorer(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.first = nn.Linear(6, width)
        self.second = nn.Linear(width, width)
        self.head = nn.Linear(width, 1)

    def forward(self, features):
        hidden = torch.relu(self.first(features))
        hidden = torch.relu(self.second(hidden))
        return {"logit": self.head(hidden).squeeze(-1)}


def build(width=16):
    return Scorer(width)
"""

RECIPE: dict[str, Any] = {
    "schema": 1,
    "name": "tiny",
    "schemes": ["float32", "int8-static", "int8-dynamic"],
    "targets": ["onnxruntime-cpu"],
    "model": {"source": "model.py:build", "weights": "weights.safetensors"},
    "data": {
        "source": "rows.csv",
        "label": "defaulted",
        "id": "customer",
        "sensitive": ["group"],
        "drop": ["group"],
    },
    # Wide margins: what ships must not hang on how a processor rounds.
    "gate": {"auc_margin": 0.05, "min_agreement": 0.9, "max_ece_increase": 0.5},
    "measure": {"pairs": 5, "max_pairs": 5, "seconds": 0.02, "resamples": 200},
}


@dataclass(frozen=True)
class Project:
    """A folder with `model.py`, `weights.safetensors`, `rows.csv`, `recipe.toml`, and `out/` once it ran."""

    folder: Path

    @property
    def recipe(self) -> Path:
        return self.folder / "recipe.toml"

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def change(self, **changes: Any) -> Project:
        """Writes the recipe with other values; tables are merged, None removes a key."""
        self.recipe.write_text(toml(merged(RECIPE, changes)), encoding="utf-8")
        return self

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return path

    def run(self, out: Path | None = None) -> Outcome:
        """Runs in this process, as the command does: the folder belongs to the recipe's file."""
        folder = out or self.out
        owner = owner_of(self.load(), self.recipe, folder)
        return run(self.load(), self.folder, folder, owner, str(self.recipe), Silent())

    def load(self) -> Recipe:
        return load_recipe(self.recipe)

    def evidence(self) -> Evidence:
        return load_evidence(self.out / "evidence.json")

    def manifest(self) -> dict[str, Any]:
        manifest: dict[str, Any] = json.loads((self.out / "manifest.json").read_bytes())
        return manifest

    def forget(self, *steps: str) -> None:
        """Removes finished steps, by how their names begin."""
        for step in steps:
            found = list((self.out / ".cache" / "steps").glob(f"{step}-*.json"))
            assert found, f"there is no step {step}"
            for path in found:
                path.unlink()

    def copy_to(self, folder: Path) -> Project:
        shutil.copytree(self.folder, folder, symlinks=True)
        return Project(folder)


def owner_of(recipe: Recipe, source: Path, out: Path) -> str:
    return f"{recipe.name} ({os.path.relpath(source.absolute(), out.absolute())})"


def make(folder: Path) -> Project:
    """Writes the project; the model is trained for a moment so that its figures mean something."""
    folder.mkdir(parents=True)
    frame = rows()
    frame.to_csv(folder / "rows.csv", index=False)
    project = Project(folder)
    project.write("model.py", MODEL)
    project.change()
    save_file(_trained(frame), folder / "weights.safetensors")
    return project


def rows() -> pd.DataFrame:
    random = np.random.default_rng(0)
    features = random.normal(size=(ROWS, len(FEATURES))).round(4)
    chance = 1 / (1 + np.exp(-(features @ COEFFICIENTS)))
    frame = pd.DataFrame(features, columns=FEATURES)
    frame.insert(0, "customer", np.arange(70_000, 70_000 + ROWS))
    frame["group"] = random.integers(1, 3, ROWS)
    frame["defaulted"] = (random.random(ROWS) < chance).astype(int)
    return frame


def _trained(frame: pd.DataFrame) -> dict[str, torch.Tensor]:
    names: dict[str, Any] = {}
    exec(MODEL, names)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = names["build"]()
        features = torch.tensor(frame[FEATURES].to_numpy(np.float32))
        labels = torch.tensor(frame["defaulted"].to_numpy(np.float32))
        optimizer = torch.optim.Adam(module.parameters(), 1e-2)
        for _ in range(60):
            optimizer.zero_grad()
            loss = torch.nn.functional.binary_cross_entropy_with_logits(module(features)["logit"], labels)
            loss.backward()
            optimizer.step()
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    result = copy.deepcopy(dict(values))
    for key, value in changes.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result


def toml(values: Mapping[str, Any]) -> str:
    """Values as TOML: plain keys first, then tables, then arrays of tables."""
    return "\n".join(_lines(values, ())) + "\n"


def _lines(values: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    tables = {key: value for key, value in values.items() if isinstance(value, Mapping)}
    arrays = {
        key: value
        for key, value in values.items()
        if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value)
    }
    lines = [
        f"{json.dumps(key)} = {json.dumps(value)}"
        for key, value in values.items()
        if key not in tables and key not in arrays
    ]
    for key, value in tables.items():
        here = (*path, key)
        lines += ["", f"[{'.'.join(json.dumps(part) for part in here)}]", *_lines(value, here)]
    for key, items in arrays.items():
        here = (*path, key)
        for item in items:
            lines += ["", f"[[{'.'.join(json.dumps(part) for part in here)}]]", *_lines(item, here)]
    return lines


def check_whole(out: Path) -> dict[str, Any]:
    """Checks that the current run holds exactly what its manifest lists, every hash recomputed."""
    current = out / "current"
    manifest: dict[str, Any] = json.loads((current / "manifest.json").read_bytes())
    listed = {entry["path"]: entry for entry in manifest["files"]}
    there = {path.relative_to(current).as_posix() for path in current.rglob("*") if path.is_file()}
    assert there == {*listed, "manifest.json"}
    for path, entry in listed.items():
        data = (current / path).read_bytes()
        assert hashlib.sha256(data).hexdigest() == entry["sha256"], path
        assert len(data) == entry["size_bytes"], path
    return manifest


def tree(folder: Path) -> dict[str, str]:
    """Every file and link below a folder, with its content or target: what must not change."""
    return {
        path.relative_to(folder).as_posix(): str(path.readlink())
        if path.is_symlink()
        else hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def program(*arguments: object) -> list[str]:
    """The command line of a process of its own."""
    return [sys.executable, "-m", "compress", *(str(argument) for argument in arguments)]


def environment(**variables: str) -> dict[str, str]:
    """The environment of such a process: it finds this package, wherever it starts."""
    return {**os.environ, "PYTHONPATH": str(Path(compress.__file__).resolve().parents[1]), **variables}

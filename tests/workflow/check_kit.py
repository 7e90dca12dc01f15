"""A project with one guarded model file, and a worker whose times come from a table. Needs no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from compress.bench.race import MAX_PAIRS
from compress.hosts.local import LocalHost
from compress.workflow.baseline import Baselines
from compress.workflow.check import CheckOptions, check
from compress.workflow.progress import Silent
from compress.workflow.save_baseline import save

__all__ = ["MAX_PAIRS", "Bench", "LocalHost", "write_model"]


def write_model(path: Path, note: str, width: int = 8) -> Path:
    """A tiny scorer; `note` makes its bytes differ, as an export by another version would."""
    random = np.random.default_rng(0)
    weights = {"first": random.normal(size=(4, width)), "second": random.normal(size=(width, 2))}
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "first"], ["hidden"], "first_layer"),
            helper.make_node("Relu", ["hidden"], ["active"], "active"),
            helper.make_node("MatMul", ["active", "second"], ["score"], "second_layer"),
        ],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
        doc_string=note,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


class Bench:
    """The project, and a canned worker: a duel's ratio is that of the candidate's note."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = write_model(folder / "model.onnx", "v1")
        self.baselines = Baselines(folder, folder / "store")
        self.ratio, self.sd, self.load = 1.0, 0.003, 1.0
        self.memory = {"v1": 0, "v2": 0}
        self.operators: dict[str, list[dict[str, Any]]] = {}
        self.crash: dict[str, Exception] = {}
        self.jobs: list[dict[str, Any]] = []
        self._random = np.random.default_rng(0)

    def save(self, name: str = "main") -> None:
        save(self.baselines, name, [self.file], (), Silent())

    def change(self) -> None:
        """The file that ships is another one now."""
        write_model(self.file, "v2")

    def check(self, **options: Any) -> Any:
        return check(self.baselines, CheckOptions(**{"budget_s": 30, **options}), Silent())

    def row(self, **options: Any) -> Any:
        (row,) = self.check(**options).rows
        return row

    def answer(self, job: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        self.jobs.append(dict(job))
        action = str(job["action"])
        if action in self.crash:
            raise self.crash[action]
        if action == "empty":
            return {"schema": 1, "peak_rss_bytes": 30 << 20}
        note = onnx.load(job["artifact"]).graph.doc_string
        if action == "describe":
            found = self.operators.get(note) or [{"operator": "MatMul", "count": 2, "accelerated": True, "reason": ""}]
            return {
                "schema": 1,
                "inputs": {"x": {"shape": [None, 4], "dtype": "float32"}},
                "outputs": {"score": {"shape": [None, 2], "dtype": "float32"}},
                "placement": {"path": "CPU", "operators": found},
            }
        if action == "latency":
            return {
                "schema": 1,
                "samples_ms": [2.0 * float(np.exp(self._random.normal(0, self.sd)))] * 5,
                "calls_per_sample": 1,
                "load_ms": 8.0,
                "first_ms": 3.0,
                "peak_rss_bytes": (34 << 20) + self.memory[note],
            }
        ratio = self.ratio * float(np.exp(self._random.normal(0, self.sd)))
        load = self.load * float(np.exp(self._random.normal(0, 0.02)))
        return {
            "schema": 1,
            "artifact_wall_ms": [2.0] * 3,
            "rival_wall_ms": [2.0 * ratio] * 3,
            "artifact_cpu_ms": [2.0] * 3,
            "rival_cpu_ms": [2.0 * ratio] * 3,
            "artifact_waits": 0.0,
            "rival_waits": 0.0,
            "artifact_load_ms": 8.0,
            "rival_load_ms": 8.0 * load,
        }


def children() -> list[int]:
    """Worker processes of this process that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == os.getpid() and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found

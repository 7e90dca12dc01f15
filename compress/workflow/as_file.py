"""What a run does otherwise with a model that stays a file: asked and calibrated in its own runtime, never changed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compress.calibrate import Method, Ranges
from compress.evidence import ModelInfo, StepInfo
from compress.hosts.calls import run_outputs
from compress.hosts.local import LocalHost
from compress.model import cost
from compress.model.core import Model
from compress.model.onnx_beside import DataFile
from compress.model.onnx_file import OnnxFile
from compress.runtimes.base import Lowered
from compress.workflow.plan import Plan

RUNTIME = "onnxruntime"
_BATCH = 256
Arrays = dict[str, NDArray[np.generic]]


def ask(model: Model | OnnxFile, inputs: Mapping[str, NDArray[np.generic]], timeout_s: float) -> Arrays:
    """Returns what the original answers, `[rows, ...]` by output: a graph here, a file in a worker.

    Raises:
        WorkerError: If the worker failed.
    """
    if isinstance(model, Model):
        return model.run(inputs)
    return _run(model.data, inputs, _BATCH, timeout_s, model.beside)


def observe(
    lowered: Lowered, batches: Iterable[Mapping[str, NDArray[np.generic]]], method: Method, timeout_s: float
) -> Ranges:
    """Returns the ranges of a file's values over the rows, a worker a batch: values are no longer there behind it.

    Raises:
        WorkerError: If the worker failed.
        DataError: If a value is NaN or infinite.
    """
    from compress.runtimes.onnxruntime.direct import ranges_from, watched

    data, names = watched(lowered, whole=method.name != "min-max")
    told = (_run(data, batch, len(next(iter(batch.values()))), timeout_s) for batch in batches)
    return ranges_from(told, names, method)


def model_info(model: Model | OnnxFile) -> ModelInfo:
    """Returns the figures that stand in the evidence. Of a file, multiply-adds count where their shapes are known."""
    if isinstance(model, Model):
        return cost.describe(model)
    from compress.runtimes.onnxruntime.inspect import describe_bytes

    found = describe_bytes(model.data, "model.onnx")
    return ModelInfo(
        digest=model.digest,
        parameters=found.parameters,
        macs=found.macs or 0,
        bytes=len(model.data) + sum(item.size_bytes for item in model.beside),
        layers=len(found.layers),
        inputs=tuple(
            f"{item.name}: {item.dtype}[batch{''.join(f', {size}' for size in item.shape)}]"
            for item in model.signature.inputs
        ),
        outputs=tuple(item.name for item in model.signature.outputs),
    )


def not_possible(model: OnnxFile, plan: Plan) -> tuple[StepInfo, ...]:
    """Returns the import and every pass as steps that changed nothing, with the reason."""
    info = model_info(model)
    nodes = tuple((f"{operator} (node {node!r})", "cannot be imported") for operator, node in model.unsupported)
    kinds = [*(config.kind for config in plan.recipe.passes), "fold_batch_norm"]
    reason = f"not possible on a file that is no graph: {model.reason}"
    return (
        StepInfo("import", (), nodes, info, info),
        *(StepInfo(kind, (), (("the whole model", reason),), info, info) for kind in kinds),
    )


def _run(
    data: bytes,
    inputs: Mapping[str, NDArray[np.generic]],
    batch: int,
    timeout_s: float,
    beside: tuple[DataFile, ...] = (),
) -> Arrays:
    with tempfile.TemporaryDirectory(prefix="edge-compress-") as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(data)
        for item in beside:
            item.lay(path.parent)
        return run_outputs(LocalHost(), RUNTIME, path, inputs, threads=1, batch=batch, timeout_s=timeout_s)

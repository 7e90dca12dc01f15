"""A Model from an `.onnx` file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from compress.errors import CompressError, ModelError
from compress.model.core import MAX_BATCH, Model, TensorInfo, example_inputs
from compress.model.factory import model_from_program
from compress.model.onnx_import.build import build
from compress.model.onnx_import.errors import UnsupportedOperatorsError
from compress.model.onnx_import.fold import fold
from compress.model.onnx_import.fuse import fuse
from compress.model.onnx_import.graph import Graph
from compress.model.onnx_import.module import OnnxModule
from compress.model.onnx_import.names import name_weights
from compress.model.onnx_import.proto import read_model
from compress.model.onnx_import.quantized import refuse_quantized
from compress.model.onnx_import.rows import OPEN, check_rows
from compress.model.onnx_import.signature import MAX_FIXED_BATCH, input_infos, with_outputs
from compress.model.onnx_import.summary import fixed_batch
from compress.model.onnx_import.table import unsupported
from compress.model.onnx_import.tensors import TensorReader
from compress.model.silence import silenced


def load_onnx(path: Path, outputs: tuple[str, ...] = (), sizes: Mapping[str, tuple[int, ...]] | None = None) -> Model:
    """Reads a trained `.onnx` file into a graph of torch, with a dynamic batch.

    A batch that is fixed in the file is opened where the graph allows it; that rows do not depend on each other is then
    checked by running it.

    Args:
        path: The file; large weights may lie in other files of its folder.
        outputs: Which of its outputs to keep, or new names for all of them; without it, all.
        sizes: Input name to shape without batch, for dimensions that the file leaves open.

    Raises:
        UnsupportedOperatorsError: If operators cannot be imported; it lists them.
        UnsafeFileError: If external data leaves the model's folder or passes through a link.
        ModelError: If the file is damaged, quantized already, leaves sizes open, or its fixed batch cannot be opened.
        MissingPackageError: If onnx is not installed.
    """
    read = read_module(path, outputs, sizes)
    program = _export(read)
    if read.fixed_batch is not None:
        check_rows(read.module, program, read.inputs, read.fixed_batch, str(path))
    model = model_from_program(program, read.outputs, path.name, names=tuple(info.name for info in read.inputs))
    dropped = f"without the inputs {', '.join(read.orphans)}, which nothing reads"
    return replace(model, lineage=(*model.lineage, dropped)) if read.orphans else model


@dataclass(frozen=True)
class Read:
    """A file as a module, before it is exported.

    Attributes:
        module: Runs the file's nodes.
        inputs: What it takes, in order, without the batch.
        outputs: Names of what it gives, in order.
        fixed_batch: The batch size that stands in the file, None where it is open.
        orphans: Declared inputs that nothing reads.
    """

    module: OnnxModule
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[str, ...]
    fixed_batch: int | None
    orphans: tuple[str, ...]


def read_module(path: Path, outputs: tuple[str, ...] = (), sizes: Mapping[str, tuple[int, ...]] | None = None) -> Read:
    """Reads a file into a module; arguments and errors are those of `load_onnx`."""
    where = str(path)
    whole = build(read_model(path), path)
    graph, names = with_outputs(whole, outputs, where)
    refuse_quantized(graph, where)
    missing = unsupported(graph)
    if missing:
        raise UnsupportedOperatorsError(where, missing)
    inputs = input_infos(graph, sizes or {}, where)
    fed = [info.name for info in inputs]
    fixed = _fixed_batch(graph, fed, where)
    draft = fold(graph, TensorReader(path))
    fuse(draft, graph.outputs)
    module = OnnxModule(draft, name_weights(draft, fed), fed, graph.outputs, graph.opset, fixed, where)
    orphans = tuple(item.name for item in whole.inputs if item.name not in fed)
    return Read(module.eval(), inputs, names, fixed, orphans)


def _fixed_batch(graph: Graph, fed: Sequence[str], where: str) -> int | None:
    fixed = fixed_batch([item.shape[0] for item in graph.inputs if item.name in fed and item.shape])
    if fixed is not None and not 1 <= fixed <= MAX_FIXED_BATCH:
        raise ModelError(f"{where}: its batch is fixed to {fixed}", OPEN)
    return fixed


def _export(read: Read) -> torch.export.ExportedProgram:
    where, fixed = read.module.where, read.fixed_batch
    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    try:
        with silenced("torch._subclasses.fake_tensor"):
            return torch.export.export(
                read.module,
                example_inputs(read.inputs, rows=2),
                dynamic_shapes=tuple({0: batch} for _ in read.inputs),
                strict=False,
            )
    except UnsupportedOperatorsError:
        raise
    except Exception as error:
        message = (
            error.message if isinstance(error, CompressError) else f"{type(error).__name__}: {_first_lines(error)}"
        )
        if fixed is not None:
            raise _closed(where, fixed, message.removeprefix(f"{where}: ")) from error
        if isinstance(error, CompressError):
            raise
        raise ModelError(
            f"{where}: the graph does not export with a dynamic batch: {message}",
            "export it again with a dynamic batch and without control flow on values.",
        ) from error


def _first_lines(error: Exception) -> str:
    return " ".join(line.strip() for line in str(error).splitlines()[:2])[:300]


def _closed(where: str, fixed: int, reason: str) -> ModelError:
    return ModelError(f"{where}: its batch is fixed to {fixed} and cannot be opened: {reason[:400]}", OPEN)

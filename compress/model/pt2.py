"""A Model from a `.pt2` archive, screened before torch opens it."""

from __future__ import annotations

import io
from pathlib import Path

import torch

from compress.errors import ModelError
from compress.model.core import MAX_BATCH, Model, example_inputs
from compress.model.factory import model_from_program
from compress.model.screen import screen_pt2


def load_pt2(path: Path, outputs: tuple[str, ...] = ()) -> Model:
    """Reads an exported program and gives it a dynamic batch where it has none.

    Args:
        path: The archive.
        outputs: Names for its outputs; without them the archive's own, or `output_0` and so on.

    Raises:
        UnsafeFileError: If opening the archive would run code.
        ModelError: If it cannot be read, is in training form, or holds a fixed batch that cannot be opened.
    """
    screen_pt2(path)
    try:
        program = torch.export.load(io.BytesIO(path.read_bytes()))
    except Exception as error:
        first = next(iter(str(error).splitlines()), "")
        raise ModelError(
            f"{path}: torch cannot read it: {type(error).__name__}: {first[:200]}",
            f"export it again with torch {torch.__version__.partition('+')[0]}.",
        ) from error
    if not _dynamic(program):
        program = _reexport(program, path)
    return model_from_program(program, outputs, path.name)


def _user_values(program: torch.export.ExportedProgram) -> list[object]:
    by_name = {node.name: node for node in program.graph.nodes}
    return [by_name[str(name)].meta.get("val") for name in program.graph_signature.user_inputs if str(name) in by_name]


def _dynamic(program: torch.export.ExportedProgram) -> bool:
    return all(
        isinstance(value, torch.Tensor) and value.dim() > 0 and isinstance(value.shape[0], torch.SymInt)
        for value in _user_values(program)
    )


def _reexport(program: torch.export.ExportedProgram, path: Path) -> torch.export.ExportedProgram:
    """Exports once more with a dynamic batch. Works when no view in the graph has the old batch written into it."""
    from compress.model.core import TensorInfo

    values = _user_values(program)
    if not all(isinstance(value, torch.Tensor) and value.dim() > 0 for value in values):
        raise ModelError(f"{path}: an input is not a tensor with a batch dimension", "export it with tensor inputs.")
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    inputs = tuple(
        TensorInfo(str(name), tuple(int(size) for size in value.shape[1:]), str(value.dtype).removeprefix("torch."))
        for name, value in zip(program.graph_signature.user_inputs, tensors, strict=True)
    )
    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    try:
        return torch.export.export(
            program.module(check_guards=False),
            example_inputs(inputs, rows=2),
            dynamic_shapes=tuple({0: batch} for _ in inputs),
            strict=False,
        )
    except Exception as error:
        raise ModelError(
            f"{path}: its batch size is fixed to {int(tensors[0].shape[0])} and cannot be opened",
            "export it with a dynamic batch: dynamic_shapes=({0: torch.export.Dim('batch', min=1)},), "
            "example inputs of two rows.",
        ) from error

"""A Model from a `.pt2` archive, screened before torch opens it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.utils import _pytree as pytree

from compress.errors import ModelError
from compress.model.core import MAX_BATCH, Model, TensorInfo, example_inputs
from compress.model.factory import model_from_program
from compress.model.screen import screened_pt2


def load_pt2(path: Path, outputs: tuple[str, ...] = ()) -> Model:
    """Reads an exported program and gives it a dynamic batch where it has none.

    Inputs that were exported by keyword or inside a dictionary become plain ones, by the names that the graph gives
    them: `codes`, `features_age`.

    Args:
        path: The archive.
        outputs: Names for its outputs; without them the archive's own, or `output_0` and so on.

    Raises:
        UnsafeFileError: If opening the archive would run code.
        ModelError: If it cannot be read, is in training form, has an input that is not a tensor or of which more than
            the batch is dynamic, or holds a fixed batch that cannot be opened.
    """
    screened = screened_pt2(path)
    try:
        program = torch.export.load(screened)
    except Exception as error:
        first = next(iter(str(error).splitlines()), "")
        raise ModelError(
            f"{path}: torch cannot read it: {type(error).__name__}: {first[:200]}",
            f"export it again with torch {torch.__version__.partition('+')[0]}.",
        ) from error
    tensors = _tensor_inputs(program, path)
    _flatten(program)
    if not _open(program, tensors):
        program = _reexport(program, tensors, path)
    return model_from_program(program, outputs, path.name)


def _tensor_inputs(program: torch.export.ExportedProgram, path: Path) -> dict[str, torch.Tensor]:
    """The inputs' traced values, by name, each with a batch and otherwise fixed."""
    by_name = {node.name: node for node in program.graph.nodes}
    found: dict[str, torch.Tensor] = {}
    for position, user_input in enumerate(program.graph_signature.user_inputs):
        name = str(user_input)
        value = by_name[name].meta.get("val") if name in by_name else None
        if not isinstance(value, torch.Tensor) or not value.dim():
            shown = f"{name!r} is" if isinstance(value, torch.Tensor) else f"number {position + 1} is {name}:"
            raise ModelError(
                f"{path}: its input {shown} not a tensor with a batch dimension",
                "export it with the tensors that it scores as its only inputs, batch first.",
            )
        dynamic = [axis for axis, size in enumerate(value.shape) if axis and isinstance(size, torch.SymInt)]
        if dynamic:
            raise ModelError(
                f"{path}: dimension {dynamic[0]} of its input {name!r} is dynamic",
                "export it with a dynamic first dimension, the batch, and every other dimension fixed.",
            )
        found[name] = value
    return found


def _flatten(program: torch.export.ExportedProgram) -> None:
    """Lets the program take its inputs one by one. The graph does so anyway; only the call around it differs."""
    call = program.module_call_graph[0].signature
    names = [str(name) for name in program.graph_signature.user_inputs]
    if call is not None:
        call.in_spec = pytree.tree_structure((tuple(range(len(names))), {}))
        call.forward_arg_names = names
    # The archive's example rows have the old structure, and nobody needs them.
    program._example_inputs = None


def _open(program: torch.export.ExportedProgram, tensors: dict[str, torch.Tensor]) -> bool:
    """Whether all inputs share one dynamic batch of every size that will be asked for."""
    sizes = [tensor.shape[0] for tensor in tensors.values()]
    symbols = {str(size) for size in sizes if isinstance(size, torch.SymInt)}
    ranges = {str(symbol): allowed for symbol, allowed in program.range_constraints.items()}
    if len(symbols) != 1 or not all(isinstance(size, torch.SymInt) for size in sizes):
        return False
    allowed = ranges.get(symbols.pop())
    # A lower bound of 2 is how a trace says "not specialised to 0 and 1".
    return allowed is not None and bool(allowed.lower <= 2) and bool(allowed.upper >= MAX_BATCH)


def _reexport(
    program: torch.export.ExportedProgram, tensors: dict[str, torch.Tensor], path: Path
) -> torch.export.ExportedProgram:
    """Exports once more with a dynamic batch. Works when no view in the graph has the old batch written into it."""
    inputs = tuple(
        TensorInfo(name, tuple(int(size) for size in value.shape[1:]), str(value.dtype).removeprefix("torch."))
        for name, value in tensors.items()
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
            f"{path}: its batch size is fixed to {next(iter(tensors.values())).shape[0]} and cannot be opened",
            "export it with a dynamic batch: dynamic_shapes=({0: torch.export.Dim('batch', min=1)},), "
            "example inputs of two rows.",
        ) from error

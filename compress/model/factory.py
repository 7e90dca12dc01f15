"""A Model from Python source: a factory that the user names builds the module, a file brings its weights."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.utils import _pytree as pytree

from compress.errors import ModelError, did_you_mean
from compress.model.core import MAX_BATCH, Model, Signature, TensorInfo, check_eval, example_inputs, tie
from compress.model.cost import shape_for_one
from compress.model.weights import load_into
from compress.recipe import ModelConfig
from compress.userfunction import load_function


def build_module(config: ModelConfig, folder: Path) -> torch.nn.Module:
    """Calls the factory and loads the weights.

    Raises:
        ModelError: If the factory is missing, raises, or returns no module; if the weights do not fit.
    """
    factory = load_function(config.source, folder, "model.source", ModelError)
    try:
        module = factory(**config.arguments)
    except Exception as error:
        place = _last_frame(error)
        raise ModelError(
            f"model.source: {config.source} raised {type(error).__name__}: {error}{place}",
            "call it by hand with model.arguments and correct what it says.",
        ) from error
    if not isinstance(module, torch.nn.Module):
        raise ModelError(
            f"model.source: {config.source} returned a {type(module).__name__}, not a torch.nn.Module",
            "return the module itself.",
        )
    if config.weights is not None:
        load_into(module, folder / config.weights)
    return module.eval()


def export_module(
    module: torch.nn.Module, inputs: Sequence[TensorInfo], outputs: Sequence[str], where: str
) -> Model:
    """Exports a module with a dynamic batch.

    Args:
        module: In eval form.
        inputs: What it takes, by the names of `forward`'s parameters; the only input may have any name.
        outputs: Names for outputs that the module itself does not name.
        where: What the module is, for messages and lineage.

    Raises:
        ModelError: If names do not match, or the module does not export: with the operator and the source line.
    """
    ordered = _match_inputs(module, tuple(inputs), where)
    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    try:
        program = torch.export.export(
            module,
            example_inputs(ordered, rows=2),
            dynamic_shapes=tuple({0: batch} for _ in ordered),
            strict=False,
        )
    except Exception as error:
        raise ModelError(
            f"{where}: the model does not export: {_first_lines(error)}{_last_frame(error)}",
            "rewrite that line without Python control flow on tensor values and without a fixed batch size.",
        ) from error
    return model_from_program(program, tuple(outputs), where, names=tuple(item.name for item in ordered))


def model_from_program(
    program: torch.export.ExportedProgram, outputs: tuple[str, ...], where: str, names: tuple[str, ...] | None = None
) -> Model:
    """Wraps an exported program: checks that it is in eval form, ties weights, reads the signature.

    Raises:
        ModelError: If it is in training form, or the output names do not fit.
    """
    check_eval(program, where)
    tie(program)
    by_name = {node.name: node for node in program.graph.nodes}
    inputs = []
    for index, user_input in enumerate(program.graph_signature.user_inputs):
        value = by_name[str(user_input)].meta.get("val")
        if not isinstance(value, torch.Tensor):
            raise ModelError(f"{where}: the input {user_input!r} is not a tensor", "export with tensor inputs only.")
        name = names[index] if names else str(user_input)
        inputs.append(TensorInfo(name, shape_for_one(value)[1:], str(value.dtype).removeprefix("torch.")))
    return Model(program, Signature(tuple(inputs), _outputs(program, by_name, outputs, where)), (where,))


def _outputs(
    program: torch.export.ExportedProgram, by_name: dict[str, torch.fx.Node], wanted: tuple[str, ...], where: str
) -> tuple[TensorInfo, ...]:
    leaves = [str(name) for name in program.graph_signature.user_outputs]
    specification = program.call_spec.out_spec
    paths = pytree.tree_flatten_with_path(pytree.tree_unflatten(list(range(len(leaves))), specification))[0]
    own = [_path_name(path) for path, _ in paths]
    names = list(wanted) or [name or "output" for name in own]
    if len(names) != len(leaves):
        raise ModelError(
            f"{where}: model.outputs names {len(names)} outputs, the model has {len(leaves)}",
            "name each output once, in order.",
        )
    result: list[TensorInfo] = []
    for name, leaf in zip(names, leaves, strict=True):
        value = by_name[leaf].meta.get("val") if leaf in by_name else None
        if not isinstance(value, torch.Tensor):
            raise ModelError(f"{where}: the output {name!r} is not a tensor", "return tensors only.")
        shape = shape_for_one(value)
        if not shape or not isinstance(value.shape[0], torch.SymInt):
            raise ModelError(
                f"{where}: the output {name!r} has shape {tuple(value.shape)} and no batch dimension",
                "return one row of output for each row of input, batch first.",
            )
        result.append(TensorInfo(name, shape[1:], str(value.dtype).removeprefix("torch.")))
    return tuple(result)


def _path_name(path: tuple[object, ...]) -> str:
    parts = [str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", "")))) for key in path]
    if not parts:
        return ""
    return "_".join(f"output_{part}" if part.isdigit() and len(parts) == 1 else part for part in parts)


def _match_inputs(module: torch.nn.Module, inputs: tuple[TensorInfo, ...], where: str) -> tuple[TensorInfo, ...]:
    parameters = [
        parameter
        for parameter in inspect.signature(module.forward).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    needed = [parameter.name for parameter in parameters if parameter.default is parameter.empty]
    if len(inputs) == 1 and len(needed) <= 1 and parameters:
        return (TensorInfo(parameters[0].name, inputs[0].shape, inputs[0].dtype),)
    given = {item.name: item for item in inputs}
    names = [parameter.name for parameter in parameters]
    for name in given:
        if name not in names:
            raise ModelError(f"{where}: the model has no input {name!r}", did_you_mean(name, names))
    missing = [name for name in needed if name not in given]
    if missing:
        raise ModelError(
            f"{where}: nothing feeds the model's input {missing[0]!r}",
            f"add it to [data.inputs]; the model takes: {', '.join(names)}.",
        )
    return tuple(given[name] for name in names if name in given)


def _first_lines(error: Exception, limit: int = 300) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines[:3])
    return f"{type(error).__name__}: {text[:limit]}"


def _last_frame(error: Exception) -> str:
    """The innermost line that is not torch's own: the user's line that failed."""
    skipped = ("/torch/", "/site-packages/", "/compress/model/", "<frozen", "<eval", "<string")
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not any(part in frame.filename for part in skipped)
    ]
    if not frames:
        return ""
    frame = frames[-1]
    line = f": {frame.line}" if frame.line else ""
    return f" ({Path(frame.filename).name}, line {frame.lineno}{line})"

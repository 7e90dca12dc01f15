"""A Model from Python source: a factory that the user names builds the module, a file brings its weights."""

from __future__ import annotations

import inspect
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.utils import _pytree as pytree

from compress.errors import ModelError, did_you_mean
from compress.model.core import MAX_BATCH, Model, Signature, TensorInfo, check_eval, example_inputs, tie
from compress.model.cost import shape_for_one
from compress.model.weights import load_into
from compress.recipe import ModelConfig
from compress.userfunction import call_function, load_function


def build_module(config: ModelConfig, folder: Path) -> torch.nn.Module:
    """Calls the factory and loads the weights.

    Raises:
        ModelError: If the factory is missing, raises, or returns no module; if the weights do not fit.
    """
    factory = load_function(config.source, folder, "model.source", ModelError)
    module = call_function(factory, config.arguments, "model.source", ModelError)
    if not isinstance(module, torch.nn.Module):
        raise ModelError(
            f"model.source: {config.source} returned a {type(module).__name__}, not a torch.nn.Module",
            "return the module itself.",
        )
    if config.weights is not None:
        load_into(module, folder / config.weights)
    return module.eval()


def export_module(module: torch.nn.Module, inputs: Sequence[TensorInfo], outputs: Sequence[str], where: str) -> Model:
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
        fed = ", ".join(f"{item.name} {[2, *item.shape]}" for item in ordered)
        raise ModelError(
            f"{where}: the model does not export: {_first_lines(error)}{_last_frame(error)}; it was given {fed}",
            "rewrite that line without Python control flow on tensor values and without a fixed batch size; "
            "if a shape is wrong, check data.features, data.drop and data.inputs.",
        ) from error
    return model_from_program(program, tuple(outputs), where, names=tuple(item.name for item in ordered))


def model_from_program(
    program: torch.export.ExportedProgram, outputs: tuple[str, ...], where: str, names: tuple[str, ...] | None = None
) -> Model:
    """Wraps an exported program: checks that it is in eval form, ties weights, reads the signature.

    Args:
        program: Its inputs are tensors, the first dimension of each the same dynamic batch.
        outputs: Names for its outputs; without them its own, or `output_0` and so on.
        where: What it is, for messages and lineage.
        names: Names for its inputs; without them its own.

    Raises:
        ModelError: If it is in training form, an output is not one row for each row, or names are not unique.
    """
    check_eval(program, where)
    tie(program)
    by_name = {node.name: node for node in program.graph.nodes}
    placeholders = [str(name) for name in program.graph_signature.user_inputs]
    values = [by_name[placeholder].meta["val"] for placeholder in placeholders]
    if not values:
        raise ModelError(f"{where}: the model has no input", "let forward take what it scores as arguments.")
    inputs = tuple(
        TensorInfo(name, shape_for_one(value)[1:], str(value.dtype).removeprefix("torch."))
        for name, value in zip(names or placeholders, values, strict=True)
    )
    signature = Signature(inputs, _outputs(program, values[0].shape[0], outputs, where))
    _check_unique(signature, where)
    return Model(program, signature, (where,))


def _outputs(
    program: torch.export.ExportedProgram, batch: int | torch.SymInt, wanted: tuple[str, ...], where: str
) -> tuple[TensorInfo, ...]:
    by_name = {node.name: node for node in program.graph.nodes}
    leaves = [str(name) for name in program.graph_signature.user_outputs]
    specification = program.call_spec.out_spec
    paths = pytree.tree_flatten_with_path(pytree.tree_unflatten(list(range(len(leaves))), specification))[0]
    names = list(wanted) or [_path_name(path) for path, _ in paths]
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
        sizes = [str(size) for size in value.shape]
        if sizes[:1] != [str(batch)] or any(isinstance(size, torch.SymInt) for size in value.shape[1:]):
            shown = ", ".join(sizes).replace(str(batch), "batch")
            raise ModelError(
                f"{where}: the output {name!r} has shape [{shown}], which is not one row for each row of input",
                "return one row of output for each row of input, batch first.",
            )
        result.append(TensorInfo(name, shape_for_one(value)[1:], str(value.dtype).removeprefix("torch.")))
    return tuple(result)


def _check_unique(signature: Signature, where: str) -> None:
    counts = Counter(item.name for item in (*signature.inputs, *signature.outputs))
    name, count = counts.most_common(1)[0]
    if count > 1:
        raise ModelError(
            f"{where}: {name!r} is the name of {count} inputs or outputs, and a file's tensors need names of their own",
            "name the outputs in model.outputs, each once, in order.",
        )


def _path_name(path: tuple[object, ...]) -> str:
    name = "_".join(str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", "")))) for key in path)
    return name if name and not name[0].isdigit() else f"output_{name}".rstrip("_")


def _match_inputs(module: torch.nn.Module, inputs: tuple[TensorInfo, ...], where: str) -> tuple[TensorInfo, ...]:
    parameters = [
        parameter
        for parameter in inspect.signature(module.forward).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    needed = [parameter.name for parameter in parameters if parameter.default is parameter.empty]
    names = [parameter.name for parameter in parameters]
    if len(inputs) == 1 and inputs[0].name not in names and len(needed) <= 1 and parameters:
        return (TensorInfo(names[0], inputs[0].shape, inputs[0].dtype),)
    given = {item.name: item for item in inputs}
    for name in given:
        if name not in names:
            raise ModelError(f"{where}: the model has no input {name!r}", did_you_mean(name, names))
    missing = [name for name in needed if name not in given]
    if missing:
        raise ModelError(
            f"{where}: nothing feeds the model's input {missing[0]!r}",
            f"add it to [data.inputs]; the model takes: {', '.join(names)}.",
        )
    # Inputs are handed over by position, so a gap would shift everything behind it.
    gap = [name for name in names[: len(given)] if name not in given]
    if gap:
        raise ModelError(
            f"{where}: nothing feeds the model's optional input {gap[0]!r}, which stands before others that are fed",
            "move it behind them in forward, or feed it in [data.inputs].",
        )
    return tuple(given[name] for name in names[: len(given)])


def _first_lines(error: Exception, limit: int = 300) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines[:3])
    return f"{type(error).__name__}: {text[:limit]}"


def _last_frame(error: Exception) -> str:
    """The innermost line that is not torch's own: the user's line that failed."""
    ours = [Path(torch.__file__).parent, Path(__file__).parent]
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<")
        and "site-packages" not in frame.filename
        and not any(Path(frame.filename).is_relative_to(folder) for folder in ours)
    ]
    if not frames:
        return ""
    frame = frames[-1]
    line = f": {frame.line}" if frame.line else ""
    return f" ({Path(frame.filename).name}, line {frame.lineno}{line})"

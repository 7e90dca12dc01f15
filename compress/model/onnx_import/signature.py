"""What a model takes and gives: inputs with every size but the batch's known, outputs by the names asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from compress.errors import ModelError, did_you_mean
from compress.model.core import TensorInfo
from compress.model.onnx_import.graph import Graph, Input, live
from compress.model.onnx_import.summary import open_sizes, read_inputs
from compress.model.onnx_import.tensors import DTYPES

# A row larger than this is no input but a damaged file.
MAX_ROW_ELEMENTS = 1 << 26
MAX_FIXED_BATCH = 4096


def with_outputs(graph: Graph, wanted: Sequence[str], where: str) -> tuple[Graph, tuple[str, ...]]:
    """Returns the graph with only the outputs that are wanted, and the names to give them.

    Args:
        graph: With all of its outputs.
        wanted: Names of outputs of the file, which are chosen in that order; or new names for all of them; or nothing,
            for all as they are.
        where: The file.

    Raises:
        ModelError: If a name is no output and there is not a new name for each.
    """
    if not wanted:
        chosen, names = graph.outputs, graph.outputs
    elif all(name in graph.outputs for name in wanted):
        chosen, names = tuple(wanted), tuple(wanted)
    elif len(wanted) == len(graph.outputs) and not set(wanted) & set(graph.outputs):
        chosen, names = graph.outputs, tuple(wanted)
    else:
        unknown = next(name for name in wanted if name not in graph.outputs)
        raise ModelError(f"{where}: the model has no output {unknown!r}", did_you_mean(unknown, graph.outputs))
    constant = next((name for name in chosen if name in graph.constants), None)
    if constant is not None:
        raise ModelError(f"{where}: its output {constant!r} is a constant", "name the other outputs in model.outputs.")
    return replace(graph, outputs=chosen, nodes=live(graph.nodes, chosen)), names


def input_infos(graph: Graph, sizes: Mapping[str, tuple[int, ...]], where: str) -> tuple[TensorInfo, ...]:
    """Returns the inputs that something reads, in the order of the file, without the batch.

    Args:
        graph: With the wanted outputs.
        sizes: Input name to shape without batch, for what the file leaves open; the only input may have any name.
        where: The file.

    Raises:
        ModelError: If a size is left open, or the given ones do not fit.
    """
    read = read_inputs(graph)
    used = [item for item in graph.inputs if item.name in read]
    if not used:
        raise ModelError(f"{where}: no output depends on an input", "name other outputs in model.outputs.")
    given = dict(sizes)
    if len(used) == 1 and len(given) == 1:
        given = {used[0].name: next(iter(given.values()))}
    left = {item.name: open_sizes(item) for item in used if item.name not in given}
    if any(left.values()):
        shown = "; ".join(f"{name}: {', '.join(names)}" for name, names in left.items() if names)
        raise ModelError(
            f"{where}: it leaves dimensions behind the batch open ({shown})",
            "the data's shapes give them their sizes; every row must have the same.",
        )
    return tuple(_info(item, given.get(item.name), where) for item in used)


def _info(item: Input, given: tuple[int, ...] | None, where: str) -> TensorInfo:
    dtype = DTYPES.get(item.data_type)
    if dtype is None:
        raise ModelError(f"{where}: its input {item.name!r} is no tensor of numbers", "feed it numbers.")
    if item.shape is not None and not item.shape:
        raise ModelError(f"{where}: its input {item.name!r} has no batch dimension", "export it with the batch first.")
    declared = item.shape[1:] if item.shape is not None else given or ()
    if given is not None and (
        len(given) != len(declared)
        or any(isinstance(old, int) and old != new for old, new in zip(declared, given, strict=True))
    ):
        shown = "".join(f", {size or '?'}" for size in declared)
        raise ModelError(
            f"{where}: its input {item.name!r} is [batch{shown}], the data gives "
            f"[batch{''.join(f', {size}' for size in given)}]",
            "check data.features, data.inputs and data.drop.",
        )
    shape = given if given is not None else tuple(int(size) for size in declared)
    if min(shape, default=1) < 1 or math.prod(shape) > MAX_ROW_ELEMENTS:
        raise ModelError(f"{where}: its input {item.name!r} has the impossible shape {list(shape)}", "export it again.")
    return TensorInfo(item.name, shape, str(dtype).removeprefix("torch."))

"""Which rows of a table are looked up: by the rows of the data, and by the graph itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.fx import GraphModule, Interpreter, Node

from compress.data.base import Dataset
from compress.errors import PassError
from compress.model.core import Model
from compress.model.edit import get_parameter
from compress.model.layers import Layer
from compress.passes.watch import Seen, watch
from compress.passes.weights import SharedWeight

# Reads a map from ids to rows, of which no id is a weight.
INDEX = torch.ops.aten.index.Tensor
_BATCH = 256


def lookups(
    module: GraphModule, model: Model, chosen: Sequence[SharedWeight], data: Dataset, rows: NDArray[np.int64]
) -> dict[str, NDArray[np.int64]]:
    """Returns how often rows look up each row of each table; only what computes the ids is run.

    Args:
        module: The graph with its weights inside.
        model: Whose inputs it takes.
        chosen: The tables.
        data: Whose rows.
        rows: Their positions; never test rows.

    Returns:
        Name of the table -> `[its rows]`.

    Raises:
        PassError: If a row looks up what is not there.
    """
    nodes = {node.name: node for node in module.graph.nodes}
    counts = {}
    seen: dict[str, list[NDArray[np.int64]]] = {}
    for weight in chosen:
        counts[weight.name] = np.zeros(len(get_parameter(module, weight.name)), np.int64)
        for layer in weight.layers:
            ids = nodes[layer.node].args[1]
            if isinstance(ids, Node):
                seen.setdefault(ids.name, []).append(counts[weight.name])

    def observer(targets: list[NDArray[np.int64]]) -> Seen:
        def look(value: torch.Tensor) -> None:
            ids = value.numpy().ravel()
            for target in targets:
                outside = ids[(ids < 0) | (ids >= len(target))]
                if outside.size:
                    raise PassError(
                        f"rows look up {outside[0]} in a table of {len(target)} rows",
                        "train and calibration rows must hold only what the model knows.",
                    )
                target += np.bincount(ids, minlength=len(target))

        return look

    watch(module, model, data.batches_of(rows, _BATCH), {name: observer(targets) for name, targets in seen.items()})
    return counts


def is_mapped(module: GraphModule, layer: Layer) -> bool:
    """Whether a look-up reads its row's number out of a map already."""
    ids = next(node for node in module.graph.nodes if node.name == layer.node).args[1]
    if not isinstance(ids, Node) or ids.target is not INDEX or not isinstance(ids.args[0], Node):
        return False
    return ids.args[0].op == "get_attr" and get_parameter(module, str(ids.args[0].target)).dtype == torch.int32


def fixed_ids(module: GraphModule, weight: SharedWeight) -> tuple[set[int], bool]:
    """Returns the ids that the graph itself looks up, as positions, and whether no row can look up others."""
    nodes = {node.name: node for node in module.graph.nodes}
    found: set[int] = set()
    closed = True
    for layer in weight.layers:
        ids = nodes[layer.node].args[1]
        needed = _needed(ids) if isinstance(ids, Node) else []
        if not isinstance(ids, Node) or any(node.op == "placeholder" for node in needed):
            closed = False
        else:
            constants = Interpreter(module)
            with torch.no_grad():
                for node in sorted(needed):
                    constants.env[node] = constants.run_node(node)
            found |= set(constants.env[ids].ravel().tolist())
    return found, closed


def _needed(value: Node) -> set[Node]:
    found, left = {value}, [value]
    while left:
        more = [node for node in left.pop().all_input_nodes if node not in found]
        found.update(more)
        left += more
    return found

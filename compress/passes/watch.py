"""What values of a graph are on rows: streamed, and only as much of the graph is run as they need."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.fx import GraphModule, Interpreter, Node

from compress.model.core import Model

Seen = Callable[[torch.Tensor], None]


class _Watch(Interpreter):
    """Runs what the watched values need, shows each of them once a batch, and forgets it."""

    def __init__(self, module: GraphModule, seen: Mapping[str, Seen]) -> None:
        super().__init__(module)
        self._seen = seen
        self._needed: set[Node] = set()
        left = [node for node in module.graph.nodes if node.name in seen]
        while left:
            node = left.pop()
            if node not in self._needed:
                self._needed.add(node)
                left += node.all_input_nodes

    def run_node(self, n: Node) -> Any:
        # Placeholders take their argument off a list, so each of them must be met.
        if n.op != "placeholder" and n not in self._needed:
            return None
        value = super().run_node(n)
        if n.name in self._seen:
            self._seen[n.name](value)
        return value


def watch(
    module: GraphModule, model: Model, batches: Iterable[Mapping[str, NDArray[np.generic]]], seen: Mapping[str, Seen]
) -> None:
    """Shows values of a graph to their observers, batch by batch, in the order in which they are computed.

    Args:
        module: The graph with its weights inside.
        model: Whose inputs it takes.
        batches: Input name to `[rows, *shape]`; never test rows.
        seen: Name of the node -> what is called with its value.
    """
    watching = _Watch(module, seen)
    with torch.no_grad():
        for batch in batches:
            # What leaves the graph is not computed, so it cannot be put together either.
            watching.run(*model.arguments(batch), enable_io_processing=False)

"""Additions of branches between convolutions: what a residual network runs on integers between its layers."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from compress.model.core import Model
from compress.model.layers import fused_activation, layers, without_dropout

_ADDITIONS = ("aten.add.Tensor", "aten.add_.Tensor")


@dataclass(frozen=True)
class Join:
    """One addition of two values that come from convolutions, or from other such additions.

    Attributes:
        node: Name of the call in the graph, and of its output value.
        inputs: Names of what is added.
        fused: Name of the only reader when that is a clipping activation, else None.
    """

    node: str
    inputs: tuple[str, str]
    fused: str | None

    @property
    def output(self) -> str:
        """Name of the value that leaves, behind a fused activation."""
        return self.fused or self.node


def joins(model: Model) -> tuple[Join, ...]:
    """Returns the additions in the order in which they run.

    Only between convolutions: the stream of a Transformer, which every block adds to, loses its digits when each sum is
    rounded to eight bits.
    """
    known = {name for layer in layers(model) if "conv" in layer.operator for name in (layer.node, layer.output)}
    found = []
    for node in model.program.graph.nodes:
        if node.op != "call_function" or str(node.target) not in _ADDITIONS or node.kwargs:
            continue
        parts = [without_dropout(part) for part in node.args if isinstance(part, torch.fx.Node)]
        if len(parts) != 2 or any(part.name not in known for part in parts):
            continue
        if parts[0].meta["val"].shape != parts[1].meta["val"].shape:
            continue
        join = Join(node.name, (parts[0].name, parts[1].name), fused_activation(node))
        found.append(join)
        known |= {join.node, join.output}
    return tuple(found)

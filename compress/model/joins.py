"""What stands between the layers of a convolutional network and runs on integers with them: sums and averages."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from compress.model.core import Model
from compress.model.layers import fused_activation, layers, without_dropout

_SUMS = ("aten.add.Tensor", "aten.add_.Tensor")
_AVERAGES = ("aten.mean.dim", "aten.adaptive_avg_pool2d.default", "aten.avg_pool2d.default")


@dataclass(frozen=True)
class Join:
    """A sum of two values, or an average of one, that come from convolutions or from other joins.

    Attributes:
        node: Name of the call in the graph, and of its output value.
        inputs: Names of what goes in.
        fused: Name of the only reader when that is a clipping activation, else None.
    """

    node: str
    inputs: tuple[str, ...]
    fused: str | None

    @property
    def output(self) -> str:
        """Name of the value that leaves, behind a fused activation."""
        return self.fused or self.node


def joins(model: Model) -> tuple[Join, ...]:
    """Returns the joins in the order in which they run.

    Only behind convolutions: the stream of a Transformer, which every block adds to, loses its digits when each sum is
    rounded to eight bits.
    """
    known = {name for layer in layers(model) if "conv" in layer.operator for name in (layer.node, layer.output)}
    found = []
    for node in model.program.graph.nodes:
        parts = _parts(node)
        if not parts or any(part.name not in known for part in parts):
            continue
        if any(part.meta["val"].shape != parts[0].meta["val"].shape for part in parts):
            continue
        fused = fused_activation(node) if len(parts) == 2 else None
        join = Join(node.name, tuple(part.name for part in parts), fused)
        found.append(join)
        known |= {join.node, join.output}
    return tuple(found)


def _parts(node: torch.fx.Node) -> list[torch.fx.Node]:
    """What a sum adds or an average is taken of; nothing for any other node."""
    if node.op != "call_function" or node.kwargs:
        return []
    given = [without_dropout(part) for part in node.args if isinstance(part, torch.fx.Node)]
    if str(node.target) in _SUMS:
        return given if len(given) == 2 else []
    return given[:1] if str(node.target) in _AVERAGES else []

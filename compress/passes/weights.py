"""Weights with every layer that reads them, and what goes into these layers on rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.fx import GraphModule, Node

from compress.model.core import Model
from compress.model.edit import get_parameter, readers
from compress.model.layers import Layer
from compress.passes.base import Skip
from compress.passes.moments import Moments
from compress.passes.watch import Seen, watch

CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")


@dataclass(frozen=True)
class SharedWeight:
    """One weight, whatever its names, and the layers that read it.

    Attributes:
        name: Its full name, the first one that is met.
        layers: In the order in which they run; several where a module is called twice or weights are tied.
        inputs: Names of the values that go into them, each once.
        alone: Whether nothing else reads it.
    """

    name: str
    layers: tuple[Layer, ...]
    inputs: tuple[str, ...]
    alone: bool

    def refusals(self, reasons: Mapping[str, str]) -> list[Skip]:
        """Returns why it cannot be changed; empty where every one of its layers may be.

        Args:
            reasons: Layer name -> why not; empty where the layer may be changed.
        """
        left_out = [layer for layer in self.layers if reasons[layer.name]]
        if left_out:
            shared = f"its weight is that of {left_out[0].name}, which stays"
            return [Skip(layer.name, reasons[layer.name] or shared) for layer in self.layers]
        if not self.alone:
            return [Skip(layer.name, "its weight is read by something else, too") for layer in self.layers]
        return []


def shared_weights(module: GraphModule, found: Sequence[Layer]) -> tuple[SharedWeight, ...]:
    """Groups layers by the weight that they read.

    Args:
        module: The graph with its weights inside.
        found: All of its layers, as `compress.model.layers.layers` gives them.
    """
    nodes = {node.name: node for node in module.graph.nodes}
    groups: dict[int, list[Layer]] = {}
    for layer in found:
        groups.setdefault(_storage(module, layer.weight), []).append(layer)
    result = []
    for group in groups.values():
        calls = {nodes[layer.node] for layer in group}
        inputs = dict.fromkeys(_input(nodes[layer.node], layer) for layer in group)
        alone = calls.issuperset(readers(module, group[0].weight))
        result.append(SharedWeight(group[0].weight, tuple(group), tuple(inputs), alone))
    return tuple(result)


def chosen_weights(
    module: GraphModule, found: Sequence[Layer], reasons: Mapping[str, str]
) -> tuple[list[SharedWeight], list[Skip]]:
    """Returns the weights of which every call is chosen, and a reason for each of the others.

    Args:
        module: The graph with its weights inside.
        found: All of its layers.
        reasons: Layer -> "" where it is chosen, else why not.
    """
    chosen: list[SharedWeight] = []
    skipped: list[Skip] = []
    for weight in shared_weights(module, found):
        refusals = weight.refusals(reasons)
        skipped += refusals
        if not refusals:
            chosen.append(weight)
    return chosen, skipped


def names_of(module: GraphModule, name: str) -> list[str]:
    """Returns every name that the graph reads a parameter under."""
    place = _storage(module, name)
    held = [str(node.target) for node in module.graph.find_nodes(op="get_attr")]
    return list(dict.fromkeys(other for other in held if _storage(module, other) == place))


def moments_of(
    module: GraphModule,
    model: Model,
    batches: Iterable[Mapping[str, NDArray[np.generic]]],
    weights: Sequence[SharedWeight],
) -> dict[str, Moments]:
    """Returns the moments of the channels that go into each weight; layers that read one value share them.

    Args:
        module: The graph with its weights inside.
        model: Whose inputs it takes.
        batches: Never of test rows.
        weights: Of linear layers and convolutions.

    Returns:
        Name of the weight -> moments over all values that go in.
    """
    kept: dict[tuple[bool, tuple[str, ...]], Moments] = {}
    found = {}
    for weight in weights:
        convolution = weight.layers[0].operator in CONVOLUTIONS
        found[weight.name] = kept.setdefault((convolution, weight.inputs), Moments())

    def observer(name: str) -> Seen:
        own = [(convolution, moments) for (convolution, inputs), moments in kept.items() if name in inputs]

        def seen(value: torch.Tensor) -> None:
            for convolution, moments in own:
                moments.update(value.movedim(1, -1) if convolution else value)

        return seen

    names = {name for _, inputs in kept for name in inputs}
    watch(module, model, batches, {name: observer(name) for name in names})
    return found


def _input(call: Node, layer: Layer) -> str:
    # What the layer's table calls its input is the value before dropouts; here it is the argument itself.
    value = call.args[1 if layer.operator in ("embedding", "addmm") else 0]
    return value.name if isinstance(value, Node) else layer.input


def _storage(module: GraphModule, name: str) -> int:
    return get_parameter(module, name).untyped_storage().data_ptr()

"""Where a static scheme rounds, and the quantizers that simulate it put into a graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch.fx import GraphModule, Node

from compress.calibrate.fake import output_axis
from compress.errors import RecipeError
from compress.model.core import Model
from compress.model.layers import Layer, layers, select
from compress.passes.base import Skip
from compress.passes.qat.fake import FakeActivation, FakeWeight
from compress.processors import adds_in_16_bits
from compress.recipe import QuantScheme
from compress.target import Target

# Kinds of layers that every runtime here has integer kernels for.
_KINDS = ("linear", "addmm", "matmul", "conv1d", "conv2d")
# Runtimes that round what leaves a layer of any kind.
_ROUNDS_ALL = {"litert", "executorch"}
Bounds = tuple[float, float]


@dataclass(frozen=True)
class Sites:
    """What is rounded.

    Attributes:
        layers: Whose weights and inputs are.
        outputs: Names of those whose outputs are, too.
        limit: Steps of a weight on each side of zero.
        per_channel: Whether each output channel has a scale of its own.
        skipped: Layers that stay float, with the reason.
    """

    layers: tuple[Layer, ...]
    outputs: frozenset[str]
    limit: int
    per_channel: bool
    skipped: tuple[Skip, ...]

    @property
    def values(self) -> tuple[str, ...]:
        """Names of the values that are rounded, each once."""
        inputs = [layer.input for layer in self.layers]
        return tuple(dict.fromkeys([*inputs, *(item.output for item in self.layers if item.name in self.outputs)]))


def find_sites(model: Model, scheme: QuantScheme, targets: Sequence[Target], where: str) -> Sites:
    """Returns what a static scheme rounds on these targets; what one of them rounds counts.

    ONNX Runtime rounds the outputs of convolutions, LiteRT and ExecuTorch those of every layer; where products may be
    added in 16 bits ONNX Runtime keeps weights to 7 bits.

    Raises:
        RecipeError: If the scheme is not static int8, or no layer is left.
    """
    if (scheme.dtype, scheme.activations) != ("int8", "static"):
        raise RecipeError(
            f"{where}.scheme: {scheme.name!r} is not static int8, and only that has ranges to learn",
            "name int8-static, or a scheme based on it.",
        )
    found = layers(model)
    reasons = select(found, scheme.include, scheme.exclude, f"scheme.{scheme.name}")
    reasons |= {
        layer.name: f"a {layer.operator} is not simulated"
        for layer in found
        if layer.operator not in _KINDS and not reasons[layer.name]
    }
    chosen = tuple(layer for layer in found if not reasons[layer.name])
    if not chosen:
        raise RecipeError(f"{where}.scheme: {scheme.name!r} rounds no layer of the model", "change its patterns.")
    runtimes = {target.runtime for target in targets}
    return Sites(
        layers=chosen,
        outputs=frozenset(item.name for item in chosen if "conv" in item.operator or runtimes & _ROUNDS_ALL),
        limit=64 if any(item.runtime == "onnxruntime" and adds_in_16_bits(item.cpu) for item in targets) else 127,
        per_channel=scheme.granularity == "channel",
        skipped=tuple(Skip(name, reason) for name, reason in reasons.items() if reason),
    )


@dataclass
class Inserter:
    """Puts quantizers into a copy of the graph (`Network`'s `prepare`), and tells the ranges that they learned.

    Attributes:
        sites: What is rounded.
        bounds: Range of every such value to begin with.
        activations: Value -> its quantizer, once they are in.
    """

    sites: Sites
    bounds: Mapping[str, Bounds]
    activations: dict[str, FakeActivation] = field(default_factory=dict)

    def __call__(self, module: GraphModule) -> None:
        """Changes the graph in place."""
        by_name = {node.name: node for node in module.graph.nodes}
        self.activations = {name: FakeActivation(*self.bounds[name]) for name in self.sites.values}
        places = {name: f"quantize_value_{index}" for index, name in enumerate(self.activations)}
        for name, quantizer in self.activations.items():
            module.add_submodule(places[name], quantizer)
        rounded: dict[Node, Node] = {}
        for layer in self.sites.layers:
            if layer.name in self.sites.outputs:
                output = by_name[layer.output]
                if output not in rounded:
                    rounded[output] = _behind(module, output, places[layer.output])
                    output.replace_all_uses_with(
                        rounded[output], delete_user_cb=lambda user, own=rounded[output]: user is not own
                    )
        done = set(rounded.values())
        inputs: dict[Node, Node] = {}
        for index, layer in enumerate(self.sites.layers):
            node = by_name[layer.node]
            weight = next(
                item for item in node.all_input_nodes if item.op == "get_attr" and item.target == layer.weight
            )
            axis = output_axis(layer) if self.sites.per_channel else None
            module.add_submodule(f"quantize_weight_{index}", FakeWeight(axis, self.sites.limit))
            node.replace_input_with(weight, _before(module, node, weight, f"quantize_weight_{index}"))
            value = _input(node, layer)
            if value in done:
                continue
            if value not in inputs:
                inputs[value] = _behind(module, value, places[layer.input])
            node.replace_input_with(value, inputs[value])
        module.graph.lint()

    def ranges(self) -> dict[str, Bounds]:
        """Returns the ranges by value, those that the quantizers hold now.

        A clipping activation behind a layer bounds what the layer itself gives: both values get one range.
        """
        with torch.no_grad():
            found = {
                name: (float(low), float(high))
                for name, quantizer in self.activations.items()
                for low, high in [quantizer.bounds]
            }
        fused = {
            layer.node: found[layer.output]
            for layer in self.sites.layers
            if layer.name in self.sites.outputs and layer.fused is not None
        }
        return found | fused


def _input(node: Node, layer: Layer) -> Node:
    """The activation that goes into a layer's call: the input that is no weight and no bias."""
    held = {layer.weight, layer.bias}
    return next(
        item
        for item in node.all_input_nodes
        if not (item.op == "get_attr" and item.target in held)
        and not (item.op == "call_module" and str(item.target).startswith("quantize_weight_"))
    )


def _behind(module: GraphModule, value: Node, place: str) -> Node:
    with module.graph.inserting_after(value):
        return module.graph.call_module(place, (value,))


def _before(module: GraphModule, node: Node, value: Node, place: str) -> Node:
    with module.graph.inserting_before(node):
        return module.graph.call_module(place, (value,))

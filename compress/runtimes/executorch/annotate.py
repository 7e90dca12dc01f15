"""PT2E's quantizer for chosen layers of a graph, with steps that are given instead of observed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer, get_symmetric_quantization_config
from torch import Tensor
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e import ObserverBase
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer import QuantizationAnnotation, QuantizationSpec

from compress.errors import InternalError
from compress.model.edit import own_bias
from compress.model.layers import Layer
from compress.runtimes.base import Joined, Placed
from compress.runtimes.executorch.steps import Step

_KEY = "quantization_annotation"


@dataclass(frozen=True)
class Chosen:
    """A layer to quantize: the steps of its weight, and the axis of its output channels."""

    item: Placed
    steps: Tensor
    axis: int
    dynamic: bool


class _Given(ObserverBase):  # type: ignore[misc]
    """An observer that observes nothing: it has its steps from the beginning."""

    def __init__(
        self,
        *,
        sizes: Tensor,
        zeros: Tensor,
        axis: int,
        dtype: torch.dtype,
        qscheme: Any,
        quant_min: int,
        quant_max: int,
        is_dynamic: bool,
    ) -> None:
        super().__init__(dtype=dtype, is_dynamic=is_dynamic)
        self.sizes, self.zeros, self.ch_axis = sizes, zeros, axis
        self.qscheme, self.quant_min, self.quant_max = qscheme, quant_min, quant_max

    def forward(self, value: Tensor) -> Tensor:
        return value

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        return self.sizes, self.zeros


class _Annotator(XNNPACKQuantizer):  # type: ignore[misc]
    """Annotates what is chosen, and nothing else.

    Its base annotates whatever it knows by the kind of an operator: it would round every sum and product on the way,
    would not see ReLU6 as a part of the layer before it, and takes no range but those that it observes.
    """

    def __init__(self, chosen: Sequence[Chosen], joined: Sequence[Joined], values: Mapping[str, Step]) -> None:
        super().__init__()
        self._chosen, self._joined = chosen, joined
        self._values = {name: _spec(step) for name, step in values.items()}
        self._moving = get_symmetric_quantization_config(is_dynamic=True).input_activation

    def transform_for_annotation(self, model: GraphModule) -> GraphModule:
        return model

    def annotate(self, model: GraphModule) -> GraphModule:
        nodes = {node.name: node for node in model.graph.nodes}
        for chosen in self._chosen:
            layer = chosen.item.layer
            node = _found(nodes, layer.node)
            given, weight = node.args[0], node.args[1]
            spec = self._moving if chosen.dynamic else self._values[layer.input]
            _annotate(node, {given: spec, weight: _weight_spec(chosen)})
            if not chosen.dynamic:
                _annotate(_found(nodes, chosen.item.output), {}, self._values[chosen.item.output])
        for join in self._joined:
            node = _found(nodes, join.node)
            _annotate(node, {part: self._values[name] for part, name in zip(node.args, join.inputs, strict=True)})
            _annotate(_found(nodes, join.output), {}, self._values[join.output])
        return model


def insert(
    module: GraphModule, chosen: Sequence[Chosen], joined: Sequence[Joined], values: Mapping[str, Step]
) -> tuple[GraphModule, dict[str, str]]:
    """Puts integers into a graph.

    Args:
        module: As `prepared` gives it; it is changed.
        chosen: Layers to quantize.
        joined: Sums that run on integers.
        values: Step of every value that becomes integers with a range that is known.

    Returns:
        The graph, and layer -> full name of its weight there.
    """
    _own_biases(module, [item.item.layer for item in chosen])
    converted: GraphModule = convert_pt2e(prepare_pt2e(module, _Annotator(chosen, joined, values)))
    nodes = {node.name: node for node in converted.graph.nodes}
    names = {}
    for item in chosen:
        widened = nodes[item.item.layer.node].args[1]
        names[item.item.layer.name] = str(widened.args[0].target)
    return converted, names


def _own_biases(module: GraphModule, chosen: Sequence[Layer]) -> None:
    """Gives each call a bias of its own: the backend would store one for all, in the steps of its first reader."""
    nodes = {node.name: node for node in module.graph.nodes}
    for layer in chosen:
        node = _found(nodes, layer.node)
        shared = node.args[2] if len(node.args) > 2 else None
        own_bias(module, node)
        own = node.args[2] if len(node.args) > 2 else None
        if isinstance(shared, Node) and isinstance(own, Node) and own is not shared:
            own.meta["val"] = shared.meta["val"]
    module.recompile()


def _annotate(node: Node, inputs: Mapping[Any, Any], output: Any = None) -> None:
    known = node.meta.setdefault(_KEY, QuantizationAnnotation(_annotated=True))
    known.input_qspec_map = {**known.input_qspec_map, **inputs}
    known.output_qspec = output or known.output_qspec


def _found(nodes: Mapping[str, Node], name: str) -> Node:
    if name not in nodes:
        raise InternalError(f"the graph has no node {name!r} any more", "")
    return nodes[name]


def _spec(step: Step) -> QuantizationSpec:
    observer = _Given.with_args(sizes=torch.tensor([step.size]), zeros=torch.tensor([step.zero]), axis=-1)
    return QuantizationSpec(torch.int8, observer, -128, 127, torch.per_tensor_affine)


def _weight_spec(chosen: Chosen) -> QuantizationSpec:
    zeros = torch.zeros(len(chosen.steps), dtype=torch.int64)
    observer = _Given.with_args(sizes=chosen.steps.float(), zeros=zeros, axis=chosen.axis)
    return QuantizationSpec(torch.int8, observer, -127, 127, torch.per_channel_symmetric, ch_axis=chosen.axis)

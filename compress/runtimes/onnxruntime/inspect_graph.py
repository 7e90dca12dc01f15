"""One walk over an ONNX graph and its subgraphs: which constants are weights, who reads them, what is multiplied."""

from __future__ import annotations

import math
from collections import ChainMap, Counter
from dataclasses import dataclass, field
from typing import Any

from compress.model.fileinfo import NO_PARAMETERS, LayerRow, StoredTensor, is_integer_weight
from compress.model.onnx_beside import dtype_name, text
from compress.runtimes.onnxruntime.inspect_operators import (
    BIASES,
    DEQUANTIZED,
    FORWARDING,
    SCALES,
    SCHEMES,
    macs_of,
    multiplies,
)
from compress.runtimes.onnxruntime.inspect_shapes import Shapes, shapes_of
from compress.runtimes.onnxruntime.inspect_tensors import constants_of, graphs_of

_HALVES = ("float16", "bfloat16")


@dataclass
class Constant:
    """A constant and what the walk learned of it."""

    tensor: StoredTensor
    is_scale: bool = False
    is_bias: bool = False
    counted: bool = False

    @property
    def is_parameter(self) -> bool:
        """Whether it is a weight, a bias or a table: no single number, scale, index, shape or mask."""
        counted = self.tensor.dtype not in NO_PARAMETERS or self.is_bias
        return counted and not self.is_scale and bool(self.tensor.shape)

    @property
    def is_weight(self) -> bool:
        """Whether it is a parameter of two dimensions or more."""
        return self.is_parameter and len(self.tensor.shape) > 1


@dataclass
class Walk:
    """What was found. `schemes` weighs, by elements, how integer weights are used."""

    operators: Counter[str] = field(default_factory=Counter)
    domains: set[str] = field(default_factory=set)
    constants: list[Constant] = field(default_factory=list)
    layers: list[LayerRow] = field(default_factory=list)
    unknown: Counter[str] = field(default_factory=Counter)
    schemes: Counter[str] = field(default_factory=Counter)
    dequantized: int = 0
    quantized_activations: int = 0
    quantized_weights: int = 0
    widened: int = 0
    scaled: int = 0
    subgraphs: int = 0
    tree_nodes: int = 0

    def graph(self, graph: Any, inferred: Any | None) -> None:
        """Walks a graph and everything inside it.

        Args:
            graph: As the file has it, without the content of its weights.
            inferred: The same graph with the shapes of its values for one row, None where they are unknown.
        """
        self._graph(graph, inferred, {}, ChainMap())

    def _graph(self, graph: Any, inferred: Any | None, outer: Shapes, held: ChainMap[str, Constant]) -> None:
        shapes = shapes_of(inferred, outer) if inferred is not None else outer
        for tensor in constants_of(graph):
            held[tensor.name] = constant = Constant(tensor)
            self.constants.append(constant)
        twins = inferred.node if inferred is not None else [None] * len(graph.node)
        scales: set[str] = set()
        for node, twin in zip(graph.node, twins, strict=True):
            self._node(node, shapes, held, scales)
            within = list(graphs_of([node]))
            self.subgraphs += len(within)
            known = list(graphs_of([twin])) if twin is not None else [None] * len(within)
            for inner, inner_twin in zip(within, known, strict=True):
                self._graph(inner, inner_twin, shapes, held.new_child())

    def _node(self, node: Any, shapes: Shapes, held: ChainMap[str, Constant], scales: set[str]) -> None:
        kind = text(node.op_type)
        if kind == "Constant":
            # A constant is data, wherever the exporter wrote it; ONNX Runtime makes an initializer of it.
            return
        self.operators[kind] += 1
        self.domains.add(text(node.domain))
        reads = [held.get(text(name)) for name in node.input]
        _mark(node, kind, reads, scales)
        if kind in FORWARDING and reads and reads[0] is not None and node.output:
            self._forwarded(node, kind, reads[0])
            held[text(node.output[0])] = reads[0]
            return
        stored = self._scaled(kind, reads)
        if stored is not None:
            held[text(node.output[0])] = stored
            return
        self.quantized_activations += kind == "QuantizeLinear"
        if kind.startswith("TreeEnsemble"):
            self.tree_nodes += sum(len(item.ints) for item in node.attribute if item.name == "nodes_featureids")
        weight = next((item for item in reads if item is not None and item.is_weight), None)
        if weight is not None and kind in SCHEMES and is_integer_weight(weight.tensor.dtype):
            self.schemes[SCHEMES[kind]] += weight.tensor.elements
        macs = macs_of(node, shapes)
        if macs is None:
            self.unknown[kind] += 1
        if macs is None or multiplies(node) or weight is not None:
            name = text(node.name) or text(next(iter(node.output), ""))
            shape = weight.tensor.shape if weight is not None else ()
            self.layers.append(LayerRow(name, kind, shape, _count(reads), macs))

    def _scaled(self, kind: str, reads: list[Constant | None]) -> Constant | None:
        """The weight that a product makes of stored integers and their scales, None of any other node."""
        if kind != "Mul" or len(reads) != 2 or reads[0] is None or reads[1] is None:
            return None
        for weight, scale in ((reads[0], reads[1]), (reads[1], reads[0])):
            if weight.is_weight and is_integer_weight(weight.tensor.dtype):
                scale.is_scale = True
                self.scaled += 1
                self.schemes[DEQUANTIZED] += weight.tensor.elements
                return weight
        return None

    def _forwarded(self, node: Any, kind: str, constant: Constant) -> None:
        if kind == "DequantizeLinear":
            self.dequantized += 1
            if constant.is_weight and is_integer_weight(constant.tensor.dtype):
                self.schemes[DEQUANTIZED] += constant.tensor.elements
        elif kind == "QuantizeLinear":
            self.quantized_weights += 1
        elif kind == "Cast" and constant.tensor.dtype in _HALVES:
            target = next((int(item.i) for item in node.attribute if item.name == "to"), 0)
            self.widened += dtype_name(target) in ("float32", "float64")


def _mark(node: Any, kind: str, reads: list[Constant | None], scales: set[str]) -> None:
    """Notes which constants a node reads as scales and zero points, quantized biases or packed weights."""
    for index in SCALES.get(kind, ()):
        if index < len(reads) and (constant := reads[index]) is not None:
            constant.is_scale = True
    bias = reads[BIASES[kind]] if kind in BIASES and BIASES[kind] < len(reads) else None
    if bias is not None and bias.tensor.dtype == "int32":
        bias.is_bias = True
    if kind == "DynamicQuantizeLinear" and len(node.output) > 1:
        scales.add(text(node.output[1]))
    if kind == "Mul" and any(text(name) in scales for name in node.input):
        # The scale of the activations, known when run, times that of the weights.
        for constant in reads:
            if constant is not None:
                constant.is_scale = True
    if kind == "MatMulNBits" and len(reads) > 1 and (packed := reads[1]) is not None:
        sizes = {text(item.name): int(item.i) for item in node.attribute}
        shape = (sizes.get("N", 0), sizes.get("K", 0))
        packed.tensor = StoredTensor(packed.tensor.name, f"int{sizes.get('bits', 4)}", shape, max(0, math.prod(shape)))


def _count(reads: list[Constant | None]) -> int:
    """Returns the parameters that a node reads first."""
    total = 0
    for constant in reads:
        if constant is not None and constant.is_parameter and not constant.counted:
            constant.counted = True
            total += constant.tensor.elements
    return total

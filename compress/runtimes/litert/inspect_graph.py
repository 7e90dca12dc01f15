"""What the operators of a `.tflite` graph multiply, and which of its constants are weights.

Layouts of weights: TensorFlow Lite's kernels (convolution `[out, height, width, in]`, depthwise
`[1, height, width, out]`, fully connected `[out, in]`, transposed convolution `[out, height, width, in]`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from compress.model.fileinfo import NO_PARAMETERS, LayerRow, StoredTensor, is_integer_weight
from compress.runtimes.litert.inspect_reader import Operator, Subgraph, Tensor

# Operators that multiply matrices in a way that is not counted here.
_UNCOUNTED = frozenset(
    {
        *("LSTM", "UNIDIRECTIONAL_SEQUENCE_LSTM", "BIDIRECTIONAL_SEQUENCE_LSTM", "RNN"),
        *("UNIDIRECTIONAL_SEQUENCE_RNN", "BIDIRECTIONAL_SEQUENCE_RNN", "SVDF", "CONV_3D_TRANSPOSE"),
        *("STABLEHLO_CONVOLUTION", "STABLEHLO_DOT_GENERAL", "STABLEHLO_CUSTOM_CALL", "DELEGATE"),
    }
)
_WIDENING = frozenset({"DEQUANTIZE"})
_LOOKUPS = frozenset({"GATHER", "EMBEDDING_LOOKUP"})


@dataclass
class Walk:
    """What was found. `schemes` weighs, by elements, how integer weights are used.

    Args:
        rows: Rows that the shapes in the file stand for; multiply-adds are divided by it.
    """

    rows: int = 1
    operators: Counter[str] = field(default_factory=Counter)
    parameters: dict[int, StoredTensor] = field(default_factory=dict)
    layers: list[LayerRow] = field(default_factory=list)
    unknown: Counter[str] = field(default_factory=Counter)
    schemes: Counter[str] = field(default_factory=Counter)
    widened: int = 0
    dequantized: int = 0
    per_channel: int = 0
    per_tensor: int = 0
    sparse: int = 0
    _counted: set[int] = field(default_factory=set)

    def graph(self, graph: Subgraph, counted: bool) -> None:
        """Walks one subgraph.

        Args:
            graph: Of the file.
            counted: Whether its multiply-adds count; those of other signatures do not.
        """
        for tensor in graph.tensors:
            self._constant(tensor)
        # A weight that is widened first is still that weight.
        origins = dict(enumerate(graph.tensors))
        for operator in graph.operators:
            self.operators[operator.kind] += 1
            reads = [origins[number] if number >= 0 else None for number in operator.inputs]
            if operator.kind in _WIDENING and reads and reads[0] is not None and is_parameter(reads[0]):
                self._widened(reads[0])
                for number in operator.outputs:
                    if number >= 0:
                        origins[number] = reads[0]
                continue
            self._scheme(operator, graph, reads)
            self._layer(operator, graph, reads, counted)

    def _constant(self, tensor: Tensor) -> None:
        if not is_parameter(tensor) or tensor.buffer in self.parameters or tensor.buffer is None:
            return
        self.parameters[tensor.buffer] = StoredTensor(tensor.name, tensor.dtype, tensor.shape, tensor.elements)
        self.sparse += tensor.sparse
        if is_integer_weight(tensor.dtype) and len(tensor.shape) > 1:
            self.per_channel += tensor.scales > 1
            self.per_tensor += tensor.scales == 1

    def _widened(self, weight: Tensor) -> None:
        if is_integer_weight(weight.dtype):
            self.dequantized += 1
            self.schemes["weight only"] += weight.elements
        else:
            self.widened += 1

    def _scheme(self, operator: Operator, graph: Subgraph, reads: list[Tensor | None]) -> None:
        weight = _weight(reads)
        if weight is None or not is_integer_weight(weight.dtype):
            return
        others = [graph.tensors[number] for number in operator.inputs if number >= 0]
        floats = any(tensor.dtype == "float32" and tensor.buffer is None for tensor in others)
        if operator.kind in _LOOKUPS:
            self.schemes["weight only"] += weight.elements
        elif operator.kind in _RULES and graph.tensors[operator.inputs[reads.index(weight)]] is weight:
            self.schemes["dynamic" if floats else "static"] += weight.elements

    def _layer(self, operator: Operator, graph: Subgraph, reads: list[Tensor | None], counted: bool) -> None:
        weight = _weight(reads)
        macs = macs_of(operator, graph) if counted else 0
        macs = macs // self.rows if macs is not None else None
        if macs is None:
            self.unknown[operator.kind] += 1
        if macs is None or operator.kind in _RULES or weight is not None:
            output = next((graph.tensors[number] for number in operator.outputs if number >= 0), None)
            name = output.name if output is not None else operator.kind
            shape = weight.shape if weight is not None else ()
            self.layers.append(LayerRow(name, operator.kind, shape, self._count(reads), macs))

    def _count(self, reads: list[Tensor | None]) -> int:
        total = 0
        for tensor in reads:
            if tensor is not None and tensor.buffer in self.parameters and tensor.buffer not in self._counted:
                self._counted.add(tensor.buffer)
                total += self.parameters[tensor.buffer].elements
        return total


def is_parameter(tensor: Tensor) -> bool:
    """Whether a tensor is a weight, a bias or a table: no single number, index, shape or mask."""
    # An integer bias has the scale of the sums that it is added to.
    counted = tensor.dtype not in NO_PARAMETERS or (tensor.dtype == "int32" and tensor.scales > 0)
    return tensor.buffer is not None and bool(tensor.shape) and counted and tensor.dtype not in ("resource", "variant")


def macs_of(operator: Operator, graph: Subgraph) -> int | None:
    """Returns the multiply-adds of an operator by its shapes: 0 where it multiplies no matrices, None where unknown."""
    if operator.custom or operator.kind in _UNCOUNTED:
        return None
    rule = _RULES.get(operator.kind)
    if rule is None:
        return 0
    try:
        return rule(_Call(operator, graph))
    except IndexError:
        return None


def _weight(reads: list[Tensor | None]) -> Tensor | None:
    return next((item for item in reads if item is not None and is_parameter(item) and len(item.shape) > 1), None)


class _Call:
    def __init__(self, operator: Operator, graph: Subgraph) -> None:
        self.operator = operator
        self._graph = graph

    def input(self, index: int) -> tuple[int, ...]:
        return self._shape(self.operator.inputs[index])

    def output(self) -> tuple[int, ...]:
        return self._shape(self.operator.outputs[0])

    def _shape(self, number: int) -> tuple[int, ...]:
        if number < 0:
            raise IndexError
        return tuple(1 if size < 0 else size for size in self._graph.tensors[number].shape)


def _convolution(call: _Call) -> int:
    return math.prod(call.output()) * math.prod(call.input(1)[1:])


def _depthwise(call: _Call) -> int:
    _, height, width, _ = _four(call.input(1))
    return math.prod(call.output()) * height * width


def _fully_connected(call: _Call) -> int:
    return math.prod(call.output()) * call.input(1)[1]


def _transposed_convolution(call: _Call) -> int:
    # Inputs are the output's shape, the weight, the image: every element of it meets a kernel per output channel.
    return math.prod(call.input(2)) * math.prod(_four(call.input(1))[:3])


def _convolution_3d(call: _Call) -> int:
    # The weight is [depth, height, width, in, out].
    return math.prod(call.output()) * math.prod(call.input(1)[:4])


def _batch_product(call: _Call) -> int:
    return math.prod(call.output()) * call.input(0)[-2 if call.operator.left_transposed else -1]


def _four(shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) != 4:
        raise IndexError
    return shape


_RULES: dict[str, Callable[[_Call], int]] = {
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _depthwise,
    "FULLY_CONNECTED": _fully_connected,
    "TRANSPOSE_CONV": _transposed_convolution,
    "CONV_3D": _convolution_3d,
    "BATCH_MATMUL": _batch_product,
}

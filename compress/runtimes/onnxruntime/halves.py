"""A graph that computes in half precision where that is safe: for engines on GPUs, which read the types in the file.

Half are the layers that a scheme chooses and what stands between them and only moves, adds or clips. What comes before
the first layer (raw amounts, dates, normalisation) and what sums or exponentiates (softmax, means, layer normalisation)
stays float32: a half holds at most 65504, and eleven bits of a sum.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from compress.errors import LoweringError
from compress.recipe import QuantScheme
from compress.runtimes.base import Lowered, chosen, nothing, outcomes

_TOO_LARGE = "a weight of it is larger than a half can hold"
_LARGEST = float(np.finfo(np.float16).max)
_CARRIES = {
    *("Add", "Sub", "Mul", "MatMul", "Relu", "LeakyRelu", "Clip", "HardSwish", "HardSigmoid", "Sigmoid", "Tanh"),
    *("Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Concat", "Slice", "Split", "Expand", "Identity"),
    *("MaxPool", "Pad", "Neg", "Abs"),
}


def compute_halves(lowered: Lowered, scheme: QuantScheme) -> Lowered:
    """Realises `float16` as arithmetic.

    Raises:
        LoweringError: If no layer is left to compute in halves.
    """
    import onnx

    if lowered.beside:
        raise LoweringError(
            "halves are not computed in a file whose weights lie beside it", "leave float16 out on this target."
        )
    parts, reasons = chosen(lowered, scheme, lambda item, use: "")
    proto = onnx.load_from_string(lowered.data)
    typed = onnx.shape_inference.infer_shapes(proto)
    graph = _Graph(proto.graph, _floats(typed.graph))
    wanted = {item.node for part in parts for item in part.layers}
    # A layer that the scheme leaves in float is no product of two halves by the way.
    made = graph.rewrite(wanted, {item.node for item in lowered.placed} - wanted)
    done = []
    for part in parts:
        kept = tuple(item for item in part.layers if item.node in made)
        reasons.update({item.layer.name: _TOO_LARGE for item in part.layers if item not in kept})
        done += [replace(part, layers=kept)] if kept else []
    if not done:
        raise nothing(scheme, reasons)
    return replace(
        lowered,
        data=proto.SerializeToString(),
        outcomes=outcomes(lowered, done, reasons),
        notes=("layers compute in halves; what comes before them, sums and softmax stay float32",),
    )


def _floats(graph: Any) -> set[str]:
    """Names of the float32 values of a graph whose types were inferred."""
    from onnx import TensorProto

    values = (*graph.value_info, *graph.input, *graph.output)
    found = {item.name for item in values if item.type.tensor_type.elem_type == TensorProto.FLOAT}
    return found | {item.name for item in graph.initializer if item.data_type == TensorProto.FLOAT}


@dataclass
class _Graph:
    """A graph while its nodes become half, in the order in which they run."""

    graph: Any
    floats: set[str]
    half: dict[str, str] = field(default_factory=dict)
    nodes: list[Any] = field(default_factory=list)

    def rewrite(self, wanted: Collection[str], kept: Collection[str]) -> set[str]:
        """Makes the nodes `wanted` half and those that they allow, but for `kept`; returns the names of all of them."""
        from onnx import numpy_helper

        self._constants = {
            item.name: numpy_helper.to_array(item) for item in self.graph.initializer if item.name in self.floats
        }
        made = set()
        for node in list(self.graph.node):
            if node.name not in kept and self._becomes_half(node, wanted):
                made.add(node.name)
                self._halve(node)
            else:
                self.nodes.append(node)
        read = {name for node in self.nodes for name in node.input} | {item.name for item in self.graph.output}
        # A half that nothing reads as a float needs no way back.
        left = [node for node in self.nodes if not (node.name.endswith(".to_float") and node.output[0] not in read)]
        del self.graph.node[:]
        self.graph.node.extend(left)
        used = {name for node in left for name in node.input}
        weights = [item for item in self.graph.initializer if item.name in used]
        del self.graph.initializer[:]
        self.graph.initializer.extend(weights)
        return made

    def _becomes_half(self, node: Any, wanted: Collection[str]) -> bool:
        floats = [name for name in node.input if name in self.floats]
        if any(not _fits(self._constants[name]) for name in floats if name in self._constants):
            return False
        if node.name in wanted:
            return True
        computed = [name for name in floats if name not in self._constants]
        return (
            node.op_type in _CARRIES
            and not node.domain
            and bool(computed)
            and all(name in self.half for name in computed)
        )

    def _halve(self, node: Any) -> None:
        for position, name in enumerate(node.input):
            if name in self.floats:
                node.input[position] = self._as_half(name)
        back = []
        for position, name in enumerate(node.output):
            if name in self.floats:
                node.output[position] = self.half[name] = f"{name}.half"
                back.append(self._cast(f"{name}.half", name, f"{name}.to_float", "FLOAT"))
        self.nodes += [node, *back]

    def _as_half(self, name: str) -> str:
        from onnx import numpy_helper

        if name not in self.half:
            self.half[name] = f"{name}.half"
            if name in self._constants:
                value = self._constants[name].astype(np.float16)
                self.graph.initializer.append(numpy_helper.from_array(value, f"{name}.half"))
            else:
                self.nodes.append(self._cast(name, f"{name}.half", f"{name}.to_half", "FLOAT16"))
        return self.half[name]

    def _cast(self, source: str, target: str, name: str, kind: str) -> Any:
        from onnx import TensorProto, helper

        return helper.make_node("Cast", [source], [target], name, to=getattr(TensorProto, kind))


def _fits(values: Any) -> bool:
    return not values.size or bool(np.abs(values).max() <= _LARGEST)

"""Whether a model is quantized already, by its operators and by what its weights are stored in.

Sources: ONNX Operators.md, ONNX Runtime's ContribOperators.md.
"""

from __future__ import annotations

from collections import Counter

from compress.errors import ModelError
from compress.model.onnx_import.graph import Graph, walk
from compress.model.onnx_import.tensors import NARROW

_OPERATORS = frozenset(
    {
        *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger"),
        *("QGemm", "QAttention", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "MatMulIntegerToFloat"),
        *("MatMulNBits", "MatMulBnb4", "GatherBlockQuantized", "QMoE", "QOrderedMatMul", "QEmbedLayerNormalization"),
    }
)
_PREFIX = "QLinear"
# Operators behind which a narrow weight is still that weight.
_FORWARDING = frozenset(
    {"Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Sub", "Gather", "Slice", "Concat"}
)
_FLOATS = frozenset({1, 10, 11, 16})


def refuse_quantized(graph: Graph, where: str) -> None:
    """Refuses a model that is quantized already.

    Raises:
        ModelError: If it is.
    """
    quantized = describe_quantized(graph)
    if quantized:
        raise ModelError(
            f"{where}: it is already quantized ({quantized})",
            "measure it as it is (evaluate, bench), or start from the float model that it was made from.",
        )


def describe_quantized(graph: Graph) -> str:
    """Returns what says that a model is quantized already (`52 DequantizeLinear, 40 QuantizeLinear`), else nothing."""
    counts: Counter[str] = Counter()
    narrow = {name for name, proto in graph.constants.items() if proto.data_type in NARROW and len(proto.dims) > 1}
    for node in walk(graph.nodes):
        kind = node.operator.rpartition(".")[2]
        if kind in _OPERATORS or kind.startswith(_PREFIX):
            counts[kind] += 1
        elif narrow.intersection(node.inputs):
            if kind == "Cast" and node.attributes.get("to") in _FLOATS:
                counts["Cast of 8-bit or narrower weights"] += 1
            elif kind in _FORWARDING:
                narrow.update(node.outputs)
    return ", ".join(f"{count} {kind}" for kind, count in counts.most_common())

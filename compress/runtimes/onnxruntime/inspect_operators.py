"""What the operators of an `.onnx` file do to constants: multiply-adds for one row, scales, schemes of quantization.

Sources: ONNX Operators.md, ONNX Runtime's ContribOperators.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from compress.runtimes.onnxruntime.inspect_shapes import Shapes

# Inputs that are scales, zero points and tables of them: part of a quantization, no parameters.
SCALES: dict[str, tuple[int, ...]] = {
    "QuantizeLinear": (1, 2),
    "DequantizeLinear": (1, 2),
    "QLinearConv": (1, 2, 4, 5, 6, 7),
    "QLinearMatMul": (1, 2, 4, 5, 6, 7),
    "QLinearAdd": (1, 2, 4, 5, 6, 7),
    "QLinearMul": (1, 2, 4, 5, 6, 7),
    "QLinearSigmoid": (1, 2, 3, 4),
    "QLinearLeakyRelu": (1, 2, 3, 4),
    "QLinearSoftmax": (1, 2, 3, 4),
    "QLinearAveragePool": (1, 2, 3, 4),
    "QLinearGlobalAveragePool": (1, 2, 3, 4),
    "QGemm": (1, 2, 4, 5, 7, 8),
    "QAttention": (3, 4, 6, 7),
    "MatMulInteger": (2, 3),
    "ConvInteger": (2, 3),
    "DynamicQuantizeMatMul": (2, 3),
    "MatMulIntegerToFloat": (2, 3, 4, 5),
    "MatMulNBits": (2, 3, 4),
}
# Where an int32 constant is a quantized bias.
BIASES = {"DequantizeLinear": 0, "QLinearConv": 8, "QGemm": 6}
# Operators that pass a constant on in another form: a weight behind them is still that weight.
FORWARDING = frozenset({"DequantizeLinear", "QuantizeLinear", "Cast", "Transpose", "Reshape", "Identity"})
# Integer weights behind DequantizeLinear: what that means depends on whether activations are quantized too.
DEQUANTIZED = "DequantizeLinear"
# How an operator uses the integer weights that it reads.
SCHEMES = {
    "MatMulInteger": "dynamic",
    "ConvInteger": "dynamic",
    "DynamicQuantizeMatMul": "dynamic",
    "MatMulIntegerToFloat": "dynamic",
    "QAttention": "dynamic",
    "DynamicQuantizeLSTM": "dynamic",
    "QLinearConv": "QOperator",
    "QLinearMatMul": "QOperator",
    "QGemm": "QOperator",
    "MatMulNBits": "weight only",
    "GatherBlockQuantized": "weight only",
}
# Of ONNX Runtime's own operators, those that multiply no matrices.
_NO_PRODUCTS = frozenset(
    {
        *("BiasGelu", "FastGelu", "Gelu", "QuickGelu", "BiasSoftmax", "SkipLayerNormalization"),
        *("SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization", "EmbedLayerNormalization"),
        *("RotaryEmbedding", "QuantizeLinear", "DequantizeLinear", "QLinearAdd", "QLinearMul"),
        *("QLinearSigmoid", "QLinearSoftmax", "QLinearLeakyRelu", "QLinearAveragePool"),
        *("QLinearGlobalAveragePool", "QLinearConcat", "QLinearReduceMean"),
    }
)
_TREES_AND_TABLES = frozenset(
    {
        *("TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor", "Scaler", "Normalizer"),
        *("Imputer", "ZipMap", "LabelEncoder", "CategoryMapper", "OneHotEncoder", "FeatureVectorizer"),
        *("ArrayFeatureExtractor", "Binarizer", "CastMap", "DictVectorizer"),
    }
)


class _Unknown(Exception):
    """A shape that the product needs is not known."""


class _Call:
    """A node and the shapes around it; asking for one that is not known raises `_Unknown`."""

    def __init__(self, node: Any, shapes: Shapes) -> None:
        self._node = node
        self._shapes = shapes
        self.kind: str = node.op_type
        self.microsoft = node.domain == "com.microsoft"

    def input(self, index: int) -> tuple[int, ...]:
        if index >= len(self._node.input):
            raise _Unknown
        return self._shape(self._node.input[index])

    def output(self) -> tuple[int, ...]:
        if not self._node.output:
            raise _Unknown
        return self._shape(self._node.output[0])

    def attribute(self, name: str, default: int) -> int:
        return next((int(item.i) for item in self._node.attribute if item.name == name), default)

    def text(self, name: str) -> str:
        return next((item.s.decode("ascii", "replace") for item in self._node.attribute if item.name == name), "")

    def _shape(self, name: str) -> tuple[int, ...]:
        sizes = self._shapes.get(name)
        if sizes is None:
            raise _Unknown
        known = tuple(size for size in sizes if size is not None)
        if len(known) < len(sizes):
            raise _Unknown
        return known


def macs_of(node: Any, shapes: Shapes) -> int | None:
    """Returns the multiply-adds of a node for one row: 0 where it multiplies no matrices, None where that is unknown.

    Attention without a cache of earlier keys is assumed.

    Args:
        node: Of the standard domain, ONNX Runtime's, or any other.
        shapes: Of every known value, for one row.
    """
    rule = _rule(node)
    if rule is None:
        return None if _opaque(node) else 0
    try:
        return rule(_Call(node, shapes))
    except (_Unknown, IndexError, ZeroDivisionError):
        return None


def multiplies(node: Any) -> bool:
    """Whether a node is one whose multiply-adds are counted."""
    return _rule(node) is not None


def _rule(node: Any) -> Callable[[_Call], int] | None:
    return _RULES.get(node.op_type) if node.domain in ("", "ai.onnx", "com.microsoft") else None


def _opaque(node: Any) -> bool:
    if node.domain in ("", "ai.onnx"):
        return False
    if node.domain == "ai.onnx.ml":
        return node.op_type not in _TREES_AND_TABLES
    return node.domain != "com.microsoft" or node.op_type not in _NO_PRODUCTS


def _convolution(weight: int) -> Callable[[_Call], int]:
    # The weight is [out, in / groups, *kernel].
    return lambda call: math.prod(call.output()) * math.prod(call.input(weight)[1:])


def _transposed_convolution(call: _Call) -> int:
    # The weight is [in, out / groups, *kernel]: every input element meets all but its first dimension.
    return math.prod(call.input(0)) * math.prod(call.input(1)[1:])


def _product(call: _Call) -> int:
    # QGemm and FusedMatMul may read their first matrix transposed; the others have no such attribute.
    left = call.input(0)
    inner = left[-2] if call.attribute("transA", 0) else left[-1]
    return math.prod(call.output()) * inner


def _narrow_product(call: _Call) -> int:
    return math.prod(call.input(0)) * call.attribute("N", 0)


def _einsum(call: _Call) -> int:
    operands = call.text("equation").replace(" ", "").partition("->")[0].split(",")
    if len(operands) > 2 or any("." in labels for labels in operands):
        raise _Unknown
    sizes: dict[str, int] = {}
    for index, labels in enumerate(operands):
        shape = call.input(index)
        if len(labels) != len(shape):
            raise _Unknown
        sizes.update(zip(labels, shape, strict=True))
    return math.prod(sizes.values()) if len(operands) == 2 else 0


def _recurrent(call: _Call) -> int:
    # [steps, batch, inputs], or batch first; W and R are [directions, gates * hidden, …].
    steps, batch, _ = call.input(0)[:3]
    return steps * batch * (math.prod(call.input(1)) + math.prod(call.input(2)))


def _attention(call: _Call) -> int:
    if call.microsoft:
        return _packed_attention(call)
    query, key, value = call.input(0), call.input(1), call.input(2)
    if len(query) == 4:
        return math.prod(query[:3]) * key[2] * (query[3] + value[3])
    # [batch, length, heads * width]; with fewer key heads, several query heads share one.
    batch, length, width = query
    groups = call.attribute("q_num_heads", 1) // call.attribute("kv_num_heads", 1)
    return batch * length * key[1] * (width + value[2] * groups)


def _packed_attention(call: _Call) -> int:
    # [batch, length, inputs] times a weight [inputs, 3 * hidden] for query, key and value.
    batch, length, width = call.input(0)
    columns = call.input(1)[1]
    return batch * length * width * columns + 2 * batch * length * length * (columns // 3)


def _multi_head_attention(call: _Call) -> int:
    batch, length, width = call.input(0)
    keys, values = call.input(1), call.input(2)
    if len(keys) != 3 or len(values) != 3:
        raise _Unknown
    return batch * length * keys[1] * (width + values[2])


_RULES: dict[str, Callable[[_Call], int]] = {
    "Conv": _convolution(1),
    "FusedConv": _convolution(1),
    "NhwcFusedConv": _convolution(1),
    "DeformConv": _convolution(1),
    "ConvInteger": _convolution(1),
    "QLinearConv": _convolution(3),
    "ConvTranspose": _transposed_convolution,
    "MatMul": _product,
    "Gemm": _product,
    "FusedMatMul": _product,
    "FusedGemm": _product,
    "QGemm": _product,
    "QLinearMatMul": _product,
    "MatMulInteger": _product,
    "MatMulIntegerToFloat": _product,
    "DynamicQuantizeMatMul": _product,
    "MatMulNBits": _narrow_product,
    "Einsum": _einsum,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
    "Attention": _attention,
    "QAttention": _attention,
    "MultiHeadAttention": _multi_head_attention,
}

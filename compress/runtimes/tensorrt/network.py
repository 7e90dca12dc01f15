"""What TensorRT refuses in an `.onnx` file, as far as the file alone tells."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from compress.errors import LoweringError

# Operators that its ONNX parser has no form for. Source: https://github.com/onnx/onnx-tensorrt/blob/main/docs/operators.md
REFUSED = frozenset(
    {
        *("AffineGrid", "Bernoulli", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor"),
        *("CenterCropPad", "Col2Im", "Compress", "ConcatFromSequence", "ConvInteger", "DeformConv", "Det", "DFT"),
        *("DynamicQuantizeLinear", "ImageDecoder", "MatMulInteger", "MaxRoiPool", "MaxUnpool", "MelWeightMatrix"),
        *("Multinomial", "NegativeLogLikelihoodLoss", "Optional", "OptionalGetElement", "OptionalHasElement"),
        *("QLinearConv", "QLinearMatMul", "RegexFullMatch", "SequenceAt", "SequenceConstruct", "SequenceEmpty"),
        *("SequenceErase", "SequenceInsert", "SequenceLength", "SequenceMap", "SoftmaxCrossEntropyLoss"),
        *("SplitToSequence", "StringConcat", "StringNormalizer", "StringSplit", "TfIdfVectorizer", "Unique"),
    }
)
_SHOWN = 5


def check(data: bytes) -> None:
    """Refuses a file that TensorRT would refuse.

    Raises:
        LoweringError: Naming each operator, where it is, and why.
    """
    import onnx

    problems = list(dict.fromkeys(_problems(onnx.load_from_string(data).graph)))
    if problems:
        more = f" (and {len(problems) - _SHOWN} more)" if len(problems) > _SHOWN else ""
        raise LoweringError(
            f"TensorRT would refuse the network: {'; '.join(problems[:_SHOWN])}{more}",
            "replace these operators in the model, or use the runtime onnxruntime with provider"
            ' = "tensorrt", which runs them elsewhere.',
        )


def _problems(graph: Any) -> Iterator[str]:
    from onnx import AttributeProto, TensorProto, numpy_helper

    held = {item.name: item for item in graph.initializer}
    for node in graph.node:
        where = f"{node.op_type} ({node.name or node.output[0]})"
        if node.domain not in ("", "ai.onnx"):
            yield f"{where} is of {node.domain}, which only ONNX Runtime knows"
        elif node.op_type in REFUSED:
            yield f"{where} has no form in TensorRT"
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and len(node.input) > 2:
            zero = held.get(node.input[2])
            if zero is not None and zero.data_type != TensorProto.INT8:
                yield f"{where} is not of int8"
            elif zero is not None and np.any(numpy_helper.to_array(zero)):
                yield f"{where} has a zero point other than 0"
        weight = held.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if weight is not None and weight.data_type == TensorProto.INT32:
            yield f"{where} reads a bias of 32 bits"
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from _problems(attribute.g)
    for item in graph.input:
        kind = item.type.tensor_type.elem_type
        if any(size.dim_value <= 0 for size in item.type.tensor_type.shape.dim[1:]):
            yield f"{item.name!r} has a free dimension besides its batch"
        if kind in (TensorProto.DOUBLE, TensorProto.STRING):
            yield f"{item.name!r} is {TensorProto.DataType.Name(kind).lower()}, which TensorRT does not take"

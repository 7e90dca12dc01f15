"""Schemes on an `.onnx` file, through ONNX Runtime's own quantizers, with our ranges."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.errors import InternalError, LoweringError
from compress.model.layers import MULTIPLYING
from compress.processors import adds_in_16_bits
from compress.recipe import QuantScheme
from compress.registry import require
from compress.runtimes.base import Joined, Lowered, Placed, carried, chosen, matched, outcomes
from compress.runtimes.calibrate import Ranges
from compress.runtimes.onnxruntime.edit import keep_float_readers, separate_weights, share_transposed
from compress.runtimes.quiet import quiet
from compress.target import Target

_STATIC = dict.fromkeys(("linear", "addmm", "matmul", "conv1d", "conv2d"), "") | {
    "conv3d": "ONNX Runtime has no integer 3-D convolution",
    **{f"conv_transpose{n}d": "ONNX Runtime has no integer transposed convolution" for n in (1, 2, 3)},
}
_DYNAMIC = dict.fromkeys(("linear", "addmm", "matmul"), "") | {
    kind: "ONNX Runtime's dynamic convolution is slower than float" for kind in MULTIPLYING if "conv" in kind
}
# Below this many elements a cast costs more bytes than it saves.
_SMALLEST = 64
# The opset in which QuantizeLinear and DequantizeLinear got an axis.
_CHANNELS_SINCE = 13


def quantize(lowered: Lowered, scheme: QuantScheme, ranges: Ranges | None, target: Target) -> Lowered:
    """Realises a scheme.

    `float16` stores weights in half precision and computes in float32: the CPU provider has no half kernels.
    `int8`: weights int8, activations uint8; output quantization only behind convolutions, so that what follows a
    matrix product (bias, residual, normalisation) sees float. Where the target's CPU may be an x86 without
    a dot-product instruction weights keep to 7 bits: it adds pairs of products in 16 bits, which saturates with 8.

    Raises:
        LoweringError: If nothing can be quantized or the quantizer fails.
    """
    require("onnxruntime.quantization", why="int8 for ONNX Runtime")
    if scheme.dtype == "float16":
        return _float16(lowered, scheme)
    supported = _STATIC if scheme.activations == "static" else _DYNAMIC
    done, reasons = chosen(lowered, scheme, supported)
    done = _without_scaled(lowered, done, reasons, scheme)
    seven_bits = adds_in_16_bits(target.cpu)
    try:
        if scheme.activations == "static":
            if ranges is None:
                raise InternalError("static quantization without ranges", "")
            joined = _carried(lowered, done)
            data = _static(lowered.data, done, joined, ranges, scheme.granularity == "channel", seven_bits)
        else:
            data = _dynamic(lowered.data, done, scheme.granularity == "channel", seven_bits)
    except (ValueError, RuntimeError, TypeError, KeyError, AttributeError) as error:
        raise LoweringError(
            f"ONNX Runtime's quantizer failed on {scheme.name!r}: {type(error).__name__}: {str(error)[:300]}",
            "exclude the layer it names, or leave the scheme out.",
        ) from error
    done = _realised(data, done, reasons, scheme)
    notes = [f"weights int8 per {scheme.granularity}" + (", 7 bits (safe on every CPU)" if seven_bits else "")]
    if ranges is not None and scheme.activations == "static":
        notes.append(f"activations uint8, ranges: {ranges.source}")
    else:
        notes.append("activations uint8, ranges found at run time")
    return replace(lowered, data=data, outcomes=outcomes(lowered, done, "int8", reasons), notes=tuple(notes))


def _without_scaled(lowered: Lowered, done: list[Placed], reasons: dict[str, str], scheme: QuantScheme) -> list[Placed]:
    """Leaves out products with a factor of their own: the static kernel ignores beta, the dynamic one takes neither."""
    import onnx

    factors = {
        node.name: {item.name: item.f for item in node.attribute if item.name in ("alpha", "beta")}
        for node in onnx.load_from_string(lowered.data).graph.node
        if node.op_type == "Gemm"
    }
    scaled = {name for name, given in factors.items() if any(value != 1 for value in given.values())}
    return _without(done, scaled, "ONNX Runtime has no integer kernel for a product with factors", reasons, scheme)


def _realised(data: bytes, done: list[Placed], reasons: dict[str, str], scheme: QuantScheme) -> list[Placed]:
    """Believes the file, not the quantizer, which skips what it cannot do without a word."""
    import onnx

    graph = onnx.load_from_string(data).graph
    if scheme.activations == "static":
        integer = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
        found = {node.name for node in graph.node if len(node.input) > 1 and integer.issuperset(node.input[:2])}
    else:
        quantized = {node.name.removesuffix("_quant") for node in graph.node if node.op_type == "MatMulInteger"}
        found = quantized | {name.removesuffix("_MatMul") for name in quantized}
    left = {item.node for item in done} - found
    return _without(done, left, "ONNX Runtime's quantizer left it in float", reasons, scheme)


def _without(
    done: list[Placed], nodes: set[str], why: str, reasons: dict[str, str], scheme: QuantScheme
) -> list[Placed]:
    reasons.update({item.layer.name: why for item in done if item.node in nodes})
    kept = [item for item in done if item.node not in nodes]
    if not kept:
        raise LoweringError(f"the scheme {scheme.name!r} realises nothing: {why}", "leave it out.")
    return kept


def _carried(lowered: Lowered, done: list[Placed]) -> tuple[Joined, ...]:
    """What runs on integers between convolutions; products hand on float."""
    made = {item.output for item in done if "conv" in item.layer.operator}
    return carried(lowered.joined, made, {item.input for item in done})


def _static(
    data: bytes, done: list[Placed], joined: Sequence[Joined], ranges: Ranges, per_channel: bool, seven_bits: bool
) -> bytes:
    import onnx
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    proto = onnx.load_from_string(data)
    separate_weights(proto, [item.node for item in done])
    proto = onnx.shape_inference.infer_shapes(_with_channels(proto) if per_channel else proto)
    kinds = {node.name: node.op_type for node in proto.graph.node}
    found: dict[str, tuple[float, float]] = {}
    nodes: list[str] = []
    behind: set[str] = set()
    for item in done:
        nodes.append(item.node)
        found[item.input] = ranges.of(item.value_in)
        if kinds[item.node] == "Conv":
            if item.activation is not None:
                nodes.append(item.activation)
                found[item.output] = ranges.of(item.layer.output)
            output = next(node.output[0] for node in proto.graph.node if node.name == item.node)
            found[output] = ranges.of(item.layer.node)
            behind |= {output, item.output}
    for between in joined:
        nodes += [name for name in (between.node, between.activation) if name]
        found |= {tensor: ranges.of(value) for tensor, value in between.values}
        behind |= {tensor for tensor, _ in between.values}
    _state_types(proto.graph, found)
    with quiet():
        quantizer = QDQQuantizer(
            proto,
            per_channel=per_channel,
            reduce_range=seven_bits,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=TensorsData(
                CalibrationMethod.MinMax,
                {
                    name: TensorData(lowest=np.array(low, np.float32), highest=np.array(high, np.float32))
                    for name, (low, high) in found.items()
                },
            ),
            nodes_to_quantize=nodes,
            nodes_to_exclude=[],
            op_types_to_quantize=sorted({kinds[name] for name in nodes}),
            extra_options={
                "WeightSymmetric": True,
                "ActivationSymmetric": False,
                "OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"],
            },
        )
        quantizer.quantize_model()
    keep_float_readers(quantizer.model.model, nodes, sorted({item.input for item in done} - behind))
    quantizer.model.topological_sort()
    return _serialized(quantizer.model.model)


def _with_channels(proto: Any) -> Any:
    """Returns an older model in the first opset whose quantization operators have a scale a channel."""
    import onnx

    opset = next((item.version for item in proto.opset_import if item.domain in ("", "ai.onnx")), 0)
    if opset >= _CHANNELS_SINCE:
        return proto
    return onnx.version_converter.convert_version(proto, _CHANNELS_SINCE)


def _state_types(graph: Any, names: Iterable[str]) -> None:
    """States the type of values behind operators that onnx does not know; the quantizer leaves untyped ones float."""
    from onnx import TensorProto, helper

    known = {item.name for item in (*graph.value_info, *graph.input, *graph.output)}
    graph.value_info.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names if name not in known
    )


def _dynamic(data: bytes, done: list[Placed], per_channel: bool, seven_bits: bool) -> bytes:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    proto = onnx.load_from_string(data)
    share_transposed(proto)
    kinds = {node.name: node.op_type for node in proto.graph.node}
    nodes = [item.node for item in done]
    separate_weights(proto, nodes)
    with tempfile.TemporaryDirectory(prefix="edge-compress-") as folder, quiet():
        # The quantizer turns Gemm into MatMul + Add under another name, so both names are asked for.
        path = Path(folder) / "model.onnx"
        quantize_dynamic(
            proto,
            path,
            op_types_to_quantize=sorted({kinds[name] for name in nodes} | {"MatMul"}),
            per_channel=per_channel,
            reduce_range=seven_bits,
            weight_type=QuantType.QInt8,
            nodes_to_quantize=[*nodes, *(f"{name}_MatMul" for name in nodes)],
            extra_options={
                "MatMulConstBOnly": True,
                "WeightSymmetric": True,
                # Of values behind operators that onnx does not know; a float weight makes a float product.
                "DefaultTensorType": onnx.TensorProto.FLOAT,
            },
        )
        return _serialized(onnx.load(path))


def _float16(lowered: Lowered, scheme: QuantScheme) -> Lowered:
    """Halves every large tensor but those that a layer reads which the scheme leaves out."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    proto = onnx.load_from_string(lowered.data)
    read = {node.name: set(node.input) for node in proto.graph.node}
    reasons = matched(lowered, scheme)
    left_out = {name for item in lowered.placed if reasons[item.layer.name] for name in read[item.node]}
    casts, kept = [], []
    for initializer in proto.graph.initializer:
        array = numpy_helper.to_array(initializer)
        if initializer.name in left_out or initializer.data_type != TensorProto.FLOAT or not _halves(array):
            kept.append(initializer)
            continue
        half = numpy_helper.from_array(array.astype(np.float16), f"{initializer.name}.half")
        kept.append(half)
        casts.append(
            helper.make_node(
                "Cast", [half.name], [initializer.name], name=f"{initializer.name}.cast", to=TensorProto.FLOAT
            )
        )
    halved = {node.output[0] for node in casts}
    done = [item for item in lowered.placed if read[item.node] & halved]
    small = f"its weight has fewer than {_SMALLEST} elements, or values that float16 cannot hold"
    reasons = {layer.name: why for layer, why in lowered.missing} | {
        item.layer.name: reasons[item.layer.name] or small for item in lowered.placed
    }
    if not done:
        why = "; ".join(sorted(set(reasons.values()))) or "the model has no layer with a weight"
        raise LoweringError(f"the scheme {scheme.name!r} realises nothing: {why}", "leave it out.")
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    nodes = [*casts, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    return replace(
        lowered,
        data=_serialized(proto),
        outcomes=outcomes(lowered, done, "float16", reasons),
        notes=("weights stored as float16 and widened when the file is opened; arithmetic is float32",),
    )


def _halves(array: NDArray[Any]) -> bool:
    return array.size >= _SMALLEST and float(np.abs(array).max()) <= float(np.finfo(np.float16).max)


def _serialized(proto: Any) -> bytes:
    proto.producer_name, proto.producer_version = "", ""
    data: bytes = proto.SerializeToString(deterministic=True)
    return data

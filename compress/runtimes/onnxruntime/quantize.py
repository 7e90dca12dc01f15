"""Schemes on an `.onnx` file, through ONNX Runtime's own quantizers, with our ranges."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from compress.errors import InternalError, LoweringError
from compress.model.layers import MULTIPLYING
from compress.recipe import QuantScheme
from compress.registry import require
from compress.runtimes.base import Lowered, Placed, chosen, outcomes
from compress.runtimes.calibrate import Ranges
from compress.runtimes.quiet import quiet
from compress.target import Target

_STATIC = {kind: "" for kind in ("linear", "addmm", "matmul", "conv1d", "conv2d")} | {
    "conv3d": "ONNX Runtime has no integer 3-D convolution",
    "conv_transpose2d": "ONNX Runtime has no integer transposed convolution",
}
_DYNAMIC = {kind: "" for kind in ("linear", "addmm", "matmul")} | {
    kind: "ONNX Runtime's dynamic convolution is slower than float" for kind in MULTIPLYING if "conv" in kind
}


def quantize(lowered: Lowered, scheme: QuantScheme, ranges: Ranges | None, target: Target) -> Lowered:
    """Realises a scheme.

    `float16` stores weights in half precision and computes in float32: the CPU provider has no half kernels.
    `int8`: weights int8, activations uint8; output quantization only behind convolutions, so that what follows a
    matrix product (bias, residual, normalisation) sees float. On `cpu = "any"` weights keep to 7 bits: CPUs without
    a dot-product instruction add pairs of products in 16 bits, which saturates with 8.

    Raises:
        LoweringError: If nothing can be quantized or the quantizer fails.
    """
    require("onnxruntime.quantization", why="int8 for ONNX Runtime")
    if scheme.dtype == "float16":
        return _float16(lowered)
    supported = _STATIC if scheme.activations == "static" else _DYNAMIC
    done, reasons = chosen(lowered, scheme, supported)
    seven_bits = target.cpu == "any"
    try:
        if scheme.activations == "static":
            if ranges is None:
                raise InternalError("static quantization without ranges", "")
            data = _static(lowered.data, done, ranges, scheme.granularity == "channel", seven_bits)
        else:
            data = _dynamic(lowered.data, done, scheme.granularity == "channel", seven_bits)
    except (ValueError, RuntimeError, TypeError, KeyError, AttributeError) as error:
        raise LoweringError(
            f"ONNX Runtime's quantizer failed on {scheme.name!r}: {type(error).__name__}: {str(error)[:300]}",
            "exclude the layer it names, or leave the scheme out.",
        ) from error
    notes = [f"weights int8 per {scheme.granularity}" + (", 7 bits (safe on every x86 CPU)" if seven_bits else "")]
    if ranges is not None and scheme.activations == "static":
        notes.append(f"activations uint8, ranges: {ranges.source}")
    else:
        notes.append("activations uint8, ranges found at run time")
    return replace(lowered, data=data, outcomes=outcomes(lowered, done, "int8", reasons), notes=tuple(notes))


def _static(data: bytes, done: list[Placed], ranges: Ranges, per_channel: bool, seven_bits: bool) -> bytes:
    import onnx
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    proto = onnx.shape_inference.infer_shapes(onnx.load_from_string(data))
    kinds = {node.name: node.op_type for node in proto.graph.node}
    found: dict[str, tuple[float, float]] = {}
    nodes: list[str] = []
    for item in done:
        nodes.append(item.node)
        found[item.input] = ranges.of(item.layer.input)
        if kinds[item.node] == "Conv":
            if item.activation is not None:
                nodes.append(item.activation)
                found[item.output] = ranges.of(item.layer.output)
            output = next(node.output[0] for node in proto.graph.node if node.name == item.node)
            found[output] = ranges.of(item.layer.node)
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
    return _serialized(quantizer.model.model)


def _dynamic(data: bytes, done: list[Placed], per_channel: bool, seven_bits: bool) -> bytes:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    proto = onnx.load_from_string(data)
    kinds = {node.name: node.op_type for node in proto.graph.node}
    nodes = [item.node for item in done]
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
            extra_options={"MatMulConstBOnly": True, "WeightSymmetric": True},
        )
        return _serialized(onnx.load(path))


def _float16(lowered: Lowered) -> Lowered:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    proto = onnx.load_from_string(lowered.data)
    casts, kept = [], []
    for initializer in proto.graph.initializer:
        array = numpy_helper.to_array(initializer)
        if initializer.data_type != TensorProto.FLOAT or array.size < 64 or np.abs(array).max() > np.finfo(np.float16).max:
            kept.append(initializer)
            continue
        half = numpy_helper.from_array(array.astype(np.float16), f"{initializer.name}.half")
        kept.append(half)
        casts.append(
            helper.make_node("Cast", [half.name], [initializer.name], name=f"{initializer.name}.cast", to=TensorProto.FLOAT)
        )
    if not casts:
        raise LoweringError("the scheme 'float16' realises nothing: no float weight of 64 elements or more", "leave it out.")
    halved = {node.output[0] for node in casts}
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    nodes = [*casts, *proto.graph.node]
    weights = {node.name: set(node.input) for node in proto.graph.node}
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    done = [item for item in lowered.placed if weights[item.node] & halved]
    reasons = {item.layer.name: "its weight has fewer than 64 elements" for item in lowered.placed}
    return replace(
        lowered,
        data=_serialized(proto),
        outcomes=outcomes(lowered, done, "float16", reasons),
        notes=("weights stored as float16 and widened when the file is opened; arithmetic is float32",),
    )


def _serialized(proto: Any) -> bytes:
    proto.producer_name, proto.producer_version = "", ""
    data: bytes = proto.SerializeToString(deterministic=True)
    return data

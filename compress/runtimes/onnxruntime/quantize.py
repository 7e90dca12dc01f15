"""Schemes on an `.onnx` file; static int8 through ONNX Runtime's own quantizer, with our ranges."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from compress.calibrate import Ranges
from compress.errors import InternalError, LoweringError
from compress.processors import adds_in_16_bits
from compress.recipe import QuantScheme
from compress.registry import require
from compress.runtimes.base import Joined, Lowered, Part, Placed, carried, chosen, nothing, outcomes
from compress.runtimes.onnxruntime.direct import refuse_ranges
from compress.runtimes.onnxruntime.draft import Draft
from compress.runtimes.onnxruntime.dynamic import multiply_integers
from compress.runtimes.onnxruntime.edit import keep_float_readers, keep_float_weights, separate_weights
from compress.runtimes.onnxruntime.flavour import FLAVOURS, Flavour, computes_halves
from compress.runtimes.onnxruntime.halves import compute_halves
from compress.runtimes.onnxruntime.stored import (
    STORED_AS_HALVES,
    TOO_SMALL,
    store_blocks,
    store_halves,
    store_integers,
    store_weights_as_halves,
)
from compress.runtimes.quiet import quiet
from compress.target import Target

_PRODUCTS = ("linear", "addmm", "matmul")
_NO_DYNAMIC = "ONNX Runtime's dynamic convolution is slower than float"
_STATIC = {
    "conv3d": "ONNX Runtime has no integer 3-D convolution",
    **{f"conv_transpose{n}d": "ONNX Runtime has no integer transposed convolution" for n in (1, 2, 3)},
}
# The opset in which QuantizeLinear and DequantizeLinear got an axis.
_CHANNELS_SINCE = 13


def quantize(lowered: Lowered, scheme: QuantScheme, ranges: Ranges | None, target: Target) -> Lowered:
    """Realises a scheme; the parts of a mixed one in turn, on the file that the one before gave.

    1. `int8`: weights int8, activations uint8; output quantization only behind convolutions, so that what follows a
       matrix product (bias, residual, normalisation) sees float. Where the target's CPU may be an x86 without a
       dot-product instruction weights keep to 7 bits: it adds pairs of products in 16 bits, which saturates with 8.
    2. `float16` and weight-only `int8` are a smaller store: weights are widened when the file is opened, and arithmetic
       is float32. The CPU provider has no half kernels, and none that multiplies floats with int8.
    3. `int4`: matrix products by `MatMulNBits`, blocks of weights with a scale each; with dynamic activations it
       multiplies integers.
    4. `flavour = "tensorrt"`: see `flavour`. Engines on a GPU that take the file's types compute `float16` in halves.

    Raises:
        LoweringError: If nothing can be quantized or the quantizer fails.
    """
    require("onnxruntime.quantization", why="int8 for ONNX Runtime")
    draft = Draft(lowered.data, lowered.beside)
    if scheme.dtype == "float16" and not scheme.rules:
        return compute_halves(lowered, scheme) if computes_halves(target) else store_halves(lowered, draft, scheme)
    scaled = _scaled(draft.graph)
    parts, reasons = chosen(lowered, scheme, lambda item, use: _refusal(item, use, scaled, target))
    if any(part.scheme.activations == "static" for part in parts) and ranges is None:
        raise InternalError("static quantization without ranges", "")
    if any(part.scheme.activations == "static" for part in parts):
        refuse_ranges(lowered)
    made: list[Part] = []
    notes: list[str] = []
    for part in parts:
        done, said = _realise(draft, lowered, part, ranges, target, reasons)
        made += [replace(part, layers=done)] if done else []
        notes += [note for note in said if note not in notes]
    if not made:
        raise nothing(scheme, reasons)
    data, beside = draft.finished()
    return replace(
        lowered,
        data=data,
        beside=beside,
        outcomes=outcomes(lowered, made, reasons),
        notes=tuple(notes),
        arithmetic="int8" if any(part.scheme.activations != "none" for part in made) else "float",
    )


def _realise(
    draft: Draft, lowered: Lowered, part: Part, ranges: Ranges | None, target: Target, reasons: dict[str, str]
) -> tuple[tuple[Placed, ...], list[str]]:
    """Realises one part; returns the layers that became what they should, and what is to be said of it."""
    scheme, layers = part.scheme, list(part.layers)
    if scheme.dtype == "float16":
        done = store_weights_as_halves(draft, layers)
        reasons.update({item.layer.name: TOO_SMALL for item in layers if item not in done})
        return done, [STORED_AS_HALVES]
    if scheme.dtype == "int4":
        return store_blocks(draft, layers, scheme.block_size, integer=scheme.activations == "dynamic", reasons=reasons)
    if scheme.activations == "none":
        return store_integers(draft, layers, scheme.granularity, reasons)
    flavour = FLAVOURS[target.flavour]
    seven_bits = adds_in_16_bits(target.cpu) and target.flavour == "cpu"
    per_channel = scheme.granularity == "channel"
    said = f"weights int8 per {scheme.granularity}" + (", 7 bits (safe on every CPU)" if seven_bits else "")
    if scheme.activations == "dynamic" or ranges is None:
        done = multiply_integers(draft, layers, per_channel=per_channel, seven_bits=seven_bits, reasons=reasons)
        return done, [said, "activations uint8, ranges found at run time"]
    joined = _carried(lowered, layers) if flavour.rounds_outputs else ()
    try:
        draft.proto = _static(draft.proto, layers, joined, ranges, per_channel, seven_bits, flavour)
    except (ValueError, RuntimeError, TypeError, KeyError, AttributeError) as error:
        raise LoweringError(
            f"ONNX Runtime's quantizer failed on {scheme.name!r}: {type(error).__name__}: {str(error)[:300]}",
            "exclude the layer it names, or leave the scheme out.",
        ) from error
    done = _realised(draft.graph, layers, reasons)
    return done, [said, f"activations {flavour.activations}, ranges: {ranges.source}"]


def _refusal(item: Placed, scheme: QuantScheme, scaled: set[str], target: Target) -> str:
    """Why a layer cannot become what the scheme asks for."""
    kind = item.layer.operator
    if kind == "embedding" and scheme.dtype == "int8" and (target.flavour, target.provider) != ("cpu", "cpu"):
        return "a table stays float where a GPU computes: it multiplies nothing"
    if scheme.dtype == "float16" or (scheme.dtype == "int8" and scheme.activations == "none"):
        return ""
    if scheme.dtype == "int4":
        return "" if kind in _PRODUCTS else "ONNX Runtime has 4-bit kernels for matrix products only"
    if item.node in scaled:
        return "ONNX Runtime has no integer kernel for a product with factors"
    if scheme.activations == "dynamic":
        return "" if kind in _PRODUCTS else _NO_DYNAMIC
    return _STATIC.get(kind, "")


def _scaled(graph: Any) -> set[str]:
    """Products with a factor of their own: the static kernel ignores beta, the dynamic one takes neither."""
    factors = {
        node.name: {item.name: item.f for item in node.attribute if item.name in ("alpha", "beta")}
        for node in graph.node
        if node.op_type == "Gemm"
    }
    return {name for name, given in factors.items() if any(value != 1 for value in given.values())}


def _realised(graph: Any, asked: list[Placed], reasons: dict[str, str]) -> tuple[Placed, ...]:
    """Believes the file, not the quantizer, which skips what it cannot do without a word."""
    integer = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    found = {node.name for node in graph.node if len(node.input) > 1 and integer.issuperset(node.input[:2])}
    left = [item for item in asked if item.node not in found]
    reasons.update({item.layer.name: "ONNX Runtime's quantizer left it in float" for item in left})
    return tuple(item for item in asked if item.node in found)


def _carried(lowered: Lowered, done: list[Placed]) -> tuple[Joined, ...]:
    """What runs on integers between convolutions; products hand on float."""
    made = {item.output for item in done if "conv" in item.layer.operator}
    return carried(lowered.joined, made, {item.input for item in done})


def _static(
    proto: Any,
    done: list[Placed],
    joined: Sequence[Joined],
    ranges: Ranges,
    per_channel: bool,
    seven_bits: bool,
    flavour: Flavour,
) -> Any:
    import onnx
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    separate_weights(proto, [item.node for item in done])
    proto = onnx.shape_inference.infer_shapes(_with_channels(proto) if per_channel else proto)
    kinds = {node.name: node.op_type for node in proto.graph.node}
    found: dict[str, tuple[float, float]] = {}
    nodes: list[str] = []
    behind: set[str] = set()
    for item in done:
        nodes.append(item.node)
        found[item.input] = ranges.of(item.value_in)
        if kinds[item.node] == "Conv" and flavour.rounds_outputs:
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
            activation_qType=getattr(QuantType, flavour.kind),
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
                "OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm", *([] if flavour.rounds_outputs else ["Conv"])],
                **flavour.options,
            },
        )
        quantizer.quantize_model()
    keep_float_readers(quantizer.model.model, nodes, sorted({item.input for item in done} - behind))
    if _opset(quantizer.model.model) >= _CHANNELS_SINCE:
        keep_float_weights(quantizer.model.model)
    quantizer.model.topological_sort()
    return quantizer.model.model


def _with_channels(proto: Any) -> Any:
    """Returns an older model in the first opset whose quantization operators have a scale a channel."""
    import onnx

    if _opset(proto) >= _CHANNELS_SINCE:
        return proto
    return onnx.version_converter.convert_version(proto, _CHANNELS_SINCE)


def _opset(proto: Any) -> int:
    return next((int(item.version) for item in proto.opset_import if item.domain in ("", "ai.onnx")), 0)


def _state_types(graph: Any, names: Iterable[str]) -> None:
    """States the type of values behind operators that onnx does not know; the quantizer leaves untyped ones float."""
    from onnx import TensorProto, helper

    known = {item.name for item in (*graph.value_info, *graph.input, *graph.output)}
    graph.value_info.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names if name not in known
    )

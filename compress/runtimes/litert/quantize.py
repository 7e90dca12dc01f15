"""Schemes on a `.tflite` file, through LiteRT's own quantizer, with our ranges."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from compress.calibrate import Ranges
from compress.errors import InternalError, LoweringError
from compress.model.layers import MULTIPLYING
from compress.recipe import QuantScheme
from compress.registry import require
from compress.runtimes.base import Joined, Lowered, Part, Placed, carried, chosen, outcomes, tables_note
from compress.runtimes.litert.bias import fit_biases
from compress.runtimes.litert.flatbuffer import DEQUANTIZE, INT8, WEIGHTED, code, read, text, write
from compress.runtimes.litert.interpreter import Interpreter
from compress.runtimes.quiet import quiet

_KERNELS = {"FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D"}
_TABLE = "EMBEDDING_LOOKUP"
# Blocks for which the quantizer and XNNPACK have 4-bit kernels with dynamic activations.
_BLOCKS = (32, 64, 128, 256)


def quantize(lowered: Lowered, scheme: QuantScheme, ranges: Ranges | None, interpreter: Interpreter) -> Lowered:
    """Realises a scheme, on convolutions, fully connected layers, and what stands between convolutions.

    A whole-graph static scheme and the quantizer's own calibration loop are not used: over many rows they gave
    outputs close to constant. Its integer kernels give the same answers on every CPU, so the target's changes nothing.
    Weight-only schemes store integers and widen them in the file; 4 bits have a scale a block only with dynamic
    activations, else one a channel.

    Raises:
        LoweringError: If nothing can be quantized or the quantizer fails.
    """
    require("ai_edge_quantizer", why="int8 for LiteRT")
    parts, reasons = chosen(lowered, scheme, _refusal)
    static = [item for part in parts if part.scheme.activations == "static" for item in part.layers]
    if static and ranges is None:
        raise InternalError("static quantization without ranges", "")
    try:
        with quiet():
            joined = _carried(lowered, static)
            given = _ranges_by_tensor(lowered.data, static, joined, ranges) if ranges else {}
            data = _run(lowered.data, parts, joined, given, interpreter)
    except (ValueError, RuntimeError, TypeError, KeyError, AttributeError) as error:
        raise LoweringError(
            f"LiteRT's quantizer failed on {scheme.name!r}: {type(error).__name__}: {str(error)[:300]}",
            "exclude the layer it names, or leave the scheme out.",
        ) from error
    notes = [note for part in parts for note in _notes(part, ranges, interpreter)]
    return replace(
        lowered,
        data=data,
        outcomes=outcomes(lowered, parts, reasons),
        notes=tuple(dict.fromkeys(notes)),
        arithmetic="int8" if any(part.scheme.activations != "none" for part in parts) else "float",
    )


def _refusal(item: Placed, scheme: QuantScheme) -> str:
    """Why a layer cannot become what the scheme asks for."""
    if scheme.dtype == "float16" and item.layer.operator not in MULTIPLYING:
        return "a table look-up stays float: it multiplies nothing"
    if item.layer.operator not in MULTIPLYING:
        return "" if item.node == _TABLE else f"LiteRT lowered it to {item.node}, which looks up no integers"
    if item.node not in _KERNELS:
        return f"LiteRT lowered it to {item.node}, which has no integer kernel for a weight"
    if item.node == "DEPTHWISE_CONV_2D" and scheme.activations == "dynamic":
        return "LiteRT's dynamic depthwise convolution falls back to a slow kernel"
    if scheme.dtype == "int4" and item.node != "FULLY_CONNECTED":
        return "LiteRT has 4-bit kernels for fully connected layers only"
    if scheme.dtype == "int4" and scheme.activations == "dynamic" and item.layer.shape[-1] % 2:
        return "LiteRT's 4-bit kernel needs an even number of inputs"
    return ""


def _notes(part: Part, ranges: Ranges | None, interpreter: Interpreter) -> tuple[str, ...]:
    scheme = part.scheme
    if scheme.dtype == "float16":
        return ("weights stored as float16 and widened when the file is opened; arithmetic is float32",)
    if scheme.activations == "none":
        tables = [item for item in part.layers if item.node == _TABLE]
        shared = "row" if scheme.granularity == "channel" and interpreter.tables_per_row else "table"
        said = (tables_note(shared),) if tables else ()
        if len(tables) == len(part.layers):
            return said
        return (
            *said,
            f"weights stored as {scheme.dtype} per {scheme.granularity} and widened; arithmetic is float32",
        )
    shared = f"blocks of {scheme.block_size}" if scheme.dtype == "int4" else scheme.granularity
    found = f"ranges: {ranges.source}" if ranges and scheme.activations == "static" else "ranges found at run time"
    coarser = any(_one_scale(scheme, item, interpreter) for item in part.layers) and shared != "tensor"
    told = f"; fully connected ones per tensor, as {interpreter.title} reads no more" if coarser else ""
    return (f"weights {scheme.dtype} per {shared}{told}", f"activations int8, {found}")


def _one_scale(scheme: QuantScheme, item: Placed, interpreter: Interpreter) -> bool:
    """Whether the interpreter reads but one scale of this layer's weight."""
    if item.node == _TABLE:
        return not interpreter.tables_per_row
    product = item.node == "FULLY_CONNECTED" and scheme.activations == "dynamic"
    return product and not interpreter.dynamic_products_per_channel


def _carried(lowered: Lowered, static: list[Placed]) -> tuple[Joined, ...]:
    """What runs on integers between convolutions."""
    made = {item.output for item in static if "conv" in item.layer.operator}
    return carried(lowered.joined, made, {item.input for item in static})


def _run(
    data: bytes,
    parts: list[Part],
    joined: Sequence[Joined],
    ranges: dict[str, dict[str, Any]],
    interpreter: Interpreter,
) -> bytes:
    from ai_edge_quantizer import qtyping, quantizer
    from ai_edge_quantizer.algorithm_manager import AlgorithmName

    engine = quantizer.Quantizer(bytearray(data))
    static = False
    for part in parts:
        scheme = part.scheme
        for item in part.layers:
            # The quantizer's scope of an operator is the name of its output and a semicolon.
            scope = f"^{re.escape(item.output)};$"
            kind = getattr(qtyping.TFLOperationName, item.node)
            shared = _granularity(qtyping, scheme, item, interpreter)
            bits = 4 if scheme.dtype == "int4" else 8
            if scheme.dtype == "float16":
                engine.update_quantization_recipe(scope, kind, _half(qtyping), AlgorithmName.FLOAT_CASTING)
            elif scheme.activations == "dynamic" or item.node == _TABLE:
                # A look-up reads integers itself; weight-only would widen the whole table.
                engine.add_dynamic_config(scope, kind, num_bits=bits, granularity=shared)
            elif scheme.activations == "none":
                engine.add_weight_only_config(scope, kind, num_bits=bits, granularity=shared)
            else:
                static = True
                engine.add_static_config(scope, kind, 8, bits, weight_granularity=shared)
    if not static:
        return bytes(engine.quantize(enable_progress_bar=False, enable_progress_report=False).quantized_model or b"")
    for between in joined:
        scope = f"^{re.escape(between.output)};$"
        kind = getattr(qtyping.TFLOperationName, between.kind)
        engine.add_static_config(scope, kind, 8, 8)
    for boundary in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
        engine.update_quantization_recipe(".*", boundary, algorithm_key=AlgorithmName.NO_QUANTIZE)
    result = engine.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    return fit_biases(_read_outputs(bytes(result.quantized_model or b""), data), data)


def _granularity(qtyping: Any, scheme: QuantScheme, item: Placed, interpreter: Interpreter) -> Any:
    """What shares a scale: blocks where there are such kernels and the inputs are whole blocks, else channels."""
    known = qtyping.QuantGranularity
    if scheme.granularity == "tensor" or _one_scale(scheme, item, interpreter):
        return known.TENSORWISE
    size = scheme.block_size
    blocks = scheme.dtype == "int4" and scheme.activations == "dynamic" and size in _BLOCKS
    if blocks and item.layer.shape[-1] % size == 0:
        return getattr(known, f"BLOCKWISE_{size}")
    return known.CHANNELWISE


def _read_outputs(quantized: bytes, original: bytes) -> bytes:
    """Corrects what the quantizer does with an output that is read inside the graph, too.

    Between a float and an integer form of one tensor it leaves the graph by one, the signature by the other, and hands
    a layer the one that does not go with its weight. Outputs are float; a layer with an integer weight reads integers.
    """
    flat, before = read(quantized), read(original)
    graph = flat.subgraphs[0]
    copied = {int(item.outputs[0]): int(item.inputs[0]) for item in graph.operators if code(flat, item) == DEQUANTIZE}
    for operator in graph.operators:
        integer = code(flat, operator) in WEIGHTED and graph.tensors[operator.outputs[0]].type == INT8
        if integer and int(operator.inputs[0]) in copied:
            operator.inputs[0] = copied[int(operator.inputs[0])]
    exact = {integer: copy for copy, integer in copied.items()}
    kinds = [tensor.type for tensor in before.subgraphs[0].tensors]
    leaving = {
        int(index): int(index) if graph.tensors[index].type == kinds[index] else exact[int(index)]
        for index in before.subgraphs[0].outputs
    }
    graph.outputs = list(leaving.values())
    old = {text(entry.name): int(entry.tensorIndex) for entry in before.signatureDefs[0].outputs}
    for entry in flat.signatureDefs[0].outputs:
        entry.tensorIndex = leaving[old[text(entry.name)]]
    return write(flat)


def _half(qtyping: Any) -> Any:
    return qtyping.OpQuantizationConfig(
        weight_tensor_config=qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT),
        compute_precision=qtyping.ComputePrecision.FLOAT,
        explicit_dequantize=True,
    )


def _ranges_by_tensor(
    data: bytes, static: list[Placed], joined: Sequence[Joined], ranges: Ranges
) -> dict[str, dict[str, Any]]:
    """Our ranges under the file's tensor names; a tensor that two layers touch covers both."""
    shapes = {text(tensor.name): len(tensor.shape) for tensor in read(data).subgraphs[0].tensors}
    merged: dict[str, tuple[float, float]] = {}
    for item in static:
        for name, (new_low, new_high) in (
            (item.input, ranges.of(item.value_in)),
            (item.output, item.range_out(ranges)),
        ):
            old_low, old_high = merged.get(name, (new_low, new_high))
            merged[name] = (min(old_low, new_low), max(old_high, new_high))
    merged |= {tensor: ranges.of(value) for between in joined for tensor, value in between.values}
    return {
        name: {
            "min": np.full((1,) * shapes[name], low, np.float32),
            "max": np.full((1,) * shapes[name], high, np.float32),
        }
        for name, (low, high) in merged.items()
    }

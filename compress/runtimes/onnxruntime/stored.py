"""Weights stored small: as halves, as int8, or as blocks of 4 bits; activations stay float in the file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.recipe import QuantScheme
from compress.runtimes.base import Lowered, Part, Placed, matched, nothing, outcomes, tables_note
from compress.runtimes.onnxruntime.blocks import pack
from compress.runtimes.onnxruntime.draft import Draft
from compress.runtimes.onnxruntime.edit import drop_unread, put_instead, separate_weights
from compress.runtimes.onnxruntime.pieces import largest, rounded

# Below this many elements widening costs more bytes than it saves.
SMALLEST = 64
TOO_SMALL = f"its weight has fewer than {SMALLEST} elements, or values that float16 cannot hold"
STORED_AS_HALVES = "weights stored as float16 and widened when the file is opened; arithmetic is float32"
_MICROSOFT = "com.microsoft"
# Of `MatMulNBits`: activations become int8, or stay float32.
_INTEGERS, _FLOATS = 4, 1


def store_halves(lowered: Lowered, draft: Draft, scheme: QuantScheme) -> Lowered:
    """Halves every large tensor but those that a layer reads which the scheme leaves out.

    Raises:
        LoweringError: If there is nothing to halve.
    """
    from onnx import TensorProto

    read = {node.name: set(node.input) for node in draft.graph.node}
    patterns = matched(lowered, scheme)
    left_out = {name for item in lowered.placed if patterns[item.layer.name] for name in read[item.node]}
    wanted = [
        item.name
        for item in draft.graph.initializer
        if item.name not in left_out and item.data_type == TensorProto.FLOAT and _halves(draft.array(item))
    ]
    done = tuple(item for item in lowered.placed if read[item.node].intersection(wanted))
    reasons = {layer.name: why for layer, why in lowered.missing}
    reasons |= {item.layer.name: patterns[item.layer.name] or TOO_SMALL for item in lowered.placed}
    if not done:
        raise nothing(scheme, reasons)
    _halve(draft, wanted)
    data, beside = draft.finished()
    made = outcomes(lowered, [Part(scheme, done)], reasons)
    return replace(lowered, data=data, beside=beside, outcomes=made, notes=(STORED_AS_HALVES,))


def store_weights_as_halves(draft: Draft, layers: list[Placed]) -> tuple[Placed, ...]:
    """Halves the weights of these layers alone; returns those of them that could be halved."""
    separate_weights(draft.proto, [item.node for item in layers])
    weights, held = _weights(draft, layers), draft.constants()
    done = tuple(item for item in layers if _halves(draft.array(held[weights[item.node]])))
    _halve(draft, {weights[item.node] for item in done})
    return done


def store_integers(
    draft: Draft, layers: list[Placed], granularity: str, reasons: dict[str, str]
) -> tuple[tuple[Placed, ...], list[str]]:
    """Stores weights as int8 with a scale a channel, or one; a cast and a product widen them when the file is opened.

    Not by DequantizeLinear, which ONNX Runtime leaves in the graph and carries out at every call. Of a table only the
    rows that were looked up are widened, at every call.
    """
    from onnx import TensorProto, helper

    separate_weights(draft.proto, [item.node for item in layers])
    weights, held = _weights(draft, layers), draft.constants()
    by_name = {node.name: node for node in draft.graph.node}
    gathers = [item for item in layers if by_name[item.node].op_type == "Gather"]
    tables = [item for item in gathers if not any(given.i for given in by_name[item.node].attribute)]
    reasons.update({item.layer.name: "it does not look up whole rows" for item in gathers if item not in tables})
    for item in tables:
        _look_up(draft, by_name[item.node], granularity)
    nodes, done, seen = [], [], set()
    for item in layers:
        if item in gathers:
            continue
        name = weights[item.node]
        array = draft.array(held[name])
        if array.size < SMALLEST:
            reasons[item.layer.name] = f"its weight has fewer than {SMALLEST} elements"
            continue
        done.append(item)
        if name in seen:
            continue
        seen.add(name)
        steps, scale = rounded(array, _output_axis(draft.proto, item, array) if granularity == "channel" else None, 127)
        draft.constant(steps, f"{name}.int8")
        draft.constant(scale, f"{name}.scale")
        nodes.append(
            helper.make_node("Cast", [f"{name}.int8"], [f"{name}.wide"], name=f"{name}.cast", to=TensorProto.FLOAT)
        )
        nodes.append(helper.make_node("Mul", [f"{name}.wide", f"{name}.scale"], [name], name=f"{name}.scaled"))
    draft.remove(seen)
    draft.first(nodes)
    drop_unread(draft.graph)
    notes = [f"weights stored as int8 per {granularity} and widened when the file is opened; arithmetic is float32"]
    if tables:
        notes = [*(notes if done else []), tables_note("row" if granularity == "channel" else "table")]
    return (*done, *tables), notes


def _look_up(draft: Draft, node: Any, granularity: str) -> None:
    """Lets a look-up fetch integers and what their steps are worth, and widen them."""
    from onnx import TensorProto, helper

    table, rows = node.input[:2]
    stored, output = f"{table}.rows", node.output[0]
    if stored not in draft.constants():
        steps, scale = rounded(draft.array(draft.constants()[table]), 0 if granularity == "channel" else None, 127)
        draft.constant(steps, stored)
        draft.constant(scale if granularity == "channel" else scale.reshape(()), f"{stored}.scale")
    parts = [
        helper.make_node("Gather", [stored, rows], [f"{output}.int8"], name=node.name, axis=0),
        helper.make_node(
            "Cast", [f"{output}.int8"], [f"{output}.wide"], name=f"{node.name}.wide", to=TensorProto.FLOAT
        ),
    ]
    step = f"{stored}.scale"
    if granularity == "channel":
        step = f"{output}.step"
        parts.append(helper.make_node("Gather", [f"{stored}.scale", rows], [step], name=f"{node.name}.step", axis=0))
    parts.append(helper.make_node("Mul", [f"{output}.wide", step], [output], name=f"{node.name}.scaled"))
    put_instead(draft.graph, node, parts)


def store_blocks(
    draft: Draft, layers: list[Placed], size: int, *, integer: bool, reasons: dict[str, str]
) -> tuple[tuple[Placed, ...], list[str]]:
    """Turns matrix products into `MatMulNBits` with 4-bit weights in blocks, and a sum for the bias.

    Args:
        draft: The file.
        layers: `MatMul`, or `Gemm` without factors, by a constant matrix.
        size: Weights that share a scale.
        integer: Whether activations become int8 at run time, block by block.
        reasons: Layer to why it was left.
    """
    from onnx import helper

    graph = draft.graph
    weights, held = _weights(draft, layers), draft.constants()
    by_name = {node.name: node for node in graph.node}
    packed: set[str] = set()
    done = []
    for item in layers:
        node, name = by_name[item.node], weights[item.node]
        array = draft.array(held[name])
        given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        plain = all(given.get(factor, 1.0) == 1.0 for factor in ("alpha", "beta")) and not given.get("transA", 0)
        if array.ndim != 2 or array.size < SMALLEST or not plain:
            reasons[item.layer.name] = "its weight is no plain matrix, or too small for blocks"
            continue
        done.append(item)
        rows = array if given.get("transB", 0) else array.T
        # The same matrix may be read both ways.
        stored = f"{name}.int4" if given.get("transB", 0) else f"{name}.T.int4"
        if stored not in packed:
            packed.add(stored)
            steps, scales = pack(rows, size)
            draft.constant(steps, stored)
            draft.constant(scales, f"{stored}.scales")
        product = helper.make_node(
            "MatMulNBits",
            [node.input[0], stored, f"{stored}.scales"],
            list(node.output),
            name=node.name,
            domain=_MICROSOFT,
            K=rows.shape[1],
            N=rows.shape[0],
            bits=4,
            block_size=size,
            accuracy_level=_INTEGERS if integer else _FLOATS,
        )
        replaced = [product]
        if len(node.input) > 2 and node.input[2]:
            product.output[0] = f"{node.output[0]}.product"
            total = [product.output[0], node.input[2]]
            replaced.append(helper.make_node("Add", total, list(node.output), name=f"{node.name}.bias"))
        put_instead(graph, node, replaced)
    drop_unread(graph)
    if packed and not any(item.domain == _MICROSOFT for item in draft.proto.opset_import):
        draft.proto.opset_import.append(helper.make_opsetid(_MICROSOFT, 1))
    arithmetic = "activations int8, rounded at run time" if integer else "arithmetic is float32"
    return tuple(done), [f"weights int4 in blocks of {size} with a scale each; {arithmetic}"]


def _weights(draft: Draft, layers: Iterable[Placed]) -> dict[str, str]:
    """Node -> the initializer that is its weight."""
    held = draft.constants()
    nodes = {node.name: node for node in draft.graph.node}
    found = {}
    for item in layers:
        node = nodes[item.node]
        found[item.node] = node.input[0] if node.op_type == "Gather" else node.input[1]
        assert found[item.node] in held, f"{item.node} reads no constant weight"
    return found


def _output_axis(proto: Any, item: Placed, array: NDArray[Any]) -> int:
    node = next(node for node in proto.graph.node if node.name == item.node)
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    if node.op_type in ("Gemm", "MatMul"):
        return 0 if transposed else array.ndim - 1
    return 1 if node.op_type == "ConvTranspose" else 0


def _halves(array: NDArray[Any]) -> bool:
    return array.size >= SMALLEST and largest(array) <= float(np.finfo(np.float16).max)


def _halve(draft: Draft, names: Iterable[str]) -> None:
    """Stores tensors as halves, each with a cast that widens it."""
    from onnx import TensorProto, helper

    wanted, casts = set(names), []
    for name, item in draft.constants().items():
        if name in wanted:
            draft.constant(draft.array(item).astype(np.float16), f"{name}.half")
            casts.append(helper.make_node("Cast", [f"{name}.half"], [name], name=f"{name}.cast", to=TensorProto.FLOAT))
    draft.remove(wanted)
    draft.first(casts)

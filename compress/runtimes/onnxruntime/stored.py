"""Weights stored small: as halves, as int8, or as blocks of 4 bits; activations stay float in the file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.recipe import QuantScheme
from compress.runtimes.base import Lowered, Part, Placed, matched, nothing, outcomes
from compress.runtimes.onnxruntime.blocks import pack
from compress.runtimes.onnxruntime.edit import drop_unread, separate_weights, serialized

# Below this many elements widening costs more bytes than it saves.
_SMALLEST = 64
TOO_SMALL = f"its weight has fewer than {_SMALLEST} elements, or values that float16 cannot hold"
STORED_AS_HALVES = "weights stored as float16 and widened when the file is opened; arithmetic is float32"
_MICROSOFT = "com.microsoft"
# Of `MatMulNBits`: activations become int8, or stay float32.
_INTEGERS, _FLOATS = 4, 1


def store_halves(lowered: Lowered, scheme: QuantScheme) -> Lowered:
    """Halves every large tensor but those that a layer reads which the scheme leaves out.

    Raises:
        LoweringError: If there is nothing to halve.
    """
    import onnx
    from onnx import numpy_helper

    proto = onnx.load_from_string(lowered.data)
    read = {node.name: set(node.input) for node in proto.graph.node}
    patterns = matched(lowered, scheme)
    left_out = {name for item in lowered.placed if patterns[item.layer.name] for name in read[item.node]}
    wanted = [
        item.name
        for item in proto.graph.initializer
        if item.name not in left_out
        and item.data_type == onnx.TensorProto.FLOAT
        and _halves(numpy_helper.to_array(item))
    ]
    _halve(proto, wanted)
    done = tuple(item for item in lowered.placed if read[item.node].intersection(wanted))
    reasons = {layer.name: why for layer, why in lowered.missing}
    reasons |= {item.layer.name: patterns[item.layer.name] or TOO_SMALL for item in lowered.placed}
    if not done:
        raise nothing(scheme, reasons)
    made = outcomes(lowered, [Part(scheme, done)], reasons)
    return replace(lowered, data=serialized(proto), outcomes=made, notes=(STORED_AS_HALVES,))


def store_weights_as_halves(data: bytes, layers: list[Placed]) -> tuple[bytes, tuple[Placed, ...]]:
    """Halves the weights of these layers alone; returns the file and those of them that could be halved."""
    import onnx
    from onnx import numpy_helper

    proto = onnx.load_from_string(data)
    separate_weights(proto, [item.node for item in layers])
    weights = _weights(proto, layers)
    held = {item.name: numpy_helper.to_array(item) for item in proto.graph.initializer if item.name in weights.values()}
    done = tuple(item for item in layers if _halves(held[weights[item.node]]))
    _halve(proto, {weights[item.node] for item in done})
    return serialized(proto), done


def store_integers(
    data: bytes, layers: list[Placed], granularity: str, reasons: dict[str, str]
) -> tuple[bytes, tuple[Placed, ...], list[str]]:
    """Stores weights as int8 with a scale a channel, or one; a cast and a product widen them when the file is opened.

    Not by DequantizeLinear, which ONNX Runtime leaves in the graph and carries out at every call.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    proto = onnx.load_from_string(data)
    separate_weights(proto, [item.node for item in layers])
    weights = _weights(proto, layers)
    held = {item.name: item for item in proto.graph.initializer}
    nodes, done, seen = [], [], set()
    for item in layers:
        name = weights[item.node]
        array = numpy_helper.to_array(held[name])
        if array.size < _SMALLEST:
            reasons[item.layer.name] = f"its weight has fewer than {_SMALLEST} elements"
            continue
        done.append(item)
        if name in seen:
            continue
        seen.add(name)
        axis = _output_axis(proto, item, array)
        others = tuple(place for place in range(array.ndim) if granularity == "tensor" or place != axis)
        peak = np.abs(array).max(axis=others, keepdims=True)
        scale = np.where(peak > 0, peak / 127, 1).astype(np.float32)
        steps = np.clip(np.rint(array / scale), -127, 127).astype(np.int8)
        proto.graph.initializer.remove(held[name])
        proto.graph.initializer.append(numpy_helper.from_array(steps, f"{name}.int8"))
        proto.graph.initializer.append(numpy_helper.from_array(scale, f"{name}.scale"))
        nodes.append(
            helper.make_node("Cast", [f"{name}.int8"], [f"{name}.wide"], name=f"{name}.cast", to=TensorProto.FLOAT)
        )
        nodes.append(helper.make_node("Mul", [f"{name}.wide", f"{name}.scale"], [name], name=f"{name}.scaled"))
    _first(proto, nodes)
    said = f"weights stored as int8 per {granularity} and widened when the file is opened; arithmetic is float32"
    return serialized(proto), tuple(done), [said]


def store_blocks(
    data: bytes, layers: list[Placed], size: int, *, integer: bool, reasons: dict[str, str]
) -> tuple[bytes, tuple[Placed, ...], list[str]]:
    """Turns matrix products into `MatMulNBits` with 4-bit weights in blocks, and a sum for the bias.

    Args:
        data: The file.
        layers: `MatMul`, or `Gemm` without factors, by a constant matrix.
        size: Weights that share a scale.
        integer: Whether activations become int8 at run time, block by block.
        reasons: Layer to why it was left.
    """
    import onnx
    from onnx import helper, numpy_helper

    proto = onnx.load_from_string(data)
    graph = proto.graph
    separate_weights(proto, [item.node for item in layers])
    weights = _weights(proto, layers)
    held = {item.name: item for item in graph.initializer}
    by_name = {node.name: node for node in graph.node}
    packed: set[str] = set()
    done = []
    for item in layers:
        node, name = by_name[item.node], weights[item.node]
        array = numpy_helper.to_array(held[name])
        given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        plain = all(given.get(factor, 1.0) == 1.0 for factor in ("alpha", "beta")) and not given.get("transA", 0)
        if array.ndim != 2 or array.size < _SMALLEST or not plain:
            reasons[item.layer.name] = "its weight is no plain matrix, or too small for blocks"
            continue
        done.append(item)
        rows = array if given.get("transB", 0) else array.T
        if name not in packed:
            packed.add(name)
            steps, scales = pack(np.ascontiguousarray(rows), size)
            graph.initializer.append(numpy_helper.from_array(steps, f"{name}.int4"))
            graph.initializer.append(numpy_helper.from_array(scales, f"{name}.scales"))
        product = helper.make_node(
            "MatMulNBits",
            [node.input[0], f"{name}.int4", f"{name}.scales"],
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
        at = list(graph.node).index(node)
        graph.node.remove(node)
        for offset, new in enumerate(replaced):
            graph.node.insert(at + offset, new)
    drop_unread(graph)
    if packed and not any(item.domain == _MICROSOFT for item in proto.opset_import):
        proto.opset_import.append(helper.make_opsetid(_MICROSOFT, 1))
    arithmetic = "activations int8, rounded at run time" if integer else "arithmetic is float32"
    said = f"weights int4 in blocks of {size} with a scale each; {arithmetic}"
    return serialized(proto), tuple(done), [said]


def _weights(proto: Any, layers: Iterable[Placed]) -> dict[str, str]:
    """Node -> the initializer that is its weight."""
    held = {item.name for item in proto.graph.initializer}
    nodes = {node.name: node for node in proto.graph.node}
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
    return array.size >= _SMALLEST and float(np.abs(array).max()) <= float(np.finfo(np.float16).max)


def _halve(proto: Any, names: Iterable[str]) -> None:
    """Stores tensors as halves, each with a cast that widens it."""
    from onnx import TensorProto, helper, numpy_helper

    wanted = set(names)
    casts, kept = [], []
    for item in proto.graph.initializer:
        if item.name not in wanted:
            kept.append(item)
            continue
        half = numpy_helper.from_array(numpy_helper.to_array(item).astype(np.float16), f"{item.name}.half")
        kept.append(half)
        casts.append(helper.make_node("Cast", [half.name], [item.name], name=f"{item.name}.cast", to=TensorProto.FLOAT))
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    _first(proto, casts)


def _first(proto: Any, nodes: list[Any]) -> None:
    """Puts nodes before all others."""
    everything = [*nodes, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(everything)

"""What the exporter and the quantizers leave wrong in a graph, put right."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

# What ONNX Runtime rounds by itself behind a DequantizeLinear.
_ROUNDED = ("Conv", "ConvTranspose", "Gemm")


def name_outside(proto: Any, inputs: Iterable[str], outputs: Iterable[str]) -> None:
    """Gives the graph's inputs and outputs their names; inner values that have such a name get another one.

    The exporter renames outputs without a look at the values inside, which are called `relu`, `linear` and so on.
    """
    graph = proto.graph
    outside = dict(zip((item.name for item in (*graph.input, *graph.output)), (*inputs, *outputs), strict=True))
    known = {*_values(graph), *outside.values()}
    inner = {}
    for name in _values(graph):
        if name in outside.values() and name not in outside:
            inner[name] = _unused(name, known)
    _rename(graph, outside | inner)


def separate_weights(proto: Any, quantized: Iterable[str]) -> None:
    """Gives the nodes that stay float a copy of each weight that they share with a node that is to be quantized.

    The quantizers hand the rounded weight to every reader: to a look-up in a shared table, to an excluded call.
    """
    graph = proto.graph
    asked = set(quantized)
    readers = _readers(graph)
    known = {*_values(graph)}
    for initializer in list(graph.initializer):
        others = [node for node in readers.get(initializer.name, []) if node.name not in asked]
        if not others or len(others) == len(readers[initializer.name]):
            continue
        copied = graph.initializer.add()
        copied.CopyFrom(initializer)
        copied.name = _unused(initializer.name, known)
        for node in others:
            node.input[:] = [copied.name if name == initializer.name else name for name in node.input]


def keep_float_readers(proto: Any, quantized: Iterable[str], tensors: Iterable[str]) -> None:
    """Lets the nodes that were not asked for read what they read before: the float value, not its integer rounding.

    The quantizer hands the rounded value of a tensor to every reader. A residual, a normalisation or an index computed
    from a raw feature would lose digits without a word.

    Args:
        proto: The quantized graph.
        quantized: Names of the nodes that were to be quantized.
        tensors: What these nodes read, as the float graph names it.
    """
    graph = proto.graph
    asked = set(quantized)
    outputs = {item.name for item in graph.output}
    for tensor in tensors:
        dequantized = f"{tensor}_DequantizeLinear_Output"
        # Where each reader has a rounding of its own, they are numbered.
        numbered = re.compile(rf"{re.escape(dequantized)}(_\d+)?")
        if tensor in outputs and tensor not in {item.name for item in graph.input}:
            # An output of the graph kept its name behind the rounding; the exact value gets it back.
            _rename(graph, {tensor: dequantized, f"{tensor}_QuantizeLinear_Input": tensor}, outside=False)
        for node in graph.node:
            if node.name not in asked:
                node.input[:] = [tensor if numbered.fullmatch(name) else name for name in node.input]
    _drop_unread_roundings(graph)


def _drop_unread_roundings(graph: Any) -> None:
    """Takes out pairs that nothing reads any more."""
    outside = {item.name for item in graph.output}
    for kind in ("DequantizeLinear", "QuantizeLinear"):
        read = outside | {name for node in graph.node for name in node.input}
        kept = [node for node in graph.node if node.op_type != kind or node.output[0] in read]
        del graph.node[:]
        graph.node.extend(kept)


def keep_float_weights(proto: Any) -> None:
    """Lets layers that were left in float stay so when the file is opened.

    ONNX Runtime rounds the weight of every float `Conv`, `ConvTranspose` and `Gemm` to int8, with one scale, where it
    reads a DequantizeLinear with one scale (`WeightBiasQuantization`). One with a scale a channel, all of them equal,
    gives the same numbers and is left alone.
    """
    from onnx import helper, numpy_helper

    graph = proto.graph
    held = {item.name: item for item in graph.initializer}
    dequantized = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    made: dict[tuple[str, int], str] = {}
    known = {*_values(graph)}
    nodes = []
    for node in graph.node:
        source = dequantized.get(node.input[0]) if node.op_type in _ROUNDED and len(node.input) > 1 else None
        if source is not None and source.input[1] in held and node.input[1] in held:
            channels = _channels(node, held[node.input[1]])
            scale = numpy_helper.to_array(held[source.input[1]])
            if (source.output[0], channels) not in made and scale.size == 1:
                zero = numpy_helper.to_array(held[source.input[2]])
                name = _unused(source.output[0], known)
                for suffix, value in (("scale", scale), ("zero_point", zero)):
                    spread = value.reshape(1).repeat(channels)
                    graph.initializer.append(numpy_helper.from_array(spread, f"{name}_{suffix}"))
                inputs = [source.input[0], f"{name}_scale", f"{name}_zero_point"]
                nodes.append(helper.make_node("DequantizeLinear", inputs, [name], name=name, axis=1))
                made[source.output[0], channels] = name
            node.input[0] = made.get((source.output[0], channels), node.input[0])
        nodes.append(node)
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def _channels(node: Any, weight: Any) -> int:
    """The size of dimension 1 of what a layer reads."""
    given = {item.name: item.i for item in node.attribute}
    if node.op_type == "Conv":
        return int(weight.dims[1]) * int(given.get("group", 1))
    if node.op_type == "Gemm":
        return int(weight.dims[1 if given.get("transB") else 0])
    return int(weight.dims[0])


def drop_unread(graph: Any) -> None:
    """Takes out the nodes, and the constants, whose values nobody reads."""
    needed = {item.name for item in graph.output}
    for index in reversed(range(len(graph.node))):
        node = graph.node[index]
        if not needed.intersection(node.output):
            del graph.node[index]
            continue
        needed.update(node.input)
        for inner in _inside(node):
            needed |= _read(inner)
    unread = {item.name for item in graph.initializer if item.name not in needed}
    # Old files list constants among the inputs, too.
    for values in (graph.initializer, graph.input):
        for index in reversed(range(len(values))):
            if values[index].name in unread:
                del values[index]


def put_instead(graph: Any, node: Any, nodes: Iterable[Any]) -> None:
    """Puts nodes where another one stands."""
    at = next(index for index, item in enumerate(graph.node) if item is node or item.name == node.name)
    del graph.node[at]
    for offset, new in enumerate(nodes):
        graph.node.insert(at + offset, new)


def _read(graph: Any) -> set[str]:
    """Every name that a graph inside a node, and those inside it, read."""
    names = {item.name for item in graph.output}
    for node in graph.node:
        names.update(node.input)
        for inner in _inside(node):
            names |= _read(inner)
    return names


def serialized(proto: Any) -> bytes:
    """Returns a graph's file: the same graph gives the same bytes, and no tool's name is in them."""
    proto.producer_name, proto.producer_version = "", ""
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


def _readers(graph: Any) -> dict[str, list[Any]]:
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in set(node.input):
            readers.setdefault(name, []).append(node)
    return readers


def _values(graph: Any) -> list[str]:
    """Every name of a value in a graph and in the graphs inside it."""
    names = [item.name for item in (*graph.input, *graph.initializer)]
    for node in graph.node:
        names += [name for name in node.output if name]
        for inner in _inside(node):
            names += _values(inner)
    return names


def _unused(name: str, known: set[str]) -> str:
    """A name like the given one that no value has; it is known from now on."""
    number = 1
    while f"{name}.{number}" in known:
        number += 1
    known.add(f"{name}.{number}")
    return f"{name}.{number}"


def _rename(graph: Any, names: Mapping[str, str], *, outside: bool = True) -> None:
    """Renames values wherever they are written or read, all at once; `outside` in inputs and outputs, too."""
    if outside:
        for item in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
            item.name = names.get(item.name, item.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for inner in _inside(node):
            _rename(inner, names)


def _inside(node: Any) -> list[Any]:
    return [inner for item in node.attribute for inner in ([item.g] if item.HasField("g") else list(item.graphs))]

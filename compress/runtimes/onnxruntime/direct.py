"""An `.onnx` file that is no graph of ours: its layers, found in the file, and a copy that tells their ranges."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.calibrate import Method, Ranges
from compress.errors import DataError, LoweringError
from compress.model.layers import MULTIPLYING, Layer
from compress.model.onnx_file import OnnxFile
from compress.registry import require
from compress.runtimes.base import Lowered, Placed

_CONVOLUTIONS = {"Conv": "conv", "ConvTranspose": "conv_transpose"}
_PRODUCTS = {"Gemm": "linear", "MatMul": "matmul"}
_ACTIVATIONS = {"Relu", "Clip"}
_FLOAT = 1
_LOW, _HIGH, _WHOLE = ".edge-compress.low", ".edge-compress.high", ".edge-compress.whole"


def take(model: OnnxFile) -> Lowered:
    """Returns the file itself with the table of its layers.

    A layer is a node with a float weight: convolutions, `Gemm` and `MatMul` with a constant matrix, look-ups. What else
    reads a constant matrix has an outcome with the reason why it stays float.
    """
    onnx = require("onnx", why="ONNX Runtime targets")
    graph = onnx.ModelProto.FromString(model.data).graph
    weights = {item.name: tuple(item.dims) for item in graph.initializer if item.data_type == _FLOAT}
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    placed, missing = [], []
    for node in graph.node:
        held = [name for name in node.input if len(weights.get(name, ())) > 1]
        if not held:
            continue
        found = _placed(node, weights, readers)
        if found is not None:
            placed.append(found)
        else:
            layer = _layer(node, node.op_type.lower(), node.input[0], held[0], None, weights[held[0]])
            missing.append((layer, f"weights of {node.op_type} are not quantized here"))
    return Lowered(
        data=model.data,
        suffix=".onnx",
        inputs=tuple(item.name for item in model.signature.inputs),
        outputs=tuple(item.name for item in model.signature.outputs),
        placed=tuple(placed),
        missing=tuple(missing),
        notes=(f"the file as it came: {model.reason}",),
        beside=model.beside,
    )


def watched(lowered: Lowered, *, whole: bool = False) -> tuple[bytes, tuple[str, ...]]:
    """Returns a copy of a file that gives what the quantizer needs to know of its values.

    Args:
        lowered: The file.
        whole: Gives each value whole, `[rows, elements]`; else its least and its greatest element, once a row,
            `[rows]`, so that rows can be run in portions.

    Returns:
        The copy, and the names of the values that it tells of.
    """
    refuse_ranges(lowered)
    onnx = require("onnx", why="ONNX Runtime targets")
    helper, types = onnx.helper, onnx.TensorProto
    proto = onnx.ModelProto.FromString(lowered.data)
    graph = proto.graph
    names = tuple(dict.fromkeys(name for item in lowered.placed for name in _needed(item)))
    prefix = "edge-compress."
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([-1], np.int64), f"{prefix}flat"))
    for name, number in (("zero", 0), ("one", 1)):
        graph.initializer.append(onnx.numpy_helper.from_array(np.array([number], np.int64), prefix + name))
    graph.node.append(helper.make_node("Shape", [lowered.inputs[0]], [f"{prefix}shape"], name=f"{prefix}shape"))
    bounds = [f"{prefix}shape", f"{prefix}zero", f"{prefix}one"]
    graph.node.append(helper.make_node("Slice", bounds, [f"{prefix}rows"], name=f"{prefix}rows"))
    parts = [f"{prefix}rows", f"{prefix}flat"]
    graph.node.append(helper.make_node("Concat", parts, [f"{prefix}by_row"], name=f"{prefix}by_row", axis=0))
    del graph.output[:]
    for name in names:
        if whole:
            told = name + _WHOLE
            graph.node.append(helper.make_node("Reshape", [name, f"{prefix}by_row"], [told], name=told))
            graph.output.append(helper.make_tensor_value_info(told, types.FLOAT, ["rows", f"{name}.elements"]))
            continue
        flat = f"{name}.edge-compress.flat"
        graph.node.append(helper.make_node("Reshape", [name, f"{prefix}flat"], [flat], name=flat))
        for kind, suffix in (("ReduceMin", _LOW), ("ReduceMax", _HIGH)):
            found, told = f"{name}{suffix}.one", f"{name}{suffix}"
            graph.node.append(helper.make_node(kind, [flat], [found], name=found, keepdims=1))
            graph.node.append(helper.make_node("Expand", [found, f"{prefix}rows"], [told], name=told))
            graph.output.append(helper.make_tensor_value_info(told, types.FLOAT, ["rows"]))
    return proto.SerializeToString(), names


def refuse_ranges(lowered: Lowered) -> None:
    """Refuses what needs the weights in memory.

    Raises:
        LoweringError: If the file's weights lie beside it.
    """
    if lowered.beside:
        raise LoweringError(
            "static int8 is not made of a file whose weights lie beside it: ONNX Runtime's quantizer holds every "
            "weight in memory, several times",
            "use int8-dynamic, int8-weights, int4-weights, int4-dynamic or float16.",
        )


def ranges_from(told: Iterable[Mapping[str, NDArray[np.generic]]], names: tuple[str, ...], method: Method) -> Ranges:
    """Returns the ranges from what the watched copy told, portion by portion.

    Raises:
        DataError: If a value is NaN or infinite on a row.
    """
    observers = {name: method.observer() for name in names}
    rows = 0
    for part in told:
        count = len(next(iter(part.values())))
        rows += count
        for name, observer in observers.items():
            for suffix in (_LOW, _HIGH, _WHOLE):
                if name + suffix in part:
                    observer.update(part[name + suffix], count)
    for name, observer in observers.items():
        if not observer.finite:
            raise DataError(
                f"calibration: the value {name!r} of the file is NaN or infinite on calibration rows",
                "rows with missing values? Set data.missing to a number, or let the model replace NaN.",
            )
    found = {name: observer.bounds() for name, observer in observers.items()}
    return Ranges(found, f"{method} over {rows} rows, in ONNX Runtime")


def _needed(item: Placed) -> Iterator[str]:
    if item.layer.operator not in MULTIPLYING:
        return
    yield item.input
    if "conv" in item.layer.operator:
        yield item.layer.node
        yield item.output


def _placed(node: Any, weights: Mapping[str, tuple[int, ...]], readers: Mapping[str, list[Any]]) -> Placed | None:
    """The layer of a node whose weight stands where the quantizers look for it, or None."""
    if node.op_type == "Gather" and not node.domain and len(weights.get(node.input[0], ())) > 1:
        layer = _layer(node, "embedding", node.input[1], node.input[0], None, weights[node.input[0]])
        return Placed(layer, node.name, node.input[1], node.output[0])
    if node.domain or len(node.input) < 2 or len(weights.get(node.input[1], ())) < 2 or node.input[0] in weights:
        return None
    shape = weights[node.input[1]]
    bias = node.input[2] if len(node.input) > 2 and node.input[2] else None
    if node.op_type in _CONVOLUTIONS:
        kind = f"{_CONVOLUTIONS[node.op_type]}{len(shape) - 2}d"
        after = readers.get(node.output[0], [])
        fused = after[0] if len(after) == 1 and after[0].op_type in _ACTIVATIONS else None
        layer = _layer(node, kind, node.input[0], node.input[1], bias, shape, fused)
        if fused is not None:
            return Placed(layer, node.name, node.input[0], fused.output[0], fused=True, activation=fused.name)
        return Placed(layer, node.name, node.input[0], node.output[0])
    if node.op_type in _PRODUCTS and len(shape) == 2 and not _transposes_input(node):
        layer = _layer(node, _PRODUCTS[node.op_type], node.input[0], node.input[1], bias, shape)
        return Placed(layer, node.name, node.input[0], node.output[0])
    return None


def _transposes_input(node: Any) -> bool:
    return any(item.name == "transA" and item.i for item in node.attribute)


def _layer(
    node: Any, kind: str, value: str, weight: str, bias: str | None, shape: tuple[int, ...], fused: Any = None
) -> Layer:
    """A layer in the words of the file: its values are called as the file calls them."""
    output = fused.output[0] if fused is not None else None
    return Layer(node.name, kind, node.output[0], weight, bias, value, output, shape)

"""Matrix products on integers whose activations are rounded at run time, by the range of each call."""

from __future__ import annotations

from typing import Any

import numpy as np

from compress.calibrate.thresholds import largest_step
from compress.runtimes.base import Placed
from compress.runtimes.onnxruntime.draft import Draft
from compress.runtimes.onnxruntime.edit import drop_unread
from compress.runtimes.onnxruntime.pieces import rounded


def multiply_integers(
    draft: Draft, layers: list[Placed], *, per_channel: bool, seven_bits: bool, reasons: dict[str, str]
) -> tuple[Placed, ...]:
    """Turns products by a constant matrix into `DynamicQuantizeLinear`, `MatMulInteger` and a sum for the bias.

    The form is the one that ONNX Runtime fuses into one kernel when it opens the file. Values that several layers read
    are rounded once.

    Args:
        draft: The file.
        layers: `MatMul`, or `Gemm` without factors.
        per_channel: Whether each column of a weight has a scale of its own.
        seven_bits: Whether weights keep to 64 steps on either side.
        reasons: Layer to why it was left.

    Returns:
        The layers that became it.
    """
    asked = {item.node: item for item in layers}
    held = draft.constants()
    nodes: list[Any] = []
    rounded_values: set[str] = set()
    stored: set[str] = set()
    done = []
    for node in draft.graph.node:
        item = asked.get(node.name)
        weight = held.get(node.input[1]) if item is not None else None
        given = {attribute.name: attribute.i for attribute in node.attribute}
        if item is None or weight is None or len(weight.dims) < 2 or given.get("transA"):
            if item is not None:
                reasons[item.layer.name] = "ONNX Runtime multiplies integers by constant matrices only"
            nodes.append(node)
            continue
        done.append(item)
        value, flipped = node.input[0], bool(given.get("transB"))
        if value not in rounded_values:
            rounded_values.add(value)
            nodes.append(
                _node("DynamicQuantizeLinear", [value], [f"{value}.{part}" for part in ("u8", "u8.step", "u8.zero")])
            )
        name = f"{weight.name}.{'T.' if flipped else ''}i8"
        if name not in stored:
            stored.add(name)
            _store(draft, weight, name, flipped, per_channel, largest_step(7 if seven_bits else 8))
        nodes += _product(node, value, name)
    del draft.graph.node[:]
    draft.graph.node.extend(nodes)
    drop_unread(draft.graph)
    return tuple(done)


def _store(draft: Draft, weight: Any, name: str, flipped: bool, per_channel: bool, top: int) -> None:
    array = draft.array(weight)
    # A stack of matrices has one scale: the kernel knows columns of a single one only.
    channels = per_channel and array.ndim == 2
    steps, scale = rounded(array, (0 if flipped else 1) if channels else None, top)
    draft.constant(np.ascontiguousarray(steps.T) if flipped else steps, name)
    draft.constant(scale.reshape(-1) if channels else scale.reshape(()), f"{name}.scale")
    draft.constant(np.zeros(scale.size if channels else (), np.int8), f"{name}.zero")


def _product(node: Any, value: str, weight: str) -> list[Any]:
    from onnx import TensorProto

    output = node.output[0]
    bias = node.input[2] if len(node.input) > 2 and node.input[2] else ""
    scaled = f"{output}.product" if bias else output
    whole, wide, step = f"{output}.i32", f"{output}.wide", f"{output}.step"
    made = [
        _node("MatMulInteger", [f"{value}.u8", weight, f"{value}.u8.zero", f"{weight}.zero"], [whole], name=node.name),
        _node("Cast", [whole], [wide], to=TensorProto.FLOAT),
        _node("Mul", [f"{value}.u8.step", f"{weight}.scale"], [step]),
        _node("Mul", [wide, step], [scaled]),
    ]
    return [*made, _node("Add", [scaled, bias], [output])] if bias else made


def _node(kind: str, inputs: list[str], outputs: list[str], name: str = "", **attributes: Any) -> Any:
    from onnx import helper

    return helper.make_node(kind, inputs, outputs, name=name or f"{outputs[0]}.{kind}", **attributes)

"""An ONNX graph as questions are asked of it: who made a value, who reads it, what is constant, which shape it has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.model.onnx_beside import EXTERNAL

Shape = tuple[int | str, ...]


class View:
    """A graph at one moment. Whoever changes the graph makes a new view.

    Args:
        graph: The graph of a model.
        typed: The same graph with `value_info`, as onnx's shape inference leaves it.
    """

    def __init__(self, graph: Any, typed: Any) -> None:
        self.maker = {name: node for node in graph.node for name in node.output if name}
        self.readers: dict[str, list[Any]] = {}
        for node in graph.node:
            for name in node.input:
                if name:
                    self.readers.setdefault(name, []).append(node)
        self.outputs = {item.name for item in graph.output}
        self._held = {item.name: item for item in graph.initializer}
        self._shapes = {
            item.name: _shape(item.type.tensor_type.shape)
            for item in (*typed.value_info, *typed.input, *typed.output)
            if item.type.tensor_type.HasField("shape")
        }
        self._shapes |= {item.name: tuple(int(size) for size in item.dims) for item in graph.initializer}
        self._kinds = {
            item.name: int(item.type.tensor_type.elem_type) for item in (*typed.value_info, *typed.input, *typed.output)
        }

    def made(self, name: str, *kinds: str) -> Any | None:
        """The node that makes a value, if it is a standard operator of one of these kinds."""
        node = self.maker.get(name)
        return node if node is not None and not node.domain and node.op_type in kinds else None

    def reader(self, name: str, *kinds: str) -> Any | None:
        """The only node that reads a value, if it is of one of these kinds and the value does not leave the graph."""
        found = self.readers.get(name, [])
        if len(found) != 1 or name in self.outputs or found[0].domain or found[0].op_type not in kinds:
            return None
        return found[0]

    def shape(self, name: str) -> Shape | None:
        """The sizes of a value: numbers, or names of what is free; None where they are not known."""
        return self._shapes.get(name)

    def kind(self, name: str) -> int:
        """The number that ONNX gives the type of a value's elements; 0 where it is not known."""
        return self._kinds.get(name, 0)

    def constant(self, name: str) -> NDArray[Any] | None:
        """A constant's value: an initializer's or a `Constant` node's."""
        from onnx import numpy_helper

        if name in self._held:
            # What lies beside the file is a weight, and no number that a pattern asks for.
            held = self._held[name]
            return numpy_helper.to_array(held) if held.data_location != EXTERNAL else None
        node = self.made(name, "Constant")
        if node is None or len(node.attribute) != 1:
            return None
        item = node.attribute[0]
        if item.HasField("t"):
            return numpy_helper.to_array(item.t)
        return np.asarray(item.f, np.float32) if item.name == "value_float" else None

    def number(self, name: str) -> float | None:
        """A constant of one element."""
        found = self.constant(name)
        return float(found.reshape(-1)[0]) if found is not None and found.size == 1 else None


def attribute(node: Any, name: str, default: Any = None) -> Any:
    """An attribute's value: a number, or a list of whole numbers."""
    for item in node.attribute:
        if item.name == name:
            return list(item.ints) if item.ints else item.f if item.type == 1 else item.i
    return default


def permutes(node: Any, order: Sequence[int]) -> bool:
    """Whether a `Transpose` has this order."""
    return bool(attribute(node, "perm") == list(order))


def _shape(shape: Any) -> Shape:
    # A size without a name is like no other one.
    return tuple(
        int(size.dim_value) if size.HasField("dim_value") else (size.dim_param or f"?{id(shape)}.{index}")
        for index, size in enumerate(shape.dim)
    )

"""What stands between layers in a `.tflite` and can run on integers: sums, averages, and what only moves elements."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compress.model.core import Model
from compress.model.joins import joins
from compress.model.layers import MULTIPLYING
from compress.runtimes.base import Joined, Placed
from compress.runtimes.litert.flatbuffer import code, fused_activation, text

# Builtin operator codes of the TFLite schema.
_ADD = 0
_AVERAGES = {1: "AVERAGE_POOL_2D", 40: "MEAN"}
_RESIZE = 23
# These keep the range of a value, so that what they give is the same value of the graph; padding is with zeros. A
# resize counts where it enlarges what layers alone read: they would round what it puts between pixels anyway.
_MOVES = {22: "RESHAPE", _RESIZE: "RESIZE_BILINEAR", 34: "PAD", 39: "TRANSPOSE"}


def find_joined(model: Model, flat: Any, placed: Mapping[int, Placed]) -> tuple[Joined, ...]:
    """Finds sums and averages of a Model by what goes into them, and what the converter put around to change layouts.

    Args:
        model: What was converted.
        flat: The file, its tensors named.
        placed: Position of an operator -> its layer.
    """
    graph = flat.subgraphs[0]
    names = [text(tensor.name) for tensor in graph.tensors]
    values = _before_layers(model, flat, placed)
    pending = {(len(join.inputs), frozenset(join.inputs)): join for join in joins(model)}
    leaving = {int(index) for index in graph.outputs}
    found = []

    def add(kind: str, given: list[int], made: int, *, moves: bool = False) -> None:
        around = (given[0], made) if moves else (made,)
        ranges = tuple((names[index], values[made]) for index in around)
        found.append(
            Joined(names[made], kind, tuple(names[index] for index in given), names[made], ranges, moves=moves)
        )

    for position, operator in enumerate(graph.operators):
        kind, made = code(flat, operator), int(operator.outputs[0])
        given = [int(index) for index in operator.inputs]
        layer = placed[position].layer if position in placed and placed[position].is_layers_output else None
        if layer is not None and "conv" in layer.operator:
            values[made] = layer.output if placed[position].fused else layer.node
        elif kind == _ADD and (join := pending.get((2, frozenset(values.get(index, "") for index in given)))):
            values[made] = join.output if fused_activation(operator) else join.node
            add("ADD", given, made)
        elif kind in _AVERAGES and (join := pending.get((1, frozenset({values.get(given[0], "")})))):
            values[made] = join.node
            add(_AVERAGES[kind], given[:1], made)
        elif kind == _RESIZE and made not in values:
            continue
        elif _moves(flat, operator) and made not in leaving and (value := values.get(given[0]) or values.get(made)):
            values[made] = value
            add(_MOVES[kind], given[:1], made, moves=True)
    return tuple(found)


def _before_layers(model: Model, flat: Any, placed: Mapping[int, Placed]) -> dict[int, str]:
    """Tensors that only move on to a layer, with the value of the graph whose range they all have.

    An enlarged map has the range of what it is made of, whose peaks it may just miss.
    """
    operators = flat.subgraphs[0].operators
    maker = {int(index): operator for operator in operators for index in operator.outputs}
    smaller = {
        node.name: node.all_input_nodes[0].name
        for node in model.program.graph.nodes
        if str(node.target).startswith("aten.upsample_bilinear2d")
    }
    readers: dict[int, int] = {}
    for operator in operators:
        for index in operator.inputs:
            readers[int(index)] = readers.get(int(index), 0) + 1
    values: dict[int, str] = {}
    for position, item in placed.items():
        if item.layer.operator not in MULTIPLYING:
            continue
        tensor, value = int(operators[position].inputs[0]), item.value_in
        moved = []
        while tensor in maker and readers.get(tensor) == 1 and _moves(flat, maker[tensor]):
            if code(flat, maker[tensor]) == _RESIZE:
                value = smaller.get(value, value)
            moved.append(tensor)
            tensor = int(maker[tensor].inputs[0])
        values |= dict.fromkeys(moved, value)
    return values


def _moves(flat: Any, operator: Any) -> bool:
    """Whether an operator keeps the range of what goes in."""
    kind, tensors = code(flat, operator), flat.subgraphs[0].tensors
    if kind != _RESIZE:
        return kind in _MOVES
    given, made = tensors[int(operator.inputs[0])], tensors[int(operator.outputs[0])]
    return all(int(before) <= int(after) for before, after in zip(given.shape[1:3], made.shape[1:3], strict=True))

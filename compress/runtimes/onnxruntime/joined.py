"""Additions between convolutions, found in an `.onnx` file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from compress.model.core import Model
from compress.model.joins import joins
from compress.runtimes.base import Joined, Placed

_ACTIVATIONS = {"Relu", "Clip"}


def find_joined(model: Model, graph: Any, placed: Sequence[Placed]) -> tuple[Joined, ...]:
    """Finds the additions of a Model by what they add: outputs of layers, and of additions found before."""
    made = {node.name: node.output[0] for node in graph.node}
    tensors: dict[str, str] = {}
    for item in placed:
        tensors[item.layer.node] = made[item.node]
        if item.fused or item.layer.fused is None:
            tensors[item.layer.output] = item.output
    adding: dict[frozenset[str], Any] = {}
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        if node.op_type == "Add" and not node.domain:
            adding.setdefault(frozenset(node.input), node)
        for name in node.input:
            readers.setdefault(name, []).append(node)
    found = []
    for join in joins(model):
        if len(join.inputs) != 2:
            continue  # an average costs little here: one row of channels leaves it
        node = adding.get(frozenset(tensors.get(name, "") for name in join.inputs))
        if node is None:
            continue
        total = node.output[0]
        after = readers.get(total, [])
        clipping = after[0] if join.fused and len(after) == 1 and after[0].op_type in _ACTIVATIONS else None
        values = [(total, join.node)]
        tensors[join.node] = total
        if join.fused and clipping is not None:
            values.append((clipping.output[0], join.fused))
            tensors[join.fused] = clipping.output[0]
        found.append(
            Joined(
                node=node.name,
                kind=node.op_type,
                inputs=tuple(node.input),
                output=values[-1][0],
                values=tuple(values),
                activation=clipping.name if clipping is not None else None,
            )
        )
    return tuple(found)

"""What stands between convolutions in a `.tflite` and can run on integers: additions of branches, padding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compress.model.core import Model
from compress.model.joins import joins
from compress.model.layers import Layer
from compress.runtimes.base import Joined
from compress.runtimes.litert.flatbuffer import code, fused_activation, text

# Builtin operator codes of the TFLite schema.
_ADD, _PAD = 0, 34


def find_joined(model: Model, flat: Any, layers: Mapping[int, Layer]) -> tuple[Joined, ...]:
    """Finds additions of a Model by what they add, and the padding that the converter put before convolutions.

    Padding with zeros keeps the range of a value, so its output is the same value of the graph.

    Args:
        model: What was converted.
        flat: The file, its tensors named.
        layers: Position of an operator -> its layer.
    """
    graph = flat.subgraphs[0]
    values: dict[int, str] = {}
    pending = {frozenset(join.inputs): join for join in joins(model)}
    found = []
    for position, operator in enumerate(graph.operators):
        kind, made = code(flat, operator), int(operator.outputs[0])
        given = [int(index) for index in operator.inputs]
        layer = layers.get(position)
        if layer is not None and "conv" in layer.operator:
            values[made] = layer.output if fused_activation(operator) else layer.node
        elif kind == _ADD and (join := pending.get(frozenset(values.get(index, "") for index in given))):
            values[made] = join.output if fused_activation(operator) else join.node
            found.append(_joined(graph, "ADD", given, made, values[made]))
        elif kind == _PAD and given[0] in values:
            values[made] = values[given[0]]
            found.append(_joined(graph, "PAD", given[:1], made, values[made]))
    return tuple(found)


def _joined(graph: Any, kind: str, given: list[int], made: int, value: str) -> Joined:
    name = text(graph.tensors[made].name)
    return Joined(name, kind, tuple(text(graph.tensors[index].name) for index in given), name, ((name, value),))

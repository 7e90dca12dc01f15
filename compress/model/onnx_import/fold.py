"""Constants read, and everything that is computed from constants alone, computed once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from numpy.typing import NDArray
from torch._subclasses.fake_tensor import FakeTensorMode

from compress.model.onnx_import.batch import Batch
from compress.model.onnx_import.call import Call
from compress.model.onnx_import.graph import Block, Graph, Node, live, walk
from compress.model.onnx_import.paths import readable
from compress.model.onnx_import.table import INTERNAL, OPERATORS
from compress.model.onnx_import.tensors import TensorReader
from compress.model.onnx_import.values import Value, content, host_of, to_tensor

# A small file can ask for constants of any size; what is larger stays an operator of the graph.
MAX_FOLDED_ELEMENTS = 1 << 24
_EXPANDING = frozenset({"Expand", "Tile", "ConstantOfShape", "Range", "Resize", "Pad", "OneHot", "ConvTranspose"})
_RECURRENT = frozenset({"LSTM", "GRU"})


@dataclass
class Draft:
    """A graph on its way to a module.

    Attributes:
        nodes: In the order in which they run.
        constants: Value name to content. Names that mean one weight have one tensor.
        origins: Name of a computed constant to that of the stored one that it was made from.
        transposes: Name of a matrix to that of the stored one that it is the transpose of.
    """

    nodes: list[Node]
    constants: dict[str, torch.Tensor]
    origins: dict[str, str] = field(default_factory=dict)
    transposes: dict[str, str] = field(default_factory=dict)

    def origin(self, name: str) -> str:
        """Returns the name under which the file stores what a constant was made from."""
        return self.origins.get(name, name)

    def add(self, name: str, tensor: torch.Tensor, source: str) -> str:
        """Adds a constant that was made from another and returns its name; a second call adds nothing."""
        self.constants.setdefault(name, tensor)
        self.origins.setdefault(name, self.origin(source))
        return name


def fold(graph: Graph, reader: TensorReader) -> Draft:
    """Returns the graph with its constants read and computed.

    Raises:
        UnsafeFileError: If external data leaves the model's folder.
        ModelError: If a constant claims bytes that are not there.
    """
    needed = set(graph.outputs).union(*(_names(node) for node in walk(graph.nodes)))
    constants = {name: reader.read(name, proto) for name, proto in graph.constants.items() if name in needed}
    draft = Draft([], constants)
    for node in (_with_numbers(node, reader) for node in graph.nodes):
        if not _constant_inputs(node, draft) or not _fold_node(node, draft, graph.opset):
            draft.nodes.append(node)
    draft.nodes = list(live(draft.nodes, graph.outputs))
    return draft


def _names(node: Node) -> set[str]:
    return {*node.inputs, *(name for block in node.blocks for name in block.outputs)}


def _with_numbers(node: Node, reader: TensorReader) -> Node:
    """Returns a node whose attributes hold numbers instead of messages."""
    attributes: dict[str, Any] = {}
    for name, value in node.attributes.items():
        if isinstance(value, Block):
            value = Block(tuple(_with_numbers(inner, reader) for inner in value.nodes), value.outputs)
        elif hasattr(value, "data_type"):
            value = host_of(reader.read(f"{node.name}.{name}", value))
        attributes[name] = value
    return replace(node, attributes=attributes)


def _constant_inputs(node: Node, draft: Draft) -> bool:
    return (
        node.operator in OPERATORS
        and node.operator not in INTERNAL
        and node.operator not in _RECURRENT
        and not node.blocks
        and any(node.inputs)
        and all(not name or name in draft.constants for name in node.inputs)
    )


def _fold_node(node: Node, draft: Draft, opset: int) -> bool:
    """Computes a node; False where that fails or gives too much, which the trace will tell or do."""
    if node.operator == "Identity":
        _alias(node, draft)
        return True
    sizes = [draft.constants[name].numel() for name in node.inputs if name]
    known = {name: content(draft.constants[name]) for name in node.inputs if name}
    try:
        if node.operator in _EXPANDING or math.prod(sizes) > MAX_FOLDED_ELEMENTS:
            with FakeTensorMode(allow_non_fake_inputs=True):
                expected = _run(node, draft.constants, known, opset)
            if sum(to_size(value) for value in expected) > MAX_FOLDED_ELEMENTS:
                return False
        results = [to_tensor(value).contiguous() for value in _run(node, draft.constants, known, opset)]
    except Exception:  # whatever is wrong with the node is told with its name when the graph is read
        return False
    if len(results) < len([name for name in node.outputs if name]):
        return False
    source = next((name for name in node.inputs if name and draft.constants[name].is_floating_point()), None)
    for name, result in zip(node.outputs, results, strict=False):
        if name:
            draft.constants[name] = result
            if source is not None and result.numel() == draft.constants[source].numel():
                draft.origins[name] = draft.origin(source)
    if node.operator == "Transpose" and source is not None and draft.constants[source].dim() == 2:
        draft.transposes[node.outputs[0]] = source
    return True


def to_size(value: Value) -> int:
    """Returns how many elements a value has."""
    return value.numel() if isinstance(value, torch.Tensor) else int(value.array.size)


def _run(
    node: Node, constants: Mapping[str, torch.Tensor], known: Mapping[str, NDArray[Any]], opset: int
) -> list[Value]:
    values = [_value(constants[name]) if name else None for name in node.inputs]
    with torch.no_grad():
        result = OPERATORS[node.operator](Call(node, values, opset, known, Batch(None, 1)))
    return [item for item in (result if isinstance(result, tuple) else (result,)) if item is not None]


def _value(tensor: torch.Tensor) -> Value:
    # Integers stay numbers, so that a reshape finds its target.
    return host_of(tensor) if not tensor.is_floating_point() and tensor.numel() <= 64 else tensor


def _alias(node: Node, draft: Draft) -> None:
    """Makes a copy of a name a second name of one weight.

    Exporters also write this for vectors that happen to be equal, as all fresh biases are: those are taken apart.
    """
    source, name = node.inputs[0], node.outputs[0]
    tensor = draft.constants[source]
    tied = tensor.dim() > 1
    draft.constants[name] = tensor if tied else tensor.clone()
    if tied or not readable(name):
        draft.origins[name] = draft.origin(source)

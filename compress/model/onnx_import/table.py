"""Every operator that can be imported: name to the function that reads it into torch, and forms that are refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from compress.model.onnx_import import (
    ops_activation,
    ops_index,
    ops_layer,
    ops_logic,
    ops_math,
    ops_norm,
    ops_pool,
    ops_recurrent,
    ops_reduce,
    ops_resize,
    ops_shape,
)
from compress.model.onnx_import.graph import Graph, Node, reads, walk
from compress.model.onnx_import.ops_math import Function

OPERATORS: Mapping[str, Function] = {
    **ops_math.TABLE,
    **ops_logic.TABLE,
    **ops_activation.TABLE,
    **ops_shape.TABLE,
    **ops_index.TABLE,
    **ops_reduce.TABLE,
    **ops_layer.TABLE,
    **ops_norm.TABLE,
    **ops_pool.TABLE,
    **ops_resize.TABLE,
    **ops_recurrent.TABLE,
}
# An `If` is no function of its inputs: the module runs the branch that its condition chooses.
BRANCH = "If"
_SHAPES = frozenset({"Shape", "Size"})
# Operators of the importer's own, made by `fuse.py`, and what the file calls them.
INTERNAL: Mapping[str, str] = {"Linear": "MatMul or Gemm", ops_recurrent.LSTM: "LSTM", ops_recurrent.GRU: "GRU"}
REFUSALS: Mapping[str, Callable[[Node], str]] = {
    **ops_norm.REFUSALS,
    **ops_pool.REFUSALS,
    **ops_resize.REFUSALS,
    **ops_recurrent.REFUSALS,
}


def unsupported(graph: Graph) -> tuple[tuple[str, str], ...]:
    """Returns `(operator, node name)` of every node that cannot be imported, as far as that shows without running it.

    Nodes inside an `If` are judged when it is known which branch runs.
    """
    found = []
    computed = _from_data(graph)
    for node in graph.nodes:
        reason = refusal(node)
        if node.operator == BRANCH and computed.intersection(node.inputs[:1]):
            reason = "its condition comes from data"
        if reason is not None:
            found.append((f"{node.operator} ({reason})" if reason else node.operator, node.name))
    return tuple(found)


def _from_data(graph: Graph) -> set[str]:
    """Returns the values that depend on what is fed, not on its shape alone."""
    found = {item.name for item in graph.inputs}
    for node in graph.nodes:
        if node.operator not in _SHAPES and reads(node) & found:
            found.update(node.outputs)
    return found


def refusal(node: Node) -> str | None:
    """Returns why a node cannot be imported: empty where the operator is not known, None where nothing is wrong."""
    if node.operator == BRANCH:
        return None
    if node.operator not in OPERATORS or node.operator in INTERNAL:
        return ""
    judge = REFUSALS.get(node.operator)
    return (judge(node) or None) if judge is not None else None


def histogram(nodes: Iterable[Node]) -> dict[str, int]:
    """Returns operator to count, the most frequent first, those of subgraphs included."""
    counts: dict[str, int] = {}
    for node in walk(nodes):
        counts[node.operator] = counts.get(node.operator, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

"""Nodes in the order that ONNX requires. ONNX Runtime takes any order, and its quantizers write one; onnx does not."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from compress.runtimes.onnxruntime.inspect_tensors import graphs_of


def sort_nodes(graph: Any) -> bool:
    """Puts each node of a graph and its subgraphs behind those that it reads, in place.

    Nodes on a cycle, which no runtime can run, stay at the end in the order of the file.

    Returns:
        Whether anything was out of order.
    """
    changed = sum(sort_nodes(inner) for inner in graphs_of(graph.node)) > 0
    nodes = list(graph.node)
    makers = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    before = [{makers[name] for name in _reads(node) if name in makers} for node in nodes]
    if all(max(needed, default=-1) < index for index, needed in enumerate(before)):
        return changed
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    order = _order(before)
    del graph.node[:]
    graph.node.extend(copies[index] for index in order)
    return True


def _order(before: list[set[int]]) -> list[int]:
    readers: dict[int, list[int]] = {}
    for index, needed in enumerate(before):
        for maker in needed:
            readers.setdefault(maker, []).append(index)
    waiting = [len(needed) for needed in before]
    ready = deque(index for index, count in enumerate(waiting) if not count)
    order: list[int] = []
    while ready:
        index = ready.popleft()
        order.append(index)
        for reader in readers.get(index, ()):
            waiting[reader] -= 1
            if not waiting[reader]:
                ready.append(reader)
    placed = set(order)
    return order + [index for index in range(len(before)) if index not in placed]


def _reads(node: Any) -> Iterator[str]:
    """Yields the values that a node reads, those that its subgraphs take from outside included."""
    yield from node.input
    for graph in graphs_of([node]):
        for inner in graph.node:
            yield from _reads(inner)
        for value in graph.output:
            yield value.name

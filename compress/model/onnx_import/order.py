"""Nodes in the order in which they can run. ONNX Runtime takes any order, and its tools write some."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Sequence

from compress.errors import ModelError
from compress.model.onnx_import.graph import Node, reads
from compress.model.onnx_import.proto import EXPORT_AGAIN


def ordered(nodes: Sequence[Node], given: Collection[str], where: str) -> tuple[Node, ...]:
    """Returns nodes behind those that they read, otherwise in the order of the file (Kahn 1962).

    Args:
        nodes: Of one graph or block.
        given: Names of the values that are there before: inputs, constants, those around a block.
        where: The file.

    Raises:
        ModelError: If a value is given twice, read and never given, or the nodes form a cycle.
    """
    makers: dict[str, int] = {}
    for index, node in enumerate(nodes):
        for name in filter(None, node.outputs):
            if name in makers or name in given:
                raise ModelError(f"{where}: the value {name!r} is given twice (node {node.name!r})", EXPORT_AGAIN)
            makers[name] = index
    before = [reads(node) for node in nodes]
    for node, names in zip(nodes, before, strict=True):
        for name in sorted(names):
            if name not in makers and name not in given:
                raise ModelError(f"{where}: the node {node.name!r} reads {name!r}, which nothing gives", EXPORT_AGAIN)
    order = _order([{makers[name] for name in names if name in makers} for names in before])
    if len(order) < len(nodes):
        placed = set(order)
        stuck = [node.name for index, node in enumerate(nodes) if index not in placed]
        raise ModelError(f"{where}: its graph has a cycle; among its nodes: {', '.join(stuck[:5])}", EXPORT_AGAIN)
    return tuple(nodes[index] for index in order)


def _order(before: list[set[int]]) -> list[int]:
    readers: dict[int, list[int]] = {}
    for index, needed in enumerate(before):
        for maker in needed:
            readers.setdefault(maker, []).append(index)
    waiting = [len(needed) for needed in before]
    ready = [index for index, count in enumerate(waiting) if not count]
    order: list[int] = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for reader in readers.get(index, ()):
            waiting[reader] -= 1
            if not waiting[reader]:
                heapq.heappush(ready, reader)
    return order

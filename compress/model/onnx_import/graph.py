"""The graph as the importer sees it: one flat space of value names, nodes in the order in which they run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Block:
    """A subgraph: one branch of an `If`. It reads the values around it by their names."""

    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Node:
    """One call of an operator.

    Attributes:
        operator: `Conv`; with its domain where that is not the standard one.
        name: Unique in the model.
        inputs: Names of values; empty where an optional input is left out.
        outputs: Likewise.
        attributes: Numbers, texts, tuples of them, TensorProtos, Blocks.
        scope: Path of the module that made the call, where the exporter noted it.
    """

    operator: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    scope: str = ""

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The subgraphs inside."""
        return tuple(value for value in self.attributes.values() if isinstance(value, Block))


@dataclass(frozen=True)
class Input:
    """A declared input. A dimension is a number, a name, or empty where it has neither; None without a shape."""

    name: str
    data_type: int
    shape: tuple[int | str, ...] | None


@dataclass(frozen=True)
class Graph:
    """A model without functions and without `Constant` nodes.

    1. Every value is given once, by an input, a constant or a node, and no name means two values.
    2. A node stands behind those that it reads.

    Attributes:
        opset: Version of the standard operators.
        inputs: What must be fed; constants that are listed as inputs too are not here.
        outputs: Names of values.
        constants: Name to TensorProto.
        nodes: In the order in which they run.
    """

    opset: int
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, Any]
    nodes: tuple[Node, ...]


def walk(nodes: Iterable[Node]) -> Iterator[Node]:
    """Yields nodes and those of the blocks inside them."""
    for node in nodes:
        yield node
        for block in node.blocks:
            yield from walk(block.nodes)


def reads(node: Node) -> set[str]:
    """Returns the names of all values that a node reads, through its blocks too."""
    found = {name for name in node.inputs if name}
    for block in node.blocks:
        given = {name for inner in block.nodes for name in inner.outputs}
        found |= {name for inner in block.nodes for name in reads(inner)} - given
        found |= set(block.outputs) - given
    return found


def live(nodes: Iterable[Node], outputs: Iterable[str]) -> tuple[Node, ...]:
    """Returns the nodes that the outputs need, in their order."""
    needed = set(outputs)
    kept: list[Node] = []
    for node in reversed(list(nodes)):
        if needed.intersection(node.outputs):
            kept.append(node)
            needed |= reads(node)
    return tuple(reversed(kept))

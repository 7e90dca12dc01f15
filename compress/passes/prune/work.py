"""What the calls of a graph work on after a cut, told from its dimensions without making it."""

from __future__ import annotations

from collections.abc import Callable

from torch.fx import Node

from compress.model.cost import macs_of
from compress.passes.prune.axes import Cut
from compress.passes.prune.groups import Analysis
from compress.passes.prune.trace import BATCH

Sizes = Callable[[object], tuple[int, ...]]


def sizes_under(analysis: Analysis, cut: Cut) -> Sizes:
    """Returns what tells the sizes of a value of the graph for one row after a cut; `()` for what is no tensor.

    Args:
        analysis: The walked graph.
        cut: What stays; `Cut()` for the graph as it is.
    """

    def sizes(value: object) -> tuple[int, ...]:
        found = analysis.found.shapes.get(value) if isinstance(value, Node) else None
        given = (cut.size(dim) for dim in found) if isinstance(found, tuple) else ()
        # One row: whatever is a multiple of the batch is so many times as small.
        return tuple(size // BATCH if size % BATCH == 0 else size for size in given)

    return sizes


def macs(analysis: Analysis, cut: Cut) -> int:
    """Returns the multiply-adds for one row, counted as `compress.model.cost` counts them.

    Args:
        analysis: The walked graph.
        cut: What stays; `Cut()` for the graph as it is.
    """
    sizes = sizes_under(analysis, cut)
    return sum(macs_of(node, sizes) for node in analysis.module.graph.nodes if node.op == "call_function")

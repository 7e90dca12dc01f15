"""The multiply-adds of a graph after a cut, told from its dimensions without making it."""

from __future__ import annotations

import math

from torch.fx import Node

from compress.passes.prune.axes import Cut, Dim
from compress.passes.prune.groups import Analysis
from compress.passes.prune.trace import BATCH, Shape, Trace


def macs(analysis: Analysis, cut: Cut) -> int:
    """Returns the multiply-adds for one row, counted as `compress.model.cost` counts them.

    Args:
        analysis: The walked graph.
        cut: What stays; `Cut()` for the graph as it is.
    """
    return sum(_of(node, analysis.found, cut) for node in analysis.module.graph.nodes if node.op == "call_function")


def _of(node: Node, found: Trace, cut: Cut) -> int:
    name = str(node.target).removeprefix("aten.").partition(".")[0]
    result = found.shapes.get(node)
    if not isinstance(result, tuple):
        return 0
    shapes = [found.shapes.get(item) if isinstance(item, Node) else None for item in node.args]
    given: list[Shape] = [item if isinstance(item, tuple) else () for item in shapes]
    if name == "linear":
        count = _size(result, cut) * cut.size(given[1][-1])
    elif name in ("conv1d", "conv2d", "conv3d"):
        count = _size(result, cut) * _size(given[1][1:], cut)
    elif name.startswith("conv_transpose"):
        count = _size(given[0], cut) * _size(given[1][1:], cut)
    elif name in ("matmul", "mm", "bmm"):
        count = _size(result, cut) * cut.size(given[0][-1])
    elif name in ("addmm", "baddbmm"):
        count = _size(result, cut) * cut.size(given[1][-1])
    elif name == "scaled_dot_product_attention":
        query, key, value = given[:3]
        count = _size(query[:-1], cut) * cut.size(key[-2]) * (cut.size(query[-1]) + cut.size(value[-1]))
    elif name == "einsum":
        count = _einsum(node, found, cut)
    else:
        return 0
    # Every row costs the same; what does not depend on the batch at all is counted once.
    return count // BATCH if count % BATCH == 0 else count


def _einsum(node: Node, found: Trace, cut: Cut) -> int:
    """The size of the space of all letters; of one tensor alone nothing is multiplied."""
    shapes = [found.shapes.get(item) for item in node.all_input_nodes]
    letters: dict[str, int] = {}
    for term, shape in zip(str(node.args[0]).replace(" ", "").partition("->")[0].split(","), shapes, strict=True):
        for letter, dim in zip(term, shape or (), strict=False):
            letters[letter] = max(cut.size(dim), letters.get(letter, 1))
    return math.prod(letters.values()) if len(shapes) > 1 else 0


def _size(dims: tuple[Dim, ...], cut: Cut) -> int:
    return math.prod(cut.size(dim) for dim in dims)

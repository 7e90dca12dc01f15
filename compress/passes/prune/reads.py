"""Where the positions of a group are read for the last time, and a run of the graph that looks at them there.

A call reads a group where the group's axis goes in and does not come out: a convolution or linear layer sums over its
channels, attention over what is inside a head. Zeroing what these calls read is what a cut does to the function (but
for a normalisation across the positions), so a factor of 1 on every position there, a gate, stands for the cut.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.fx import GraphModule, Interpreter, Node
from torch.fx.node import Argument, map_arg

from compress.passes.prune.axes import Axis, Dim, Term, leaves, terms
from compress.passes.prune.groups import Analysis, Group
from compress.passes.prune.trace import BATCH, Result

Indices = NDArray[np.int64]
# Gives what a call reads instead of a value: the value with something done to it.
Look = Callable[["Read", torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Read:
    """A call that takes a group's positions in and lets none of them out.

    Attributes:
        group: Name of the group.
        value: What the call reads.
        places: Its dimensions that hold positions, and what they are made of.
        axis: The group's axis.
    """

    group: str
    value: Node
    places: tuple[tuple[int, Dim], ...]
    axis: Axis

    def index(self, dim: Dim, rows: int) -> Indices:
        """Returns which position each element along a dimension belongs to, -1 for none.

        Args:
            dim: One of `places`.
            rows: The batch.
        """
        return np.concatenate([_index(term, self.axis, rows) for term in terms(dim)])


def find_reads(analysis: Analysis, groups: Sequence[Group]) -> dict[Node, list[Read]]:
    """Returns the calls that read some of the groups for the last time, with what they read.

    Of a call that reads a group on both sides, as a product of queries and keys does, the first side counts.
    """
    wanted = {group.axis: group.name for group in groups}
    held: set[Node] = set()
    found: dict[Node, list[Read]] = {}
    for node in analysis.module.graph.nodes:
        if node.op == "get_attr" or (node.op == "call_function" and held.issuperset(node.all_input_nodes)):
            # What is computed from weights alone is no activation.
            held.add(node)
        if node.op != "call_function" or node in held or not _is_tensors(node.meta.get("val")):
            continue
        left = set(_axes(analysis.found.shapes.get(node)))
        seen: set[Axis] = set()
        for value in node.all_input_nodes:
            shape = analysis.found.shapes.get(value)
            if value in held or not isinstance(shape, tuple):
                continue
            for axis in dict.fromkeys(_axes(shape)):
                if axis in wanted and axis not in left and axis not in seen:
                    seen.add(axis)
                    places = tuple((place, dim) for place, dim in enumerate(shape) if axis in set(leaves(dim)))
                    found.setdefault(node, []).append(Read(wanted[axis], value, places, axis))
    return found


class Looking(Interpreter):
    """Runs a graph; where it reads a group for the last time, it reads what `look` makes of the value instead.

    Weights are constants: no gradient is kept for them.
    """

    def __init__(self, module: GraphModule, reads: Mapping[Node, Sequence[Read]], look: Look) -> None:
        super().__init__(module)
        self._reads = reads
        self._look = look

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Returns a weight as a constant."""
        value = super().get_attr(target, args, kwargs)
        return value.detach() if isinstance(value, torch.Tensor) else value

    def fetch_args_kwargs_from_env(self, n: Node) -> Any:
        """Returns what a call reads: what `look` made of it, where the call reads a group for the last time."""
        if n not in self._reads:
            return super().fetch_args_kwargs_from_env(n)
        changed: dict[Node, Any] = {}
        for read in self._reads[n]:
            changed[read.value] = self._look(read, changed.get(read.value, self.env[read.value]))

        def fetch(value: Node) -> Any:
            return changed[value] if value in changed else self.env[value]

        return self._fetched(n.args, fetch), self._fetched(n.kwargs, fetch)

    @staticmethod
    def _fetched(arguments: Any, fetch: Callable[[Node], Argument]) -> Any:
        return map_arg(arguments, fetch)


def _axes(shape: Result) -> list[Axis]:
    """The undivided axes of a shape, or of several."""
    if isinstance(shape, list):
        return [axis for item in shape for axis in _axes(item)]
    return [axis for dim in shape or () for axis in leaves(dim)]


def _is_tensors(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(isinstance(item, torch.Tensor) for item in value)
    return isinstance(value, torch.Tensor)


def _index(term: Term, axis: Axis, rows: int) -> Indices:
    number = np.full(1, -1, np.int64)
    for factor in term:
        root = factor.root
        if root is axis:
            inner = np.arange(root.size, dtype=np.int64)
        elif root.parts is not None:
            inner = np.concatenate([_index(part, axis, rows) for part in terms(root.parts)])
        else:
            # The batch stands in the graph as a number of its own; here it is what is really fed.
            inner = np.full(root.size // BATCH * rows if root.size % BATCH == 0 else root.size, -1, np.int64)
        number = np.maximum(number[:, None], inner[None, :]).ravel()
    return number

"""What a graph costs with its groups at some widths: a sum over parts, each of which depends on few groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from compress.model.cost import macs_of
from compress.passes.prune.axes import Axis, Cut, leaves
from compress.passes.prune.groups import Analysis, Group
from compress.passes.prune.trace import Result
from compress.passes.prune.work import macs, sizes_under

# Group -> how many of its positions stay.
Widths = Mapping[str, int]


@dataclass(frozen=True)
class Priced:
    """A part of a graph, and what it costs.

    Attributes:
        groups: The groups whose widths it depends on.
        price: Gives its cost for the widths of these groups, in this order.
    """

    groups: tuple[str, ...]
    price: Callable[[tuple[int, ...]], float]


@dataclass
class Costs:
    """The cost of a whole graph; prices are asked for once.

    Attributes:
        parts: What depends on widths.
        fixed: The cost of the rest.
    """

    parts: Sequence[Priced]
    fixed: float = 0.0
    _of_group: dict[str, list[int]] = field(init=False, repr=False)
    _known: dict[tuple[int, tuple[int, ...]], float] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._known = {}
        self._of_group = {}
        for number, part in enumerate(self.parts):
            for name in part.groups:
                self._of_group.setdefault(name, []).append(number)

    def total(self, widths: Widths) -> float:
        """Returns the cost of everything."""
        return self.fixed + sum(self._price(number, widths) for number in range(len(self.parts)))

    def saved(self, name: str, width: int, widths: Widths) -> float:
        """Returns what is saved where one group gets another width and the others keep theirs."""
        after = {**widths, name: width}
        numbers = self._of_group.get(name, ())
        return sum(self._price(number, widths) - self._price(number, after) for number in numbers)

    def neighbours(self, name: str) -> set[str]:
        """Returns the groups whose savings depend on the width of a group, itself included."""
        return {name, *(other for number in self._of_group.get(name, ()) for other in self.parts[number].groups)}

    def _price(self, number: int, widths: Widths) -> float:
        part = self.parts[number]
        # A group that earlier steps cut to one position is no group any more.
        key = (number, tuple(widths.get(name, 1) for name in part.groups))
        if key not in self._known:
            self._known[key] = part.price(key[1])
        return self._known[key]


def cut_to(groups: Mapping[str, Group], widths: Widths) -> Cut:
    """Returns the cut that leaves the first positions of some groups: for what depends on widths alone."""
    return Cut({groups[name].axis: np.arange(width, dtype=np.int64) for name, width in widths.items()})


def multiply_adds(analysis: Analysis, groups: Sequence[Group]) -> Costs:
    """Returns the multiply-adds for one row, as a cost by the widths of some groups."""
    known = {group.name: group for group in groups}
    by_axis = {group.axis: group.name for group in groups}
    parts = []
    whole = sizes_under(analysis, Cut())
    for node in analysis.module.graph.nodes:
        if node.op != "call_function" or not macs_of(node, whole):
            continue
        values = [node, *node.all_input_nodes]
        names = groups_in([analysis.found.shapes.get(value) for value in values], by_axis)

        def price(widths: tuple[int, ...], node: object = node, names: tuple[str, ...] = names) -> float:
            return macs_of(node, sizes_under(analysis, cut_to(known, dict(zip(names, widths, strict=True)))))  # type: ignore[arg-type]

        if names:
            parts.append(Priced(names, price))
    full = {group.name: group.size for group in groups}
    costs = Costs(parts)
    costs.fixed = macs(analysis, Cut()) - costs.total(full)
    return costs


def groups_in(shapes: Sequence[Result], by_axis: Mapping[Axis, str]) -> tuple[str, ...]:
    """Returns the names of the groups that some shapes are made of, in the order in which they are met."""
    found: dict[str, None] = {}
    for shape in shapes:
        if isinstance(shape, list):
            found |= dict.fromkeys(groups_in(shape, by_axis))
        for dim in shape if isinstance(shape, tuple) else ():
            found |= {by_axis[axis]: None for axis in leaves(dim) if axis in by_axis}
    return tuple(found)

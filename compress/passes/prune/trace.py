"""What every dimension of a graph's tensors is made of: one walk over the graph, operator by operator.

The rules of the operators are in `rules_*.py`. An operator without a rule freezes what it reads, with its name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.fx import GraphModule, Node

from compress.model.edit import get_parameter
from compress.passes.prune.axes import Cut, Dim, freeze, fresh, size

# Stands for the batch while sizes are compared: a prime that no layer's width shares a factor with.
BATCH = 1_000_003

Shape = tuple[Dim, ...]
# Of what an operator gives: one tensor's shape, a list of shapes for several, None for what is no tensor.
Result = Shape | list[Any] | None
# Gives an operator's arguments anew for a cut.
Rewrite = Callable[[Cut], Any]


@dataclass
class Trace:
    """What the walk found.

    Attributes:
        shapes: Node -> what its tensor's dimensions are made of; a list of such for several tensors.
        stored: Full name of a parameter or buffer -> what its dimensions are made of. Tied ones share the shape.
        rewrites: Node, place of the argument (position or name) -> its value after a cut.
        unknown: Operators without a rule: `(node name, operator)`.
    """

    shapes: dict[Node, Result] = field(default_factory=dict)
    stored: dict[str, Shape] = field(default_factory=dict)
    rewrites: dict[tuple[Node, int | str], Rewrite] = field(default_factory=dict)
    unknown: list[tuple[str, str]] = field(default_factory=list)


class Call:
    """One call of an operator, as its rule sees it: arguments by name, shapes of what it reads, and what to note."""

    def __init__(self, node: Node, trace: Trace) -> None:
        self.node = node
        self._trace = trace
        schema = getattr(node.target, "_schema", None)
        self._names = [argument.name for argument in schema.arguments] if schema is not None else []
        self._given: dict[str, Any] = {**dict(zip(self._names, node.args, strict=False)), **node.kwargs}

    @property
    def operator(self) -> str:
        """The operator without namespace and overload: `conv2d`, `view`."""
        return str(self.node.target).removeprefix("aten.").partition(".")[0]

    def get(self, name: str, default: Any = None) -> Any:
        """Returns an argument as it stands in the graph."""
        value = self._given.get(name, default)
        return default if value is None else value

    def shape(self, name: str) -> Shape | None:
        """Returns what a tensor argument's dimensions are made of; None where none is given, `()` for a number."""
        value = self._given.get(name)
        return self.shape_of(value) if isinstance(value, Node) else None

    def shape_of(self, value: Node) -> Shape:
        """Returns what the dimensions of a value are made of."""
        found = self._trace.shapes[value]
        return found if isinstance(found, tuple) else ()

    def shapes_of(self, value: Node) -> list[Any]:
        """Returns the shapes of a value that holds several tensors."""
        found = self._trace.shapes[value]
        return found if isinstance(found, list) else []

    def tensors(self, name: str) -> list[Shape]:
        """Returns the shapes of a list of tensors."""
        return [self.shape_of(value) for value in self.get(name, ()) if isinstance(value, Node)]

    def sizes(self, index: int | None = None) -> tuple[int, ...]:
        """Returns the sizes of the result, or of one of its tensors, with the batch as `BATCH`."""
        value = self.node.meta.get("val")
        return sizes_of(value if index is None or value is None else value[index])

    def rewrite(self, name: str, value: Rewrite) -> None:
        """Notes what an argument is after a cut."""
        place = self._names.index(name) if name in self._names else name
        positional = isinstance(place, int) and place < len(self.node.args)
        self._trace.rewrites[self.node, place if positional else name] = value

    def freeze_inputs(self, reason: str) -> None:
        """Forbids to cut anything of what the call reads."""
        for value in self.node.all_input_nodes:
            freeze_shape(self._trace.shapes.get(value, ()), reason)

    def at(self, reason: str) -> str:
        """Returns a reason with the name of the call."""
        return f"{reason} ({self.node.name})"


Rule = Callable[[Call], Result]


def trace(module: GraphModule, rules: Mapping[str, Rule]) -> Trace:
    """Walks a graph in eval form, its weights inside as `get_attr` nodes.

    Args:
        module: As `compress.model.edit.edited` hands it out; `meta["val"]` says the shapes.
        rules: Operator -> rule.
    """
    found = Trace()
    storages: dict[tuple[int, int, tuple[int, ...]], Shape] = {}
    for node in module.graph.nodes:
        if node.op == "placeholder":
            found.shapes[node] = frozen_shape(sizes_of(node.meta.get("val")), "an input of the model")
        elif node.op == "get_attr":
            tensor = get_parameter(module, str(node.target))
            key = (tensor.untyped_storage().data_ptr(), int(tensor.storage_offset()), tuple(tensor.shape))
            if not tensor.numel():
                key = (id(node), 0, tuple(tensor.shape))
            shape = storages.setdefault(key, tuple(fresh(int(length)) for length in tensor.shape))
            found.shapes[node] = found.stored[str(node.target)] = shape
        elif node.op == "call_function":
            found.shapes[node] = _called(node, found, rules)
        elif node.op == "output":
            for value in node.all_input_nodes:
                freeze_shape(found.shapes.get(value, ()), "an output of the model")
    return found


def _called(node: Node, found: Trace, rules: Mapping[str, Rule]) -> Result:
    call = Call(node, found)
    rule = rules.get(call.operator)
    pointwise = torch.Tag.pointwise in getattr(node.target, "tags", ())
    if rule is None and pointwise:
        rule = rules["pointwise"]
    if rule is None:
        found.unknown.append((node.name, call.operator))
        return refuse(call, f"the operator {call.operator!r} has no rule")
    try:
        return rule(call)
    except (ValueError, IndexError):
        # Shapes other than those that the rule is written for: nothing is known of this call then.
        found.unknown.append((node.name, call.operator))
        return refuse(call, f"the operator {call.operator!r} has no rule for these shapes")


def refuse(call: Call, reason: str) -> Result:
    """Freezes all that a call reads and returns a result that may not be cut either."""
    call.freeze_inputs(call.at(reason))
    return unknown_result(call.node.meta.get("val"), call.at(reason))


def unknown_result(value: Any, reason: str) -> Result:
    """Returns the shape of a result of which nothing is known; None for what is no tensor."""
    if isinstance(value, torch.Tensor):
        return frozen_shape(sizes_of(value), reason)
    if isinstance(value, list | tuple):
        return [unknown_result(item, reason) for item in value]
    return None


def frozen_shape(sizes: Sequence[int], reason: str) -> Shape:
    """Returns dimensions that may not be cut."""
    return tuple(fresh(length, reason) for length in sizes)


def freeze_shape(shape: Result, reason: str) -> None:
    """Freezes a shape, or all shapes of a list of them."""
    if isinstance(shape, list):
        for item in shape:
            freeze_shape(item, reason)
    for dim in shape if isinstance(shape, tuple) else ():
        freeze(dim, reason)


def sizes_of(value: Any) -> tuple[int, ...]:
    """Returns a traced tensor's sizes with the batch as `BATCH`; `()` for what is no tensor."""
    if not isinstance(value, torch.Tensor):
        return ()
    return tuple(plain_size(length) for length in value.shape)


def plain_size(length: Any) -> int:
    """Returns a size as a number, the batch being `BATCH`."""
    if isinstance(length, torch.SymInt):
        expression = length.node.expr
        return int(expression.subs(dict.fromkeys(expression.free_symbols, BATCH)))
    return int(length)


def dims_size(dims: Sequence[Dim]) -> int:
    """Returns the number of elements of some dimensions together."""
    return math.prod(size(dim) for dim in dims)


def placed(place: int, shape: Sequence[Any]) -> int:
    """Returns a dimension's number, counted from the front."""
    return int(place) + len(shape) if place < 0 else int(place)


def listed(value: Any) -> list[int]:
    """Returns one or several numbers as a list."""
    return list(value) if isinstance(value, list | tuple | range) else [value]

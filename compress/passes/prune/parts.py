"""A graph taken apart into small graphs that can be lowered and timed by themselves, at any width of their groups.

A part is a call with what directly follows it element by element: a runtime fuses that into one kernel (convolution,
batch normalisation, activation, the addition of a residual). Parts carry drawn weights and names of their own, so that
two of one kind and size are one Model.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg

from compress.model.core import MAX_BATCH, Model, Signature, TensorInfo, example_inputs
from compress.model.edit import get_parameter
from compress.passes.prune.axes import Cut
from compress.passes.prune.costs import groups_in
from compress.passes.prune.groups import Analysis, Group
from compress.passes.prune.trace import BATCH

# What moves no data, or only names it anew.
_FREE = {
    *("view", "reshape", "_unsafe_view", "flatten", "unflatten", "permute", "transpose", "t", "movedim", "squeeze"),
    *("unsqueeze", "expand", "split", "split_with_sizes", "chunk", "slice", "select", "narrow", "unbind", "numpy_T"),
    *("dropout", "feature_dropout", "alpha_dropout", "contiguous", "clone", "detach", "alias", "to", "_to_copy"),
    *("type_as", "lift_fresh_copy", "detach_", "sym_size"),
}


@dataclass(frozen=True)
class Part:
    """Some calls in a row, the last of which gives the only value that is read elsewhere.

    Attributes:
        nodes: The calls.
        inputs: What they read of the rest of the graph.
        read_groups: The groups whose widths the inputs have.
        made_groups: The groups whose widths the result has.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[Node, ...]
    read_groups: tuple[str, ...]
    made_groups: tuple[str, ...]

    @property
    def groups(self) -> tuple[str, ...]:
        """Every group whose width the part depends on."""
        return tuple(dict.fromkeys((*self.read_groups, *self.made_groups)))


def find_parts(analysis: Analysis, groups: Sequence[Group]) -> list[Part]:
    """Returns the parts that depend on the width of some group, in the order of the graph.

    Calls that compute nothing (views) and those that need the size of the batch as a number are no parts.
    """
    by_axis = {group.axis: group.name for group in groups}
    taken: set[Node] = set()
    found = []
    for node in analysis.module.graph.nodes:
        if node.op != "call_function" or node in taken or _name(node) in _FREE or not _can_stand_alone(node):
            continue
        nodes = [node]
        while (after := _fused(nodes[-1])) is not None and after not in taken:
            nodes.append(after)
        taken.update(nodes)
        inputs = dict.fromkeys(
            value for each in nodes for value in each.all_input_nodes if value.op != "get_attr" and value not in nodes
        )
        part = Part(
            tuple(nodes),
            tuple(inputs),
            groups_in([analysis.found.shapes.get(value) for value in inputs], by_axis),
            groups_in([analysis.found.shapes.get(nodes[-1])], by_axis),
        )
        if part.groups and inputs:
            found.append(part)
    return found


def _fused(node: Node) -> Node | None:
    """The only reader of a value, where a runtime makes one kernel of both."""
    readers = list(node.users)
    if len(readers) != 1 or readers[0].op != "call_function" or not _can_stand_alone(readers[0]):
        return None
    pointwise = torch.Tag.pointwise in getattr(readers[0].target, "tags", ())
    return (
        readers[0] if pointwise or _name(readers[0]) in ("batch_norm", "dropout", "hardswish", "hardswish_") else None
    )


def _can_stand_alone(node: Node) -> bool:
    """Whether a call gives one tensor of numbers and reads nothing but tensors."""
    values = [
        node.meta.get("val"),
        *(value.meta.get("val") for value in node.all_input_nodes if value.op != "get_attr"),
    ]
    return node.target is not operator.getitem and all(isinstance(value, torch.Tensor) for value in values)


def _name(node: Node) -> str:
    return str(node.target).removeprefix("aten.").partition(".")[0]


def part_model(analysis: Analysis, part: Part, cut: Cut, made_before: dict[str, Model] | None = None) -> Model:
    """Returns a part as a Model, its dimensions those that a cut leaves.

    Args:
        analysis: Of the graph that the part is from.
        part: Which part.
        cut: What stays of the groups.
        made_before: Parts by what they compute: one that is there is not exported again, a new one is added.
    """
    graph, root = Graph(), torch.nn.Module()
    made: dict[Node, Node] = {}
    infos = []
    for number, value in enumerate(part.inputs):
        info, turned = _input(analysis, value, cut, number)
        if info is None:
            made[value] = _held(graph, root, f"c{number}", _drawn(_sizes(analysis, value, cut), _dtype(value)))
            continue
        infos.append(info)
        made[value] = turned(graph, graph.placeholder(info.name))
    for node in part.nodes:
        for value in node.all_input_nodes:
            if value not in made:
                made[value] = _held(graph, root, f"w{len(made)}", _weight(analysis, value, cut))
        arguments, keywords = list(node.args), dict(node.kwargs)
        for (other, place), anew in analysis.found.rewrites.items():
            if other is node and isinstance(place, int):
                arguments[place] = anew(cut)
            elif other is node:
                keywords[str(place)] = anew(cut)
        given: Any = map_arg((tuple(arguments), keywords), lambda value: made[value])
        made[node] = graph.call_function(_out_of_place(node.target), *given)
    graph.output(made[part.nodes[-1]])
    held = [(name, tuple(value.shape), str(value.dtype)) for name, value in root.named_buffers()]
    key, known = repr((str(graph), infos, held)), {} if made_before is None else made_before
    if key not in known:
        known[key] = _exported(analysis, part, cut, GraphModule(root, graph).eval(), tuple(infos))
    return known[key]


def _exported(analysis: Analysis, part: Part, cut: Cut, module: GraphModule, infos: tuple[TensorInfo, ...]) -> Model:
    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    program = torch.export.export(
        module,
        example_inputs(infos, 2),
        dynamic_shapes=({0: batch},) * len(infos),
        strict=False,
    )
    result = part.nodes[-1]
    outputs = (TensorInfo("result", _sizes(analysis, result, cut)[1:], str(_dtype(result)).removeprefix("torch.")),)
    return Model(program, Signature(infos, outputs), ("part",))


def elements(analysis: Analysis, part: Part, cut: Cut) -> tuple[int, int]:
    """Returns how many numbers a part reads and writes for one row, weights included."""
    weights = {value for node in part.nodes for value in node.all_input_nodes if value.op == "get_attr"}
    read = sum(_count(_sizes(analysis, value, cut)) for value in (*part.inputs, *weights))
    return read, _count(_sizes(analysis, part.nodes[-1], cut))


def _input(
    analysis: Analysis, value: Node, cut: Cut, number: int
) -> tuple[TensorInfo | None, Callable[[Graph, Node], Node]]:
    """What a Model takes in a value's place, the batch first, and the calls that make the value of it."""
    shape = analysis.found.shapes.get(value)
    sizes = [cut.size(dim) for dim in shape] if isinstance(shape, tuple) else []
    at = next((place for place, size in enumerate(sizes) if size % BATCH == 0), None)
    if at is None:
        return None, lambda graph, node: node
    inner = sizes[at] // BATCH
    rest = [*sizes[:at], *([inner] if inner > 1 else []), *sizes[at + 1 :]]
    info = TensorInfo(f"x{number}", tuple(rest), str(_dtype(value)).removeprefix("torch."))

    def turned(graph: Graph, node: Node) -> Node:
        if at:
            node = graph.call_function(torch.ops.aten.movedim.int, (node, 0, at))
        if inner > 1:
            node = graph.call_function(torch.ops.aten.flatten.using_ints, (node, at, at + 1))
        return node

    return info, turned


def _out_of_place(target: Any) -> Any:
    """The operator that leaves its input as it is: an input of a Model may not be written over."""
    name, _, overload = str(target).removeprefix("aten.").partition(".")
    packet = getattr(torch.ops.aten, name.removesuffix("_"), None) if name.endswith("_") else None
    return getattr(packet, overload, target) if packet is not None else target


def _held(graph: Graph, root: torch.nn.Module, name: str, value: torch.Tensor) -> Node:
    root.register_buffer(name, value)
    return graph.get_attr(name)


def _weight(analysis: Analysis, value: Node, cut: Cut) -> torch.Tensor:
    tensor = get_parameter(analysis.module, str(value.target)).detach()
    if tensor.is_floating_point():
        return _drawn(_sizes(analysis, value, cut), tensor.dtype)
    # Numbers of positions and masks mean something: they are cut as they are.
    for place, dim in enumerate(analysis.found.stored[str(value.target)]):
        if cut.size(dim) != tensor.shape[place]:
            tensor = tensor.index_select(place, torch.from_numpy(cut.positions(dim)))
    return tensor


def _drawn(sizes: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Numbers that depend on the sizes alone; those of vectors are positive, as a variance must be."""
    generator = torch.Generator().manual_seed(0)
    if not dtype.is_floating_point:
        return torch.ones(sizes, dtype=dtype)
    if len(sizes) < 2:
        return (torch.rand(sizes, generator=generator) + 0.5).to(dtype)
    drawn: torch.Tensor = torch.randn(sizes, generator=generator) / _count(sizes[1:]) ** 0.5
    return drawn.to(dtype)


def _sizes(analysis: Analysis, value: Node, cut: Cut) -> tuple[int, ...]:
    shape = analysis.found.shapes.get(value)
    given = [cut.size(dim) for dim in shape] if isinstance(shape, tuple) else []
    return tuple(size // BATCH if size % BATCH == 0 else size for size in given)


def _dtype(value: Node) -> torch.dtype:
    dtype: torch.dtype = value.meta["val"].dtype
    return dtype


def _count(sizes: Sequence[int]) -> int:
    count = 1
    for size in sizes:
        count *= size
    return count

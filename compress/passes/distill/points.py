"""Where two graphs can be compared inside: hidden states, attention, feature maps."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.fx import Node

from compress.errors import RecipeError, did_you_mean
from compress.model.core import Model
from compress.model.cost import shape_for_one
from compress.model.layers import layers

_ADDS = (torch.ops.aten.add.Tensor, torch.ops.aten.add_.Tensor)
_NORM = torch.ops.aten.layer_norm.default
_ATTENTION = torch.ops.aten.scaled_dot_product_attention.default
_LAYOUT = ("aten.view.", "aten.reshape.", "aten.permute.", "aten.transpose.", "aten.unflatten.", "aten.expand.")
_ACTIVATIONS = ("aten.relu.", "aten.relu_.", "aten.gelu.", "aten.silu.", "aten.silu_.", "aten.tanh.", "aten.elu.")


@dataclass(frozen=True)
class Point:
    """A value of a graph.

    Attributes:
        node: Its name.
        where: The layer behind which it stands, for people.
        shape: Without the batch: `[width]`, `[tokens, width]` or `[channels, height, width]`.
    """

    node: str
    where: str
    shape: tuple[int, ...]

    @property
    def width(self) -> int:
        """Number of channels."""
        return self.shape[0] if len(self.shape) == 3 else self.shape[-1]

    @property
    def extent(self) -> tuple[int, ...]:
        """What must be equal on both sides: number of tokens, or height and width."""
        return self.shape[1:] if len(self.shape) == 3 else self.shape[:-1]


@dataclass(frozen=True)
class Attention:
    """One attention: names of the values `[batch, heads, tokens, width]` that go in, and of its mask."""

    where: str
    query: str
    key: str
    value: str
    mask: str | None
    heads: int
    tokens: int
    width: int


def hidden_states(model: Model) -> tuple[Point, ...]:
    """Returns what leaves each block, in order: the residual sum behind each attention and before the next.

    Where only a layer normalisation reads a sum (post-norm blocks), the normalised value counts. Without attention
    every residual sum counts, and without those every activation of `[batch, width]`.
    """
    graph = _Graph(model)
    sums = [node for node in graph.calls if graph.is_residual(node)]
    starts = [graph.place[node] for node in graph.calls if node.target is _ATTENTION]
    if starts:
        ends = [*starts[1:], len(graph.place)]
        blocks = [
            [node for node in sums if start < graph.place[node] < end] for start, end in zip(starts, ends, strict=True)
        ]
        found = [block[-1] for block in blocks if block]
    else:
        found = sums or [
            node
            for node in graph.calls
            if str(node.target).startswith(_ACTIVATIONS) and len(graph.shape(node)) == 1 and graph.is_learned(node)
        ]
    return tuple(graph.point(_normed(node)) for node in found)


def attentions(model: Model) -> tuple[Attention, ...]:
    """Returns every attention in order."""
    graph = _Graph(model)
    found = []
    for node in graph.calls:
        if node.target is not _ATTENTION:
            continue
        query, key, value = node.args[:3]
        mask = node.args[3] if len(node.args) > 3 else node.kwargs.get("attn_mask")
        if not (isinstance(query, Node) and isinstance(key, Node) and isinstance(value, Node)):
            continue
        shape = graph.shape(query)
        if len(shape) != 3 or graph.shape(key) != shape or graph.shape(value) != shape:
            continue
        has_batch = isinstance(mask, Node) and graph.has_batch(mask)
        found.append(
            Attention(
                where=graph.where(node),
                query=query.name,
                key=key.name,
                value=value.name,
                mask=mask.name if has_batch and isinstance(mask, Node) else None,
                heads=shape[0],
                tokens=shape[1],
                width=shape[2],
            )
        )
    return tuple(found)


def feature_maps(model: Model) -> tuple[Point, ...]:
    """Returns the last feature map of every size in order: its last residual sum, else its last value."""
    graph = _Graph(model)
    by_size: dict[tuple[int, ...], Node] = {}
    maps: set[Node] = set()
    for node in graph.calls:
        shape = graph.shape(node)
        if len(shape) != 3 or not graph.has_batch(node):
            continue
        # The heads of an attention have four dimensions, too: what counts comes from a convolution as it left it.
        moved = str(node.target).startswith(_LAYOUT)
        if not ("conv" in str(node.target) or (not moved and maps.intersection(node.all_input_nodes))):
            continue
        maps.add(node)
        if min(shape[1:]) < 2:
            continue
        before = by_size.get(shape[1:])
        if before is None or node.target in _ADDS or before.target not in _ADDS:
            by_size[shape[1:]] = node
    return tuple(graph.point(node) for node in by_size.values())


def named_points(model: Model, pattern: str, where: str) -> tuple[Point, ...]:
    """Returns what leaves the layers that a pattern matches, in order.

    Raises:
        RecipeError: If it matches none.
    """
    graph = _Graph(model)
    by_name = {node.name: node for node in graph.calls}
    found = layers(model)
    matched = [layer for layer in found if fnmatch.fnmatchcase(layer.name, pattern)]
    if not matched:
        names = [layer.name for layer in found]
        raise RecipeError(f"{where}: the pattern {pattern!r} matches no layer", did_you_mean(pattern, names))
    return tuple(Point(layer.output, layer.name, graph.shape(by_name[layer.output])) for layer in matched)


class _Graph:
    """What is asked of a graph's calls."""

    def __init__(self, model: Model) -> None:
        nodes = list(model.program.graph.nodes)
        self.place = {node: index for index, node in enumerate(nodes)}
        self.calls = [node for node in nodes if node.op == "call_function"]
        by_name = {node.name: node for node in nodes}
        self._layers = [(self.place[by_name[layer.node]], layer.name) for layer in layers(model)]
        inputs = [by_name[str(name)] for name in model.program.graph_signature.user_inputs]
        self._batch = str(inputs[0].meta["val"].shape[0])

    def shape(self, node: Node) -> tuple[int, ...]:
        """Without the batch; `()` for what is no tensor."""
        return shape_for_one(node.meta.get("val"))[1:]

    def has_batch(self, node: Node) -> bool:
        value = node.meta.get("val")
        return isinstance(value, torch.Tensor) and value.dim() > 0 and str(value.shape[0]) == self._batch

    def where(self, node: Node) -> str:
        """The last layer up to a node."""
        before = [name for place, name in self._layers if place <= self.place[node]]
        return before[-1] if before else node.name

    def is_learned(self, node: Node) -> bool:
        """Whether a weight was read before: what prepares raw features is the same on both sides."""
        return bool(self._layers) and self.place[node] >= self._layers[0][0]

    def is_residual(self, node: Node) -> bool:
        """Whether it adds to a value what was computed from that value."""
        one, other = (*node.args, None, None)[:2]
        if node.target not in _ADDS or not (isinstance(one, Node) and isinstance(other, Node)):
            return False
        alike = self.shape(one) == self.shape(other) == self.shape(node)
        if len(self.shape(node)) != 2 or not alike or not self.has_batch(node):
            return False
        return one in set(_ancestors(other)) or other in set(_ancestors(one))

    def point(self, node: Node) -> Point:
        return Point(node.name, self.where(node), self.shape(node))


def _ancestors(node: Node) -> Iterator[Node]:
    seen = {node}
    waiting = [node]
    while waiting:
        for source in waiting.pop().all_input_nodes:
            if source not in seen:
                seen.add(source)
                waiting.append(source)
                yield source


def _normed(node: Node) -> Node:
    users = list(node.users)
    return users[0] if len(users) == 1 and users[0].target is _NORM else node

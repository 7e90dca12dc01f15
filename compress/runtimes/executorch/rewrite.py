"""Operators that the backend has no kernel for, written as those that it has, before a graph is lowered."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

_ATEN = torch.ops.aten


def rewrite(module: GraphModule) -> None:
    """Rewrites a graph in place, to the same function. Nodes that stay keep their names.

    1. Attention without a mask becomes matrix products and a softmax. ExecuTorch's own form looks for rows of which
       every entry is masked: there are none, and the search takes a dozen operators that no backend has.
    2. A mean over both sides of an image keeps them and is reshaped: the backend averages in that form only.
    3. Dimensions of size one come and go by reshaping, which the backend does without a copy.
    """
    for node in list(module.graph.nodes):
        if node.op != "call_function":
            continue
        with module.graph.inserting_before(node):
            made = _rewritten(node)
        if made is not None:
            made.meta["val"] = node.meta["val"]
            node.replace_all_uses_with(made)
            module.graph.erase_node(node)
    module.recompile()


def _rewritten(node: Node) -> Node | None:
    kind = str(node.target)
    if kind == "aten.scaled_dot_product_attention.default":
        return _attention(node)
    if kind == "aten.mean.dim":
        return _mean(node)
    if kind.startswith(("aten.squeeze.", "aten.unsqueeze.")):
        return _reshaped(node, node.args[0], _shape(node))
    return None


def _attention(node: Node) -> Node | None:
    """`softmax(q kᵀ * scale) v` over all heads as one batch of matrices; None where there is a mask or a dropout."""
    given = node.args[:3]
    if len(node.args) > 3 or set(node.kwargs) - {"scale"} or not all(isinstance(item, Node) for item in given):
        return None
    shapes = [_shape(item) for item in given]
    leading = [shape[:-2] for shape in shapes]
    if leading[0] != leading[1] or leading[0] != leading[2] or len(leading[0]) < 2:
        return None
    matrices = [_reshaped(node, item, (-1, *shape[-2:])) for item, shape in zip(given, shapes, strict=True)]
    if any(item is None for item in matrices):
        return None
    q, k, v = matrices
    scale = node.kwargs.get("scale")
    factor = float(scale) if isinstance(scale, float | int) else float(shapes[0][-1]) ** -0.5
    scores = _call(node, _ATEN.bmm.default, _call(node, _ATEN.mul.Tensor, q, factor), _swapped(node, k))
    return _reshaped(node, _call(node, _ATEN.bmm.default, _call(node, _ATEN.softmax.int, scores, -1), v), _shape(node))


def _mean(node: Node) -> Node | None:
    given, dims, *keep = node.args
    rank = len(_shape(given))
    if rank != 4 or any(keep) or node.kwargs or sorted(dim % rank for dim in _list(dims)) != [2, 3]:
        return None
    return _reshaped(node, _call(node, _ATEN.mean.dim, given, [2, 3], True), _shape(node))


def _reshaped(node: Node, given: Any, shape: tuple[Any, ...]) -> Node | None:
    """A value in another shape; None where more than one of its sizes is open."""
    sizes = [size if isinstance(size, int) else -1 for size in shape]
    return _call(node, _ATEN.reshape.default, given, sizes) if sizes.count(-1) <= 1 else None


def _swapped(node: Node, given: Any) -> Node:
    return _call(node, _ATEN.transpose.int, given, 1, 2)


def _call(node: Node, target: Any, *args: Any) -> Node:
    return node.graph.call_function(target, args)


def _shape(node: Any) -> tuple[Any, ...]:
    return tuple(node.meta["val"].shape)


def _list(dims: Any) -> list[int]:
    return [dims] if isinstance(dims, int) else list(dims or [])

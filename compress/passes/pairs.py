"""Two layers with nothing but positively homogeneous operators between them, found in a graph."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import GraphModule, Node

from compress.model.edit import attribute_name, readers
from compress.passes.base import Skip

_CONVOLUTIONS = {f"aten.conv{n}d.{overload}" for n in (1, 2, 3) for overload in ("default", "padding")}
_LINEAR = "aten.linear.default"
# f(s x) = s f(x) for every s > 0, channel by channel, and the channels stay where they are.
_HOMOGENEOUS = {
    f"aten.{name}.default"
    for name in (
        *("relu", "relu_", "leaky_relu", "leaky_relu_", "dropout", "dropout_", "clone", "contiguous", "alias"),
        *(f"{kind}_pool{n}d" for kind in ("max", "avg", "adaptive_avg") for n in (1, 2, 3)),
    )
}
# What keeps the channels only where every position behind them is one, or is averaged away.
_FLATTENING = {"aten.flatten.using_ints", "aten.view.default", "aten.reshape.default", "aten.squeeze.dims"}
_MEAN = "aten.mean.dim"
BOUNDED = {"aten.relu6.default", "aten.relu6_.default", "aten.hardtanh.default", "aten.hardtanh_.default"}


@dataclass(frozen=True)
class Pair:
    """A layer, the only layer that reads it, and the bounded activations (ReLU6) between them."""

    first: Node
    second: Node
    bounded: tuple[Node, ...]


def is_layer(node: Node) -> bool:
    """Whether a call is a convolution or a linear layer with a weight that the graph holds."""
    if node.op != "call_function" or str(node.target) not in (*_CONVOLUTIONS, _LINEAR):
        return False
    weight = node.args[1]
    return isinstance(weight, Node) and weight.op == "get_attr"


def layer_name(layer: Node) -> str:
    """Returns the module's path of a layer."""
    weight = attribute_name(layer.args[1])
    return weight.rpartition(".")[0] or weight


def groups_of(layer: Node) -> int:
    """Returns the groups of a convolution; 1 for a linear layer."""
    if str(layer.target) == _LINEAR or len(layer.args) < 7:
        return 1
    groups = layer.args[6]
    return groups if isinstance(groups, int) else 1


def find_pairs(module: GraphModule) -> tuple[list[Pair], list[Skip]]:
    """Returns the pairs in the order in which they run, and why the other layers have no partner behind them."""
    pairs: list[Pair] = []
    skipped: list[Skip] = []
    for node in module.graph.nodes:
        if not is_layer(node):
            continue
        found = _behind(module, node)
        if isinstance(found, Pair):
            pairs.append(found)
        elif found:
            skipped.append(Skip(layer_name(node), found))
    return pairs, skipped


def _behind(module: GraphModule, first: Node) -> Pair | str:
    """The pair that begins with a layer, or why there is none."""
    if len(readers(module, attribute_name(first.args[1]))) != 1:
        return "its weight is shared"
    bounded: list[Node] = []
    value = first
    while True:
        users = list(value.users)
        if len(users) != 1:
            return f"its output is read by {len(users)} calls"
        user = users[0]
        operator = str(user.target)
        if user.op == "output":
            return "its output leaves the model"
        if is_layer(user) and user.args[0] is value:
            if not _aligned(first, value, user):
                return f"its channels are not those of {layer_name(user)}"
            if len(readers(module, attribute_name(user.args[1]))) != 1:
                return f"the weight of {layer_name(user)} is shared"
            return Pair(first, user, tuple(bounded))
        if operator in BOUNDED:
            bounded.append(user)
        elif operator not in _HOMOGENEOUS and not _keeps_channels(user, value):
            return f"{operator} behind it does not scale with its input channel by channel"
        value = user


def _aligned(first: Node, value: Node, second: Node) -> bool:
    """Whether the channels that leave the first layer are those that the second one sums over."""
    channels = _shape(first)[-1 if str(first.target) == _LINEAR else 1]
    shape = _shape(value)
    if str(second.target) == _LINEAR:
        from_linear = str(first.target) == _LINEAR
        return shape[-1] == channels and (from_linear or len(shape) == 2)
    return str(first.target) != _LINEAR and len(shape) > 1 and shape[1] == channels


def _keeps_channels(node: Node, value: Node) -> bool:
    """Whether an operator takes away positions only: the mean over them, or a flattening where there is one each."""
    before, after = _shape(value), _shape(node)
    operator = str(node.target)
    if operator == _MEAN:
        dims = node.args[1]
        return isinstance(dims, list | tuple) and {int(d) % len(before) for d in dims if isinstance(d, int)} <= set(
            range(2, len(before))
        )
    single = len(before) > 2 and all(size == 1 for size in before[2:])
    return operator in _FLATTENING and single and len(after) == 2 and after[1] == before[1]


def _shape(node: Node) -> tuple[object, ...]:
    value = node.meta.get("val")
    return tuple(value.shape) if isinstance(value, torch.Tensor) else ()

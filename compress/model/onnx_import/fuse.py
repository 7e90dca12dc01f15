"""Weights put into torch's form: matrix products become linear layers, recurrent weights get torch's order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import torch

from compress.model.onnx_import.fold import Draft
from compress.model.onnx_import.graph import Node, reads
from compress.model.onnx_import.ops_recurrent import GRU, LSTM

# The order of the gates: ONNX's i, o, f, c and z, r, h; torch's i, f, g, o and r, z, n.
_GATES = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2)}
_NAMES = {"LSTM": LSTM, "GRU": GRU}
_LEAVES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def fuse(draft: Draft, outputs: Iterable[str]) -> None:
    """Rewrites nodes in place.

    1. `MatMul` with a constant matrix on the right, and `Gemm`, become `Linear` with a weight `[out, in]`.
    2. A constant vector that is added to a linear layer or a convolution, and to nothing else, becomes its bias.
    3. `LSTM` and `GRU` with constant weights get them in torch's order, a set for each direction.
    4. A vector that several layers read as their own is copied: exporters store equal vectors once.
    """
    draft.nodes = [_recurrent(_linear(node, draft), draft) for node in draft.nodes]
    _take_biases(draft, set(outputs))
    _separate_vectors(draft)


def _linear(node: Node, draft: Draft) -> Node:
    if node.operator == "MatMul" and _is_matrix(node.inputs[1], draft):
        return replace(node, operator="Linear", inputs=(node.inputs[0], _transposed(node.inputs[1], draft)))
    return _gemm(node, draft) if node.operator == "Gemm" else node


def _gemm(node: Node, draft: Draft) -> Node:
    bias = node.inputs[2] if len(node.inputs) > 2 else ""
    settings = node.attributes
    if settings.get("transA") or not _is_matrix(node.inputs[1], draft) or (bias and bias not in draft.constants):
        return node
    weight = node.inputs[1] if settings.get("transB") else _transposed(node.inputs[1], draft)
    width = draft.constants[weight].shape[0]
    weight = _scaled(weight, settings.get("alpha", 1.0), draft)
    beta = settings.get("beta", 1.0)
    if not bias or beta == 0:
        return replace(node, operator="Linear", inputs=(node.inputs[0], weight), attributes={})
    tensor = draft.constants[bias]
    if tensor.numel() not in (1, width) or (tensor.dim() and tensor.shape[-1] not in (1, width)):
        return node
    if tuple(tensor.shape) != (width,):
        bias = draft.add(f"{bias}[{width}]", tensor.reshape(-1).expand(width).contiguous(), bias)
    return replace(node, operator="Linear", inputs=(node.inputs[0], weight, _scaled(bias, beta, draft)), attributes={})


def _is_matrix(name: str, draft: Draft) -> bool:
    tensor = draft.constants.get(name)
    return tensor is not None and tensor.dim() == 2 and tensor.is_floating_point()


def _transposed(name: str, draft: Draft) -> str:
    # What the file itself transposes is used as it is stored, so that an embedding tied to a layer stays one weight.
    if name in draft.transposes:
        return draft.transposes[name]
    origin = draft.origin(name)
    name = origin if draft.constants.get(origin) is draft.constants[name] else name
    return draft.add(f"{name}^T", draft.constants[name].t().contiguous(), name)


def _scaled(name: str, factor: float, draft: Draft) -> str:
    return name if factor == 1 else draft.add(f"{name}*{factor}", draft.constants[name] * factor, name)


def _take_biases(draft: Draft, outputs: set[str]) -> None:
    readers = Counter(name for node in draft.nodes for name in reads(node))
    makers = {node.outputs[0]: index for index, node in enumerate(draft.nodes) if node.outputs}
    for index, node in enumerate(draft.nodes):
        if node.operator != "Add":
            continue
        for value, constant in (node.inputs, node.inputs[::-1]):
            at = makers.get(value)
            if at is None or constant not in draft.constants or readers[value] != 1 or value in outputs:
                continue
            bias = _bias(draft.nodes[at], constant, draft)
            if bias:
                layer = draft.nodes[at]
                draft.nodes[at] = replace(layer, inputs=(*layer.inputs[:2], bias), outputs=node.outputs)
                draft.nodes[index] = replace(node, operator="", outputs=())
                makers[node.outputs[0]] = at
                break
    draft.nodes = [node for node in draft.nodes if node.operator]


def _bias(layer: Node, constant: str, draft: Draft) -> str:
    """Returns the constant as a vector of one number a channel; empty where it is none or the layer has a bias."""
    if layer.operator not in ("Linear", "Conv") or any(layer.inputs[2:]) or layer.inputs[1] not in draft.constants:
        return ""
    tensor, weight = draft.constants[constant], draft.constants[layer.inputs[1]]
    width = weight.shape[0]
    if layer.operator == "Linear":
        return constant if tuple(tensor.shape) == (width,) else ""
    spatial = (1,) * (weight.dim() - 2)
    if tuple(tensor.shape) not in ((width, *spatial), (1, width, *spatial)):
        return ""
    return draft.add(f"{constant}[{width}]", tensor.reshape(-1), constant)


def _recurrent(node: Node, draft: Draft) -> Node:
    if node.operator not in _GATES or not all(
        name in draft.constants for name in (*node.inputs[1:3], *node.inputs[3:4]) if name
    ):
        return node
    weight, recurrent = (draft.constants[name] for name in node.inputs[1:3])
    directions, hidden = recurrent.shape[0], recurrent.shape[2]
    has_bias = len(node.inputs) > 3 and node.inputs[3]
    bias = draft.constants[node.inputs[3]] if has_bias else weight.new_zeros(directions, 2 * weight.shape[1])
    split = node.operator == "GRU" and not node.attributes.get("linear_before_reset")
    order = _GATES[node.operator]
    names: list[str] = []
    for direction in range(directions):
        parts = dict(zip(_LEAVES, (weight[direction], recurrent[direction], *bias[direction].chunk(2)), strict=True))
        parts = {leaf: _gates_in(part, order, hidden) for leaf, part in parts.items()}
        if split:
            # The new state's weights are multiplied with another value than the gates'.
            parts = {leaf: part for old, tensor in parts.items() for leaf, part in _split(old, tensor, hidden)}
            parts = {
                leaf: parts[leaf] for leaf in sorted(parts, key=lambda leaf: (leaf.startswith("bias"), "_hh" in leaf))
            }
        suffix = "_l0" + ("_reverse" if direction else "")
        for leaf, part in parts.items():
            names.append(f"{node.name}@{leaf}{suffix}")
            draft.constants[names[-1]] = part.contiguous()
    states = [node.inputs[at] if at < len(node.inputs) else "" for at in (5, 6)]
    states = ["" if name in draft.constants and not draft.constants[name].any() else name for name in states]
    attributes = {**node.attributes, "hidden_size": hidden}
    return replace(
        node, operator=_NAMES[node.operator], inputs=(node.inputs[0], *states, *names), attributes=attributes
    )


def _gates_in(tensor: torch.Tensor, order: tuple[int, ...], hidden: int) -> torch.Tensor:
    gates = torch.split(tensor, hidden)
    return torch.cat([gates[at] for at in order])


def _split(leaf: str, tensor: torch.Tensor, hidden: int) -> list[tuple[str, torch.Tensor]]:
    if "_hh" not in leaf:
        return [(leaf, tensor)]
    return [(f"{leaf}_gates", tensor[: 2 * hidden]), (f"{leaf}_new", tensor[2 * hidden :])]


def _separate_vectors(draft: Draft) -> None:
    seen: dict[int, str] = {}
    for index, node in enumerate(draft.nodes):
        inputs = list(node.inputs)
        for at, name in enumerate(node.inputs[1:], start=1):
            tensor = draft.constants.get(name)
            if tensor is None or not tensor.is_floating_point() or tensor.dim() != 1 or tensor.numel() < 2:
                continue
            if seen.setdefault(id(tensor), node.name) != node.name:
                inputs[at] = f"{name}@{node.name}"
                draft.constants[inputs[at]] = tensor.clone()
        draft.nodes[index] = replace(node, inputs=tuple(inputs))

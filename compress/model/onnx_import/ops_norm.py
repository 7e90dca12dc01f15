"""Normalisations, in the form that they have after training.

Source: ONNX Operators.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch.nn import functional

from compress.model.onnx_import.call import Call
from compress.model.onnx_import.graph import Node
from compress.model.onnx_import.ops_math import Function


def _batch_norm(call: Call) -> torch.Tensor:
    weight, bias, mean, variance = (call.tensor(index) for index in range(1, 5))
    # torch's momentum is the share of the new batch, ONNX's that of the old average.
    momentum = 1 - call.attribute("momentum", 0.9)
    return functional.batch_norm(
        call.tensor(0), mean, variance, weight, bias, False, momentum, call.attribute("epsilon", 1e-5)
    )


def _layer_norm(call: Call) -> torch.Tensor:
    value, weight, bias = call.tensor(0), call.tensor(1), call.optional(2)
    axis = call.attribute("axis", -1) % value.dim()
    shape = list(value.shape[axis:])
    epsilon = call.attribute("epsilon", 1e-5)
    if list(weight.shape) == shape and (bias is None or list(bias.shape) == shape):
        return functional.layer_norm(value, shape, weight, bias, epsilon)
    scaled = functional.layer_norm(value, shape, None, None, epsilon) * weight
    return scaled if bias is None else scaled + bias


def _instance_norm(call: Call) -> torch.Tensor:
    # Each channel is a group of its own.
    value = call.tensor(0)
    return functional.group_norm(value, value.shape[1], call.tensor(1), call.tensor(2), call.attribute("epsilon", 1e-5))


def _group_norm(call: Call) -> torch.Tensor:
    value, weight, bias = call.tensor(0), call.tensor(1), call.tensor(2)
    groups = call.attribute("num_groups", 1)
    if call.opset < 21 and weight.shape[0] != value.shape[1]:
        # Before opset 21 there is one factor a group, not one a channel.
        each = value.shape[1] // groups
        weight, bias = (item.reshape(-1, 1).expand(groups, each).reshape(-1) for item in (weight, bias))
    return functional.group_norm(value, groups, weight, bias, call.attribute("epsilon", 1e-5))


def _local_response_norm(call: Call) -> torch.Tensor:
    alpha, beta, bias = call.attribute("alpha", 1e-4), call.attribute("beta", 0.75), call.attribute("bias", 1.0)
    return functional.local_response_norm(call.tensor(0), call.attribute("size", 1), alpha, beta, bias)


def _refuse_training(node: Node) -> str:
    return "in training form" if node.attributes.get("training_mode") or any(node.outputs[1:]) else ""


def _refuse_statistics(node: Node) -> str:
    return "with its mean and deviation as outputs" if any(node.outputs[1:]) else ""


TABLE: Mapping[str, Function] = {
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "InstanceNormalization": _instance_norm,
    "GroupNormalization": _group_norm,
    "LRN": _local_response_norm,
}
REFUSALS: Mapping[str, Callable[[Node], str]] = {
    "BatchNormalization": _refuse_training,
    "LayerNormalization": _refuse_statistics,
}

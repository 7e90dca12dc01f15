"""Activations.

Source: ONNX Operators.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch.nn import functional

from compress.model.onnx_import.call import Call
from compress.model.onnx_import.errors import MixesRows
from compress.model.onnx_import.ops_math import Function, unary
from compress.model.onnx_import.values import product

_SELU = (1.67326319217681884765625, 1.05070102214813232421875)


def _leaky_relu(call: Call) -> torch.Tensor:
    return functional.leaky_relu(call.tensor(0), call.attribute("alpha", 0.01))


def _prelu(call: Call) -> torch.Tensor:
    value, slope = call.tensor(0), call.tensor(1)
    per_channel = (
        value.dim() >= 2 and slope.dim() == value.dim() - 1 and slope.numel() == slope.shape[0] == value.shape[1]
    )
    if slope.numel() == 1 or per_channel:
        return functional.prelu(value, slope.reshape(-1))
    return torch.where(value < 0, slope * value, value)


def _hard_sigmoid(call: Call) -> torch.Tensor:
    alpha, beta = call.attribute("alpha", 0.2), call.attribute("beta", 0.5)
    if math.isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5:
        return functional.hardsigmoid(call.tensor(0))
    return torch.clamp(call.tensor(0) * alpha + beta, 0.0, 1.0)


def _selu(call: Call) -> torch.Tensor:
    alpha, gamma = call.attribute("alpha", _SELU[0]), call.attribute("gamma", _SELU[1])
    value = call.tensor(0)
    if math.isclose(alpha, _SELU[0], rel_tol=1e-6) and math.isclose(gamma, _SELU[1], rel_tol=1e-6):
        return functional.selu(value)
    scaled: torch.Tensor = torch.where(value > 0, value, torch.expm1(value) * alpha) * gamma
    return scaled


def _gelu(call: Call) -> torch.Tensor:
    return functional.gelu(call.tensor(0), approximate=call.attribute("approximate", "none"))


def _softmax(function: Callable[..., torch.Tensor]) -> Function:
    """Before opset 13 an input is flattened to two dimensions at the axis; the default axis was 1."""

    def read(call: Call) -> torch.Tensor:
        value = call.tensor(0)
        axis = call.attribute("axis", -1 if call.opset >= 13 else 1)
        axis += value.dim() if axis < 0 else 0
        if call.opset >= 13 or axis == value.dim() - 1:
            return function(value, dim=axis)
        if axis == 0:
            raise MixesRows(f"over all elements, the batch among them (axis 0 in opset {call.opset})")
        flat = value.reshape(*value.shape[:axis], product(value.shape[axis:]))
        return function(flat, dim=-1).reshape(value.shape)

    return read


def _thresholded_relu(call: Call) -> torch.Tensor:
    return functional.threshold(call.tensor(0), call.attribute("alpha", 1.0), 0.0)


TABLE: Mapping[str, Function] = {
    "Relu": unary(functional.relu),
    "LeakyRelu": _leaky_relu,
    "PRelu": _prelu,
    "ThresholdedRelu": _thresholded_relu,
    "Sigmoid": unary(torch.sigmoid),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": unary(functional.hardswish),
    "Tanh": unary(torch.tanh),
    "Elu": lambda call: functional.elu(call.tensor(0), call.attribute("alpha", 1.0)),
    "Celu": lambda call: functional.celu(call.tensor(0), call.attribute("alpha", 1.0)),
    "Selu": _selu,
    "Softplus": unary(functional.softplus),
    "Softsign": unary(functional.softsign),
    "Gelu": _gelu,
    "Mish": unary(functional.mish),
    "Softmax": _softmax(functional.softmax),
    "LogSoftmax": _softmax(functional.log_softmax),
}

"""Batch normalisation folded into the convolution or linear layer before it. Keeps the function."""

from __future__ import annotations

import torch

from compress.data.base import Dataset
from compress.model.core import Model
from compress.model.edit import attribute_name, batch_norms, edited, get_parameter, own_bias, readers, set_parameter
from compress.passes.base import Change, Context, PassResult, Skip

_BEFORE = {f"aten.conv{n}d.{overload}" for n in (1, 2, 3) for overload in ("default", "padding")} | {
    "aten.linear.default"
}


class FoldBatchNorm:
    """Folds `y = gamma (x - mean) / sqrt(var + eps) + beta` into the weight and bias that produce `x`.

    With `s = gamma / sqrt(var + eps)`: weight' = s · weight (per output channel), bias' = s (bias - mean) + beta
    (Jacob et al. 2018, arXiv:1712.05877, section 3.2). Every runtime then sees the weights that it will quantize.
    """

    def apply(self, model: Model, data: Dataset | None, ctx: Context) -> PassResult:
        """Folds every normalisation whose input comes from one convolution or linear layer alone."""
        changed: list[Change] = []
        skipped: list[Skip] = []

        def edit(module: torch.fx.GraphModule) -> None:
            for node in batch_norms(module):
                reason = _refusal(module, node)
                where = attribute_name(node.args[3]).rpartition(".")[0] or node.name
                if reason:
                    skipped.append(Skip(where, reason))
                else:
                    changed.append(Change(where, f"folded into {_fold(module, node)}"))

        folded = edited(model, edit, "fold_batch_norm") if batch_norms(model.program) else model
        return PassResult(folded if changed else model, tuple(changed), tuple(skipped))


def _refusal(module: torch.fx.GraphModule, norm: torch.fx.Node) -> str:
    source = norm.args[0]
    if not isinstance(source, torch.fx.Node) or str(source.target) not in _BEFORE:
        return "no convolution or linear layer stands directly before it"
    if len(source.users) != 1:
        return "the layer before it is read elsewhere, too"
    if "linear" in str(source.target) and source.meta["val"].dim() != 2:
        return "it normalises another dimension than the outputs of the linear layer before it"
    weight = source.args[1]
    if (
        not isinstance(weight, torch.fx.Node)
        or weight.op != "get_attr"
        or len(readers(module, attribute_name(weight))) != 1
    ):
        return "the weight before it is shared"
    return ""


def _fold(module: torch.fx.GraphModule, norm: torch.fx.Node) -> str:
    layer = norm.args[0]
    if not isinstance(layer, torch.fx.Node) or not isinstance(norm.args[7], float):
        raise TypeError(f"{norm.name} is not a batch normalisation of a layer")
    gamma, beta, mean, variance = (
        get_parameter(module, attribute_name(argument)) if isinstance(argument, torch.fx.Node) else None
        for argument in norm.args[1:5]
    )
    epsilon = norm.args[7]
    if mean is None or variance is None:
        raise ValueError(f"{norm.name} has no running statistics")
    name = attribute_name(layer.args[1])
    weight = get_parameter(module, name)
    bias_node = layer.args[2] if len(layer.args) > 2 else None
    old_bias = get_parameter(module, attribute_name(bias_node)) if isinstance(bias_node, torch.fx.Node) else None
    # Double precision: the quotient of two small numbers is where a fold loses its last digits.
    scale = (gamma.double() if gamma is not None else 1.0) / torch.sqrt(variance.double() + epsilon)
    shift = (old_bias.double() if old_bias is not None else 0.0) - mean.double()
    bias = scale * shift + (beta.double() if beta is not None else 0.0)
    shape = (-1,) + (1,) * (weight.dim() - 1)
    set_parameter(module, name, (weight.double() * scale.reshape(shape)).to(weight.dtype))
    bias_name = own_bias(module, layer, add=True)
    assert bias_name is not None
    set_parameter(module, bias_name, bias.to(weight.dtype))
    norm.replace_all_uses_with(layer)
    module.graph.erase_node(norm)
    return name.rpartition(".")[0] or name

"""Activation smoothing: what makes a layer's input hard to quantize moves into its weights."""

from __future__ import annotations

import torch
from pydantic import Field
from torch.fx import GraphModule, Node

from compress.data.base import Dataset
from compress.model.core import Model
from compress.model.edit import attribute_name, edited, get_parameter, readers, set_parameter, unlifted
from compress.passes.base import Change, Context, PassResult, Skip
from compress.passes.pairs import layer_name
from compress.passes.rows import calibration_batches, channel_peaks
from compress.schema import Strict, validate

_NORM = torch.ops.aten.layer_norm.default
_LINEAR = torch.ops.aten.linear.default
_DROPOUT = torch.ops.aten.dropout.default


class Options(Strict):
    """Options of the pass: `strength` is the share of the difficulty that moves (alpha), `rows` how many are looked at.

    `limit` is the largest factor of a channel.
    """

    strength: float = Field(default=0.5, gt=0, lt=1)
    rows: int = Field(default=512, ge=1)
    limit: float = Field(default=1000.0, gt=1)


class Smooth:
    """Divides channel `j` between a layer normalisation and the linear layers behind it by a factor.

    `s_j = max|X_j|^a / max|W_j|^(1 - a)`; the normalisation's scale and shift are divided by `s`, the columns of the
    weights multiplied (SmoothQuant, Xiao et al. 2022, arXiv:2211.10438, equations 3 and 4). The function stays. A
    normalisation that anything but linear layers reads is left alone: there is nowhere to put the factor.
    """

    def apply(self, model: Model, data: Dataset | None, ctx: Context) -> PassResult:
        """Smooths behind every layer normalisation that only linear layers read.

        Raises:
            RecipeError: If an option is unknown or wrong.
            PassError: If there are normalisations to smooth and no rows.
        """
        options = validate(Options, dict(ctx.options), "passes: smooth")
        skipped: list[Skip] = []
        norms, refused = _norms(unlifted(model))
        skipped.extend(refused)
        if not norms:
            return PassResult(model, (), tuple(skipped))
        wanted = {norm.name: -1 for norm in norms}
        peaks = channel_peaks(model, calibration_batches(model, data, options.rows, ctx, "smooth"), wanted)
        changed: list[Change] = []

        def edit(module: GraphModule) -> None:
            for norm in _norms(module)[0]:
                changed.append(_smooth(module, norm, peaks[norm.name], options))

        return PassResult(edited(model, edit, "smooth"), tuple(changed), tuple(skipped))


def _norms(module: GraphModule) -> tuple[list[Node], list[Skip]]:
    found, skipped = [], []
    for norm in module.graph.find_nodes(op="call_function", target=_NORM):
        reason = _refusal(module, norm)
        if reason:
            skipped.append(Skip(_name(norm), reason))
        else:
            found.append(norm)
    return found, skipped


def _refusal(module: GraphModule, norm: Node) -> str:
    shape, scale = norm.args[1], norm.args[2] if len(norm.args) > 2 else None
    if not isinstance(scale, Node) or scale.op != "get_attr":
        return "it has no scale of its own"
    if not isinstance(shape, list | tuple) or len(shape) != 1:
        return "it normalises more than one dimension"
    if len(readers(module, attribute_name(scale))) != 1:
        return "its scale is shared"
    others = [user for user in _users(norm) if user.target is not _LINEAR or _reads_elsewhere(user, norm)]
    if others:
        return f"{others[0].target} reads it, too, and cannot take the factor"
    layers = _users(norm)
    if not layers:
        return "no layer reads it"
    if any(len(readers(module, attribute_name(layer.args[1]))) != 1 for layer in layers):
        return "the weight behind it is shared"
    return ""


def _users(value: Node) -> list[Node]:
    """Who reads a value; a dropout, which does nothing in eval form, is looked through."""
    return [reader for user in value.users for reader in (_users(user) if user.target is _DROPOUT else [user])]


def _reads_elsewhere(layer: Node, norm: Node) -> bool:
    weight = layer.args[1]
    return not isinstance(weight, Node) or weight.op != "get_attr" or norm in layer.args[1:]


def _smooth(module: GraphModule, norm: Node, peak: torch.Tensor, options: Options) -> Change:
    layers = _users(norm)
    names = list(dict.fromkeys(attribute_name(layer.args[1]) for layer in layers))
    weights = {name: get_parameter(module, name).detach().double() for name in names}
    columns = torch.stack([weight.abs().amax(dim=0) for weight in weights.values()]).amax(dim=0)
    alive = (peak > 0) & (columns > 0)
    x = torch.where(alive, peak.double(), torch.ones_like(columns))
    w = torch.where(alive, columns, torch.ones_like(columns))
    factor = (x**options.strength / w ** (1 - options.strength)).clamp(1 / options.limit, options.limit)
    factor = torch.where(alive, factor, torch.ones_like(factor))
    for argument in norm.args[2:4]:
        if isinstance(argument, Node):
            name = attribute_name(argument)
            value = get_parameter(module, name)
            set_parameter(module, name, (value.double() / factor).to(value.dtype))
    for name, weight in weights.items():
        set_parameter(module, name, (weight * factor).to(get_parameter(module, name).dtype))
    behind = ", ".join(layer_name(layer) for layer in layers)
    scales = f"factors {float(factor.min()):.3g} to {float(factor.max()):.3g}"
    return Change(_name(norm), f"{len(factor)} channels divided, {behind} multiplied, {scales}")


def _name(norm: Node) -> str:
    scale = norm.args[2] if len(norm.args) > 2 else None
    return attribute_name(scale).rpartition(".")[0] or norm.name

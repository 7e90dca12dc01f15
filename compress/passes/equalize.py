"""Cross-layer equalization: the channels between two layers are scaled so that both weights have like ranges."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch.fx import GraphModule, Node

from compress.data.base import Dataset
from compress.model.core import Model
from compress.model.edit import attribute_name, edited, get_parameter, own_bias, set_parameter, unlifted
from compress.passes.base import Change, Context, PassResult, Skip
from compress.passes.pairs import Pair, find_pairs, groups_of, layer_name
from compress.passes.rows import calibration_batches, channel_peaks
from compress.schema import Strict, validate

_ROUNDS = 40
_STILL = 1e-3


class Options(Strict):
    """Options of the pass.

    `relu6` says what happens to pairs with a ReLU6 between them, which scales with its input only up to its bound:
    `skip`, or `replace` it by ReLU where at most `beyond` of its channels pass 6 on `rows` calibration rows; that alone
    changes the function. `limit` is the largest factor of a channel.
    """

    relu6: Literal["skip", "replace"] = "skip"
    beyond: float = Field(default=0.0, ge=0, le=1)
    rows: int = Field(default=512, ge=1)
    limit: float = Field(default=64.0, gt=1)


class Equalize:
    """Scales channel `i` between two layers by `s_i = sqrt(r1_i r2_i) / r2_i`, the geometric mean of their ranges.

    `W1' = W1 / s`, `b1' = b1 / s`, `W2' = W2 s` keep the function, since what stands between scales with its input
    (Nagel et al. 2019, arXiv:1906.04721, section 4.1). A depthwise layer is the second of one pair and the first of
    the next; pairs are gone through until nothing moves.
    """

    def apply(self, model: Model, data: Dataset | None, ctx: Context) -> PassResult:
        """Equalizes every pair that the graph shows.

        Raises:
            RecipeError: If an option is unknown or wrong.
            PassError: If rows are needed and there are none.
        """
        options = validate(Options, dict(ctx.options), "passes: equalize")
        changed: list[Change] = []
        skipped: list[Skip] = []
        peaks = _peaks(model, data, ctx, options) if options.relu6 == "replace" else {}

        def edit(module: GraphModule) -> None:
            found, without = find_pairs(module)
            skipped.extend(without)
            chosen = []
            for pair in found:
                reason = _bounded(module, pair, peaks, options, changed)
                if reason:
                    skipped.append(Skip(layer_name(pair.first), reason))
                else:
                    chosen.append(pair)
            changed.extend(_equalize(module, chosen, options.limit))

        result = edited(model, edit, "equalize")
        return PassResult(result if changed else model, tuple(changed), tuple(skipped))


def _peaks(model: Model, data: Dataset | None, ctx: Context, options: Options) -> dict[str, torch.Tensor]:
    """The largest magnitude of each channel that goes into a bounded activation between two layers."""
    pairs, _ = find_pairs(unlifted(model))
    wanted = {node.all_input_nodes[0].name: 1 for pair in pairs for node in pair.bounded}
    if not wanted:
        return {}
    return channel_peaks(model, calibration_batches(model, data, options.rows, ctx, "equalize"), wanted)


def _bounded(
    module: GraphModule, pair: Pair, peaks: dict[str, torch.Tensor], options: Options, changed: list[Change]
) -> str:
    """Replaces the bounded activations of a pair where that is asked for and harmless; else says why not."""
    for node in pair.bounded:
        if options.relu6 == "skip":
            return "the ReLU6 behind it scales with its input only up to its bound"
        peak = peaks[node.all_input_nodes[0].name]
        beyond = float((peak > _bound(node)).float().mean())
        if beyond > options.beyond:
            return f"{100 * beyond:.3g} % of the channels behind it pass the bound of ReLU6 on calibration rows"
    for node in pair.bounded:
        with module.graph.inserting_after(node):
            relu = module.graph.call_function(torch.ops.aten.relu.default, (node.args[0],))
        relu.meta = dict(node.meta)
        node.replace_all_uses_with(relu)
        module.graph.erase_node(node)
        changed.append(Change(layer_name(pair.first), "ReLU6 behind it replaced by ReLU"))
    return ""


def _bound(node: Node) -> float:
    bound = node.args[2] if len(node.args) > 2 else 6.0
    return float(bound) if isinstance(bound, int | float) else 6.0


def _equalize(module: GraphModule, pairs: list[Pair], limit: float) -> list[Change]:
    """Scales all pairs in turn until no factor moves; returns what was done to each."""
    total = {index: torch.ones(()) for index in range(len(pairs))}
    weights = {
        node: get_parameter(module, attribute_name(node.args[1])).detach().double().clone()
        for pair in pairs
        for node in (pair.first, pair.second)
    }
    for _ in range(_ROUNDS):
        moved = 0.0
        for index, pair in enumerate(pairs):
            first, second = weights[pair.first], weights[pair.second]
            before = total[index] if total[index].dim() else torch.ones(first.shape[0], dtype=torch.float64)
            factor = _factor(_per_output(first), _per_input(second, groups_of(pair.second)))
            factor = (before * factor).clamp(1 / limit, limit) / before
            moved = max(moved, float((factor.log()).abs().max()))
            total[index] = before * factor
            weights[pair.first] = first / _along(factor, first, 0)
            weights[pair.second] = _scale_inputs(second, factor, groups_of(pair.second))
        if moved < _STILL:
            break
    changes = []
    for index, pair in enumerate(pairs):
        factor = total[index]
        if not factor.dim() or float(factor.log().abs().max()) < _STILL:
            continue
        bias = own_bias(module, pair.first)
        if bias is not None:
            value = get_parameter(module, bias)
            set_parameter(module, bias, (value.double() / factor).to(value.dtype))
        scales = f"factors {float(factor.min()):.3g} to {float(factor.max()):.3g}"
        what = f"{len(factor)} channels scaled against {layer_name(pair.second)}, {scales}"
        changes.append(Change(layer_name(pair.first), what))
    if changes:
        for node, weight in weights.items():
            name = attribute_name(node.args[1])
            set_parameter(module, name, weight.to(get_parameter(module, name).dtype))
    return changes


def _per_output(weight: torch.Tensor) -> torch.Tensor:
    return weight.abs().flatten(1).amax(dim=1)


def _per_input(weight: torch.Tensor, groups: int) -> torch.Tensor:
    """Largest magnitude by input channel; a grouped weight is `[groups * out, in, ...]`."""
    grouped = weight.abs().reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
    return grouped.amax(dim=(1, 3)).reshape(-1)


def _scale_inputs(weight: torch.Tensor, factor: torch.Tensor, groups: int) -> torch.Tensor:
    grouped = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
    return (grouped * factor.reshape(groups, 1, weight.shape[1], 1)).reshape(weight.shape)


def _factor(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """`sqrt(r1 / r2)`; a channel that is dead on either side stays as it is."""
    alive = (first > 0) & (second > 0)
    ones = torch.ones_like(first)
    return torch.where(alive, torch.sqrt(torch.where(alive, first, ones) / torch.where(alive, second, ones)), ones)


def _along(factor: torch.Tensor, weight: torch.Tensor, axis: int) -> torch.Tensor:
    shape = [1] * weight.dim()
    shape[axis] = -1
    return factor.reshape(shape)

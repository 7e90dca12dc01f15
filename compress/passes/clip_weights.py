"""Outlier-aware clipping: weights cut where rounding and clipping together cost least."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch.fx import GraphModule

from compress.calibrate.fake import output_axis, rounded
from compress.data.base import Dataset
from compress.model.core import Model, state
from compress.model.edit import edited, set_parameter
from compress.model.layers import MULTIPLYING, layers, select
from compress.passes.base import Change, Context, PassResult, Skip
from compress.schema import Strict, validate

# Thresholds that are tried, as shares of the largest magnitude.
_SHARES = [number / 40 for number in range(40, 7, -1)]
# Below this gain a weight is better left as it is.
_GAIN = 0.01


class Options(Strict):
    """Options of the pass: the integers that the weights will become, and which layers it is for."""

    bits: int = Field(default=8, ge=2, le=8)
    granularity: Literal["channel", "tensor"] = "channel"
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()


class ClipWeights:
    """Clips each channel of a weight at the threshold with the least squared error of its rounding.

    A quantizer takes the largest magnitude for the end of its scale; one outlier makes every other weight coarse.
    Where clipping it costs less than it saves, it is clipped (Banner et al. 2019, arXiv:1810.05723, section 4, by
    search instead of a fitted distribution). Changes the function a little: the float32 file clips, too.
    """

    def apply(self, model: Model, data: Dataset | None, ctx: Context) -> PassResult:
        """Clips the weights of every chosen layer that gains by it.

        Raises:
            RecipeError: If an option is unknown or wrong.
            CompressError: If a pattern matches no layer.
        """
        options = validate(Options, dict(ctx.options), "passes: clip_weights")
        found = layers(model)
        reasons = select(found, options.include, options.exclude, "passes: clip_weights")
        tensors = state(model.program)
        changed: list[Change] = []
        skipped: list[Skip] = []
        clipped: dict[str, torch.Tensor] = {}
        for layer in found:
            if layer.operator not in MULTIPLYING:
                continue
            shared = sum(other.weight == layer.weight or _same(tensors, other.weight, layer.weight) for other in found)
            if reasons[layer.name] or shared > 1:
                skipped.append(Skip(layer.name, reasons[layer.name] or "its weight is shared"))
                continue
            axis = output_axis(layer) if options.granularity == "channel" else None
            weight, share, gain = _clip(tensors[layer.weight].detach(), options.bits, axis)
            if gain < _GAIN:
                skipped.append(Skip(layer.name, "clipping gains nothing"))
                continue
            clipped[layer.weight] = weight
            changed.append(
                Change(layer.name, f"{100 * share:.3g} % of the weights clipped, {100 * gain:.3g} % less squared error")
            )

        def edit(module: GraphModule) -> None:
            for name, weight in clipped.items():
                set_parameter(module, name, weight)

        result = edited(model, edit, f"clip_weights: {options.bits} bits") if clipped else model
        return PassResult(result, tuple(changed), tuple(skipped))


def _same(tensors: dict[str, torch.Tensor], one: str, other: str) -> bool:
    return tensors[one].untyped_storage().data_ptr() == tensors[other].untyped_storage().data_ptr()


def _clip(weight: torch.Tensor, bits: int, axis: int | None) -> tuple[torch.Tensor, float, float]:
    """The clipped weight, the share of its numbers that were clipped, and the share of the squared error saved."""
    others = [place for place in range(weight.dim()) if place != axis]
    peak = weight.abs().amax(dim=others, keepdim=True)
    best = whole = _error(weight, peak, bits, others)
    threshold = peak
    for share in _SHARES[1:]:
        error = _error(weight, peak * share, bits, others)
        better = error < best
        threshold, best = torch.where(better, peak * share, threshold), torch.where(better, error, best)
    limited = torch.minimum(torch.maximum(weight, -threshold), threshold)
    total = float(whole.sum())
    gain = 1 - float(best.sum()) / total if total else 0.0
    return limited, float((limited != weight).float().mean()), gain


def _error(weight: torch.Tensor, peak: torch.Tensor, bits: int, others: list[int]) -> torch.Tensor:
    return (weight - rounded(weight, peak, bits)).double().square().sum(dim=others, keepdim=True)

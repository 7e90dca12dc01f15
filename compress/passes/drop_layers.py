"""Whole layers left out: their input goes on in place of their output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch.fx import GraphModule

from compress.data.base import Dataset
from compress.errors import PassError
from compress.model.core import Model
from compress.model.edit import batch_norms, edited, get_parameter
from compress.model.layers import select
from compress.passes.base import Change, Context, PassResult, Skip
from compress.passes.prune.statistics import renew_statistics
from compress.passes.residual import ResidualLayer, residual_layers
from compress.passes.watch import Seen, watch
from compress.schema import Strict, validate

_BATCH = 64


class Options(Strict):
    """`[[passes]] kind = "drop_layers"`.

    One goal, counted over the layers that `include` and `exclude` choose: `keep`, how many stay or which ones (from 0),
    or `every`: the first, and then each so many-th, stays (Sanh et al. 2019, arXiv:1910.01108, section 3: one layer out
    of two). With a number to keep, `by` says which go: `influence`, those that change their input the least over `rows`
    calibration rows, or `last`. Batch normalisation's statistics are taken anew from `statistics_rows` of them.
    """

    keep: int | tuple[int, ...] | None = None
    every: int | None = Field(default=None, ge=2)
    by: Literal["influence", "last"] = "influence"
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    rows: int = Field(default=256, ge=1)
    statistics_rows: int = Field(default=512, ge=2)

    @model_validator(mode="after")
    def _one_goal(self) -> Options:
        if (self.keep is None) == (self.every is None):
            raise ValueError("give one goal: keep (how many layers stay, or which) or every")
        stay = [self.keep] if isinstance(self.keep, int) else list(self.keep or ())
        if self.keep is not None and (not stay or min(stay) < (1 if isinstance(self.keep, int) else 0)):
            raise ValueError("keep: at least one layer must stay, and layers are counted from 0")
        return self


class DropLayers:
    """Bypasses residual layers, which `residual.py` finds in the graph."""

    def apply(self, model: Model, data: Dataset | None, ctx: Context) -> PassResult:
        """Leaves out the layers that the goal names.

        Raises:
            RecipeError: If an option is unknown or wrong.
            PassError: If `keep` names layers that there are not.
            CompressError: If a pattern matches no layer.
        """
        options = validate(Options, dict(ctx.options), "passes: drop_layers")
        module = model.program.module(check_guards=False)
        found, refused = residual_layers(module)
        skipped = list(refused)
        if not found:
            skipped.append(Skip("the whole model", "no part of it adds something to its own input and keeps its shape"))
            return PassResult(model, (), tuple(skipped))
        reasons = select(found, options.include, options.exclude, "drop_layers")
        skipped += [Skip(name, reason) for name, reason in reasons.items() if reason]
        chosen = [layer for layer in found if not reasons[layer.name]]
        told: Mapping[str, float] = {}
        if isinstance(options.keep, int) and options.by == "influence":
            if data is None:
                skipped.append(Skip("the layers' influence", "there are no rows to measure it on, so the last go"))
            else:
                rows = data.sample("calibration", options.rows, ctx.seed)
                told = influence(module, model, chosen, data, rows)
        gone = _gone(chosen, told, options)
        skipped += [Skip(layer.name, f"it stays{_said(told, layer)}") for layer in chosen if layer not in gone]
        if not gone:
            return PassResult(model, (), tuple(skipped))
        changed = [
            Change(
                layer.name, f"left out with its {_size(module, layer):,} parameters and constants{_said(told, layer)}"
            )
            for layer in gone
        ]

        def edit(copy: GraphModule) -> None:
            bypass(copy, gone)
            if not batch_norms(copy):
                return
            if data is None:
                skipped.append(Skip("batch normalisation", "its statistics are the old ones: there are no rows"))
                return
            rows = data.sample("calibration", options.statistics_rows, ctx.seed)
            renew_statistics(copy, model, data.batches_of(rows, _BATCH))
            changed.append(Change("batch normalisation", f"statistics taken anew from {len(rows)} calibration rows"))

        smaller = edited(model, edit, f"drop_layers: {len(gone)} of {len(found)}")
        return PassResult(smaller, tuple(changed), tuple(skipped))


def bypass(module: GraphModule, gone: Sequence[ResidualLayer]) -> None:
    """Lets the input of each layer go on in place of its output, in place; what nothing reads any more is left."""
    nodes = {node.name: node for node in module.graph.nodes}
    for layer in gone:
        # The input may be the output of a layer that went before: then its own input stands there by now.
        into = nodes[layer.input]
        nodes[layer.output].replace_all_uses_with(into)
        nodes[layer.output] = into


def influence(
    module: GraphModule, model: Model, found: Sequence[ResidualLayer], data: Dataset, rows: NDArray[np.int64]
) -> dict[str, float]:
    """Returns by how much each layer turns what passes through it: 1 - the cosine between input and output.

    It is the block influence of ShortGPT (Men et al. 2024, arXiv:2403.03853, equation 1), the mean over rows and
    positions; channels are the last dimension, or the second of an image's four.

    Args:
        module: The graph.
        model: Whose inputs it takes.
        found: The layers.
        data: Whose rows.
        rows: Their positions, never test rows.
    """
    held: dict[str, torch.Tensor] = {}
    sums = dict.fromkeys([layer.name for layer in found], 0.0)
    counts = dict.fromkeys(sums, 0)
    starts = {layer.input for layer in found}

    def observer(name: str) -> Seen:
        ending = [layer for layer in found if layer.output == name]

        def seen(value: torch.Tensor) -> None:
            for layer in ending:
                channels = 1 if value.dim() == 4 else -1
                turned = 1 - torch.cosine_similarity(held[layer.input], value, dim=channels).double()
                sums[layer.name] += float(turned.sum())
                counts[layer.name] += turned.numel()
            if name in starts:
                held[name] = value

        return seen

    names = starts | {layer.output for layer in found}
    watch(module, model, data.batches_of(rows, _BATCH), {name: observer(name) for name in names})
    return {name: sums[name] / max(counts[name], 1) for name in sums}


def _gone(chosen: Sequence[ResidualLayer], told: Mapping[str, float], options: Options) -> list[ResidualLayer]:
    count = len(chosen)
    if options.every is not None:
        return [layer for place, layer in enumerate(chosen) if place % options.every]
    if isinstance(options.keep, int):
        if options.keep > count:
            raise PassError(
                f"drop_layers.keep: {options.keep} layers cannot stay: {count} can be left out ({_names(chosen)})",
                f"keep 1 to {count - 1} of them.",
            )
        # Of equal ones the later goes.
        order = sorted(range(count), key=lambda place: (told.get(chosen[place].name, 0.0), -place))
        return [chosen[place] for place in sorted(order[: count - options.keep])]
    unknown = [place for place in options.keep or () if place >= count]
    if unknown:
        raise PassError(
            f"drop_layers.keep: there is no layer {unknown[0]} among the {count} that can be left out",
            f"they are counted from 0: {_names(chosen)}.",
        )
    return [layer for place, layer in enumerate(chosen) if place not in (options.keep or ())]


def _names(chosen: Sequence[ResidualLayer]) -> str:
    return ", ".join(layer.name for layer in chosen)


def _said(told: Mapping[str, float], layer: ResidualLayer) -> str:
    return f": influence {told[layer.name]:.3g}" if layer.name in told else ""


def _size(module: GraphModule, layer: ResidualLayer) -> int:
    return sum(get_parameter(module, name).numel() for name in layer.weights)

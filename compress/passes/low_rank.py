"""Linear layers as products of two narrow ones, where that takes fewer multiply-adds."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import Field, model_validator
from torch.fx import GraphModule, Node

from compress.data.base import Dataset
from compress.model.core import Model
from compress.model.edit import edited, get_parameter, set_parameter
from compress.model.layers import layers, select
from compress.passes.base import Change, Context, PassResult, Skip
from compress.passes.moments import Moments
from compress.passes.spectrum import Spectrum, spectrum
from compress.passes.weights import SharedWeight, chosen_weights, moments_of
from compress.schema import Strict, validate

_BATCH = 64
_LINEAR = torch.ops.aten.linear.default


class Options(Strict):
    """`[[passes]] kind = "low_rank"`.

    One goal: `rank`, the width between the two layers; `ratio`, the share of a layer's weight that stays; or `energy`,
    the share of the variance of its outputs that is kept. `include` and `exclude` are patterns on layer names. A rank
    is a multiple of `round_to` where it is at least twice that; a `rank` that is given is kept to. `rows` calibration
    rows say which inputs count.
    """

    rank: int | None = Field(default=None, ge=1)
    ratio: float | None = Field(default=None, gt=0, lt=1)
    energy: float | None = Field(default=None, gt=0, lt=1)
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    round_to: int = Field(default=8, ge=1, le=256)
    rows: int = Field(default=256, ge=2)

    @model_validator(mode="after")
    def _one_goal(self) -> Options:
        if sum(goal is not None for goal in (self.rank, self.ratio, self.energy)) != 1:
            raise ValueError(
                "give one goal: rank, ratio (what stays of a weight) or energy (what stays of its outputs)"
            )
        return self

    @property
    def goal(self) -> str:
        """The goal as the recipe has it."""
        return next(f"{key} {getattr(self, key):g}" for key in ("rank", "ratio", "energy") if getattr(self, key))

    def rank_of(self, found: Spectrum, out: int, into: int) -> int:
        """Returns the rank of a layer, by the goal."""
        if self.rank is not None:
            return min(self.rank, out, into)
        if self.ratio is not None:
            # At most this share of the weight stays, and at least the asked share of the outputs.
            most = self.ratio * out * into / (out + into)
            return max(1, int(most // self._unit(most)) * self._unit(most))
        least = found.rank_for(self.energy or 0.0)
        return min(-(-least // self._unit(least)) * self._unit(least), out, into)

    def _unit(self, rank: float) -> int:
        return self.round_to if rank >= 2 * self.round_to else 1


@dataclass(frozen=True, eq=False)
class _Factors:
    """What stands in place of a weight: `[rank, in]` and `[out, rank]`; `shift` is added to the bias, `[out]`."""

    narrow: torch.Tensor
    widen: torch.Tensor
    shift: torch.Tensor | None


class LowRank:
    """Replaces `y = W x + b` by `y = U (V x) + b'`, with `U` and `V` of a lower rank.

    `U V` is the weight projected onto the directions in which its outputs vary most over calibration rows
    (`spectrum.py`); `b'` takes up what is lost at the mean of the inputs. A weight that several calls read is
    replaced once, for all of them.
    """

    def apply(self, model: Model, data: Dataset | None, ctx: Context) -> PassResult:
        """Factorises every chosen linear layer that gets cheaper by it.

        Raises:
            RecipeError: If an option is unknown or wrong.
            CompressError: If a pattern matches no layer.
        """
        options = validate(Options, dict(ctx.options), "passes: low_rank")
        module = model.program.module(check_guards=False)
        found = layers(model)
        reasons = select(found, options.include, options.exclude, "low_rank")
        for layer in found:
            if not reasons[layer.name] and layer.operator != "linear":
                reasons[layer.name] = f"{layer.operator} is no linear layer"
        chosen, skipped = chosen_weights(module, found, reasons)
        moments: dict[str, Moments] = {}
        if data is None:
            skipped.append(Skip("the inputs' variance", "there are no rows, so all inputs count alike"))
        else:
            rows = data.sample("calibration", options.rows, ctx.seed)
            moments = moments_of(module, model, data.batches_of(rows, _BATCH), chosen)
        changed: list[Change] = []
        plan: list[tuple[SharedWeight, _Factors]] = []
        for weight in chosen:
            name = weight.layers[0].name
            factors, said = _factorised(get_parameter(module, weight.name), moments.get(weight.name), options)
            if factors is None:
                skipped.append(Skip(name, said))
            else:
                plan.append((weight, factors))
                changed.append(Change(name, said))

        def edit(copy: GraphModule) -> None:
            for weight, factors in plan:
                _replace(copy, weight, factors)

        result = edited(model, edit, f"low_rank: {options.goal}") if plan else model
        return PassResult(result, tuple(changed), tuple(skipped))


def _factorised(weight: torch.Tensor, seen: Moments | None, options: Options) -> tuple[_Factors | None, str]:
    """The factors of a weight and what is to be said of them; None, and why, where they would be no cheaper."""
    out, into = weight.shape
    spread = spectrum(weight, None if seen is None else seen.covariance)
    rank = options.rank_of(spread, out, into)
    if rank * (out + into) >= out * into:
        most = -(-out * into // (out + into)) - 1
        cheaper = f"up to rank {most} is" if most else "no rank is"
        return None, f"rank {rank} of {out} x {into} is no cheaper; {cheaper}"
    narrow, widen = spread.factors(weight, rank)
    shift = None
    if seen is not None:
        shift = (weight.detach().double() - widen.double() @ narrow.double()) @ seen.mean
    share, kept = rank * (out + into) / (out * into), float(spread.energy[rank - 1])
    told = f"{out} x {into} at rank {rank}: {share:.0%} of its weights, {kept:.1%} of its outputs' variance"
    return _Factors(narrow, widen, shift), told + ("" if seen is not None else " if all inputs vary alike")


def _replace(module: GraphModule, weight: SharedWeight, factors: _Factors) -> None:
    """Writes two calls for each call of the weight; both are named after the layer."""
    first, second = (_place(module, weight.name, part) for part in ("narrow", "widen"))
    set_parameter(module, f"{first}.weight", factors.narrow)
    set_parameter(module, f"{second}.weight", factors.widen)
    biases: dict[str, str] = {}
    nodes = {node.name: node for node in module.graph.nodes}
    for layer in weight.layers:
        call = nodes[layer.node]
        old = call.args[2] if len(call.args) > 2 else None
        bias = str(old.target) if isinstance(old, Node) else ""
        if factors.shift is not None:
            if bias not in biases:
                moved = factors.shift + (get_parameter(module, bias).detach().double() if bias else 0.0)
                biases[bias] = f"{second}.bias" + "_" * len(biases)
                set_parameter(module, biases[bias], moved.to(factors.widen.dtype))
            bias = biases[bias]
        with module.graph.inserting_before(call):
            inner = module.graph.call_function(_LINEAR, (call.args[0], module.graph.get_attr(f"{first}.weight")))
            outer = (inner, module.graph.get_attr(f"{second}.weight"))
            call.args = (*outer, module.graph.get_attr(bias)) if bias else outer


def _place(module: GraphModule, weight: str, part: str) -> str:
    """Adds a module for a new layer's parameters below the layer that it is a part of, and returns its path."""
    owner, _, leaf = weight.rpartition(".")
    path = f"{owner}.{part}" if owner else f"{leaf}_{part}"
    while hasattr(module.get_submodule(owner), path.rpartition(".")[2]):
        path += "_"
    module.add_submodule(path, torch.nn.Module())
    return path

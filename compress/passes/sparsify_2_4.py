"""Weights with two zeros in every four, which GPUs of NVIDIA's Ampere and later multiply at twice the rate."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch.fx import GraphModule

from compress.data.base import Dataset
from compress.errors import InternalError
from compress.model.core import Model, state
from compress.model.edit import edited, get_parameter, set_parameter
from compress.model.layers import Layer, layers, select
from compress.passes.base import Change, Context, PassResult, Skip
from compress.passes.moments import Moments
from compress.passes.two_four import fits, fitted, is_2_4, mask_2_4
from compress.passes.weights import CONVOLUTIONS, chosen_weights, moments_of, names_of
from compress.schema import Strict, validate

_BATCH = 64
# Where it helps stands beside where it does not, in every report.
NO_CPU = Skip(
    "runtimes on a CPU",
    "they store and multiply the zeros like any other weight: neither faster nor smaller. TensorRT on an NVIDIA GPU of "
    "Ampere or later has kernels that leave them out (its builder must be told: BuilderFlag.SPARSE_WEIGHTS)",
)


class Options(Strict):
    """`[[passes]] kind = "sparsify_2_4"`.

    `importance` says which two of four stay: `wanda`, the size of the weight times the norm of its input over `rows`
    calibration rows (Sun et al. 2023, arXiv:2306.11695), or `magnitude`, the size alone. With `fit`, what stays of a
    linear layer is fitted to these rows, so that its outputs stay close. `include` and `exclude` are patterns on layer
    names.
    """

    importance: Literal["wanda", "magnitude"] = "wanda"
    fit: bool = True
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    rows: int = Field(default=256, ge=2)


class Sparsify24:
    """Zeroes two of every four neighbouring inputs of linear layers and convolutions.

    The groups lie along the inputs of an output, as sparse tensor cores want them (Mishra et al. 2021,
    arXiv:2104.08378, section 3): along `in` of `[out, in]`, and along the channels of `[out, in, height, width]`, for
    each place of the window by itself.
    """

    def apply(self, model: Model, data: Dataset | None, ctx: Context) -> PassResult:
        """Makes every chosen layer's weight 2:4, and checks that it is in the graph that leaves.

        Raises:
            RecipeError: If an option is unknown or wrong.
            CompressError: If a pattern matches no layer.
            InternalError: If a weight that should be 2:4 is not.
        """
        options = validate(Options, dict(ctx.options), "passes: sparsify_2_4")
        module = model.program.module(check_guards=False)
        found = layers(model)
        reasons = select(found, options.include, options.exclude, "sparsify_2_4")
        reasons |= {layer.name: _refusal(module, layer) for layer in found if not reasons[layer.name]}
        chosen, refused = chosen_weights(module, found, reasons)
        skipped = [NO_CPU, *refused]
        moments: dict[str, Moments] = {}
        if data is not None:
            rows = data.sample("calibration", options.rows, ctx.seed)
            moments = moments_of(module, model, data.batches_of(rows, _BATCH), chosen)
        elif chosen:
            skipped.append(Skip("the inputs' size", "there are no rows, so the size of the weights alone counts"))
        changed: list[Change] = []
        weights: dict[str, torch.Tensor] = {}
        for item in chosen:
            name, weight = item.layers[0].name, get_parameter(module, item.name).detach()
            if is_2_4(weight):
                skipped.append(Skip(name, "its weight is 2:4 already"))
                continue
            weights[item.name], said = _sparse(weight, moments.get(item.name), options)
            changed.append(Change(name, said))

        def edit(copy: GraphModule) -> None:
            for name, sparse in weights.items():
                for tied in names_of(copy, name):
                    set_parameter(copy, tied, sparse)

        if not weights:
            return PassResult(model, (), tuple(skipped))
        result = edited(model, edit, f"sparsify_2_4: {len(weights)} weights")
        held = state(result.program)
        broken = [name for name in weights if name not in held or not is_2_4(held[name])]
        if broken:
            raise InternalError(f"sparsify_2_4: the weight {broken[0]!r} of the new graph is not 2:4", "report this.")
        return PassResult(result, tuple(changed), tuple(skipped))


def _refusal(module: GraphModule, layer: Layer) -> str:
    if layer.operator != "linear" and layer.operator not in CONVOLUTIONS:
        return f"{layer.operator} is neither a linear layer nor a convolution"
    weight = get_parameter(module, layer.weight)
    return "" if fits(weight) else f"the {weight.shape[1]} inputs of an output are no multiple of 4"


def _sparse(weight: torch.Tensor, seen: Moments | None, options: Options) -> tuple[torch.Tensor, str]:
    """The sparse weight, and what is to be said of it."""
    wanda = seen is not None and options.importance == "wanda"
    mask = mask_2_4(_score(weight, seen if wanda else None))
    lost = (weight * ~mask).double().square().sum() / weight.double().square().sum()
    said = f"2:4 along its {weight.shape[1]} inputs by {'wanda' if wanda else 'magnitude'}"
    said += f"; {float(lost):.1%} of its squares went"
    if seen is None or not options.fit or weight.dim() > 2:
        return weight * mask, said
    return fitted(weight, mask, seen.second), f"{said}, the rest is fitted to the rows"


def _score(weight: torch.Tensor, seen: Moments | None) -> torch.Tensor:
    score = weight.double().abs()
    if seen is None:
        return score
    norms = seen.second.diagonal().clamp(min=0).sqrt()
    # A grouped convolution reads other channels in each group of outputs.
    groups = len(norms) // weight.shape[1]
    of_output = norms.reshape(groups, 1, -1).expand(-1, len(weight) // groups, -1).reshape(len(weight), -1)
    return score * of_output.reshape(*of_output.shape, *[1] * (weight.dim() - 2))

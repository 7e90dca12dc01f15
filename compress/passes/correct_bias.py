"""Bias correction: what rounding shifts on average is put back into the bias, found on calibration rows."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch.fx import GraphModule, Interpreter, Node

from compress.calibrate import Method, Ranges, calibrate
from compress.calibrate.fake import channel_axis, fake_activation, fake_weight, output_axis
from compress.data.base import Dataset
from compress.errors import InternalError
from compress.model.core import Model, state
from compress.model.edit import edited, get_parameter, own_bias, set_parameter
from compress.model.layers import MULTIPLYING, Layer, layers, select
from compress.model.watch import held_arguments
from compress.passes.base import Change, Context, PassResult, Skip
from compress.passes.rows import calibration_batches
from compress.recipe import CalibrationMethod
from compress.schema import Strict, validate

_WITH_BIAS = {"linear", "conv1d", "conv2d", "conv3d"}


class Options(Strict):
    """Options of the pass: the integers that will be used, the ranges, and which layers are quantized.

    `activations` is `static` where inputs become 8-bit integers by ranges that `method` finds on `rows` calibration
    rows, `none` where only weights are rounded.
    """

    bits: int = Field(default=8, ge=2, le=8)
    granularity: Literal["channel", "tensor"] = "channel"
    activations: Literal["static", "none"] = "static"
    method: CalibrationMethod = "min-max"
    rows: int = Field(default=512, ge=1)
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()


class CorrectBias:
    """Adds `E[y] - E[y']` to a layer's bias, channel by channel; `y'` is what the rounded layer gives.

    The graph and a copy of it with rounded weights and inputs run the same batch in step. Behind each layer the
    difference of the channels' means is measured and at once added in the copy, so that a later layer sees what it
    will see when all are corrected (Nagel et al. 2019, arXiv:1906.04721, section 4.2, in its empirical form of
    appendix D). Corrections of batches are averaged; memory is that of two of them.
    """

    def apply(self, model: Model, data: Dataset | None, ctx: Context) -> PassResult:
        """Corrects every chosen layer that has, or can have, a bias.

        Raises:
            RecipeError: If an option is unknown or wrong.
            CompressError: If a pattern matches no layer.
            PassError: If there are no rows.
        """
        options = validate(Options, dict(ctx.options), "passes: correct_bias")
        found = [layer for layer in layers(model) if layer.operator in MULTIPLYING]
        reasons = select(layers(model), options.include, options.exclude, "passes: correct_bias")
        chosen = {layer.node: layer for layer in found if not reasons[layer.name]}
        skipped = [Skip(layer.name, reasons[layer.name]) for layer in found if reasons[layer.name]]
        if not chosen:
            return PassResult(model, (), tuple(skipped))
        ranges = None
        if options.activations == "static":
            batches = calibration_batches(model, data, options.rows, ctx, "correct_bias")
            ranges = calibrate(model, batches, Method(options.method))
        twins = _Twins(model, chosen, ranges, options)
        for batch in calibration_batches(model, data, options.rows, ctx, "correct_bias"):
            user = iter(model.arguments(batch))
            with torch.no_grad():
                twins.run(*(next(user) if value is None else value for value in held_arguments(model)))
        shifts = {name: total / twins.batches for name, total in twins.shifts.items()}
        changed: list[Change] = []

        def edit(module: GraphModule) -> None:
            by_name = {node.name: node for node in module.graph.nodes}
            for name, shift in shifts.items():
                layer = chosen[name]
                if layer.operator not in _WITH_BIAS:
                    skipped.append(Skip(layer.name, f"{layer.operator} takes no bias"))
                    continue
                bias = own_bias(module, by_name[name], add=True)
                if bias is None:
                    raise InternalError(f"the layer {layer.name!r} was given no bias", "")
                value = get_parameter(module, bias)
                set_parameter(module, bias, (value.double() + shift).to(value.dtype))
                changed.append(Change(layer.name, f"bias moved by up to {float(shift.abs().max()):.3g}"))

        result = edited(model, edit, f"correct_bias: {options.bits} bits")
        return PassResult(result if changed else model, tuple(changed), tuple(skipped))


class _Twins(Interpreter):
    """Runs a graph twice in step: `env` as it is, `rounded` with the chosen layers rounded and corrected on the way."""

    def __init__(self, model: Model, chosen: dict[str, Layer], ranges: Ranges | None, options: Options) -> None:
        super().__init__(model.program.graph_module)
        self._chosen, self._ranges = chosen, ranges
        self._rounded: dict[Node, Any] = {}
        tensors = state(model.program)
        self._weights = {
            layer.node: fake_weight(
                tensors[layer.weight].detach(),
                options.bits,
                output_axis(layer) if options.granularity == "channel" else None,
            )
            for layer in chosen.values()
        }
        self.shifts: dict[str, torch.Tensor] = {}
        self.batches = 0

    def run(self, *arguments: Any, **others: Any) -> Any:
        self._rounded = {}
        self.batches += 1
        return super().run(*arguments, **others)

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        self._rounded[n] = self._twin(n, value)
        for dead in self.user_to_last_uses.get(n, []):
            self._rounded.pop(dead, None)
        return value

    def _twin(self, node: Node, value: Any) -> Any:
        if node.op in ("placeholder", "get_attr"):
            return value
        arguments = torch.fx.node.map_arg(node.args, lambda item: self._rounded[item])
        keywords = torch.fx.node.map_arg(node.kwargs, lambda item: self._rounded[item])
        if node.op == "output":
            return arguments[0]
        layer = self._chosen.get(node.name)
        if layer is None:
            return getattr(self, node.op)(node.target, tuple(arguments), dict(keywords))
        given = [self._round(layer, item, place) for place, item in enumerate(arguments)]
        answer = self.call_function(node.target, tuple(given), dict(keywords))
        axis = channel_axis(layer) % answer.dim()
        others = [place for place in range(answer.dim()) if place != axis]
        shift = value.mean(dim=others, dtype=torch.float64) - answer.mean(dim=others, dtype=torch.float64)
        self.shifts[node.name] = self.shifts.get(node.name, torch.zeros_like(shift)) + shift
        shape = [1] * answer.dim()
        shape[axis] = -1
        return answer + shift.to(answer.dtype).reshape(shape)

    def _round(self, layer: Layer, item: Any, place: int) -> Any:
        """A layer's argument as the integer kernel sees it: the weight rounded, and the input where it is static."""
        at_weight = 2 if layer.operator == "addmm" else 1
        if place == at_weight:
            return self._weights[layer.node]
        if place == at_weight - 1 and self._ranges is not None:
            return fake_activation(item, *self._ranges.of(layer.input))
        return item

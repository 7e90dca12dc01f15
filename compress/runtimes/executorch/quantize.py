"""Schemes on a graph for ExecuTorch, through PT2E, with our ranges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from compress.calibrate import Ranges
from compress.errors import InternalError
from compress.model.core import Model, state
from compress.model.joins import joins
from compress.model.layers import Layer, layers
from compress.recipe import QuantScheme
from compress.registry import require
from compress.runtimes.base import Joined, Lowered, Part, Placed, carried, chosen, outcomes
from compress.runtimes.executorch.export import prepared, told
from compress.runtimes.executorch.program import BACKEND, Lowering, failing, place, to_edge
from compress.runtimes.executorch.steps import fit, value_steps, weight_steps
from compress.runtimes.quiet import quiet

# Axis of the output channels in the weights of those layers that the backend multiplies as integers.
_AXES = {"linear": 0, "conv1d": 0, "conv2d": 0, "conv_transpose2d": 1}


def quantize(lowered: Lowered, scheme: QuantScheme, ranges: Ranges | None) -> Lowered:
    """Realises a scheme, on linear layers, convolutions, and the sums between convolutions.

    What the backend refuses once it is quantized is left in float, and told. Its integer kernels give the same answers
    on every CPU, so a target's processor changes nothing.

    Raises:
        LoweringError: If nothing can be quantized or ExecuTorch fails.
    """
    model = lowered.graph
    if not isinstance(model, Model):
        raise InternalError("quantizing for ExecuTorch without the graph", "")
    why_not: dict[str, str] = {}
    if scheme.needs_ranges and ranges is None:
        raise InternalError("static quantization without ranges", "")
    groups = {layer.name: _groups(model, layer) for layer in layers(model)}

    def refusal(item: Placed, use: QuantScheme) -> str:
        return why_not.get(item.layer.name) or _refusal(item, use, groups[item.layer.name])

    require("torchao.quantization.pt2e", why="int8 for ExecuTorch")
    with quiet(), failing(f"ExecuTorch failed on {scheme.name!r}"):
        while True:
            parts, reasons = chosen(lowered, scheme, refusal)
            lowering, weights = _run(lowered, model, parts, ranges)
            refused = {
                name: lowering.refused.get(weight) or f"{BACKEND} did not take it with integers"
                for name, weight in weights.items()
                if weight in lowering.outside
            }
            if not refused:
                break
            why_not |= refused
        data = lowering.data(model)
    found = [item.layer for item in lowered.placed]
    homes = place(lowering, [(layer, weights.get(layer.name, layer.weight)) for layer in found])
    placed = tuple(replace(item, node=home) for item, home in zip(lowered.placed, homes, strict=True))
    made = replace(lowered, data=data, placed=placed, graph=None)
    notes = [note for part in parts for note in _notes(part.scheme, ranges)]
    return replace(
        made,
        outcomes=outcomes(made, parts, reasons),
        notes=(*dict.fromkeys(notes), *told(lowering)),
        arithmetic="int8",
    )


def _run(
    lowered: Lowered, model: Model, parts: Sequence[Part], ranges: Ranges | None
) -> tuple[Lowering, dict[str, str]]:
    """Lowers with integers in the layers of some parts; gives layer -> full name of its integer weight, too."""
    from compress.runtimes.executorch.annotate import Chosen, insert

    tensors = state(model.program)
    static = [item for part in parts if part.scheme.activations == "static" for item in part.layers]
    joined = _joined(model, static)
    sums = [name for join in joined for name in (*join.inputs, join.output)]
    values = value_steps(static, sums, ranges) if ranges is not None else {}
    wanted = []
    for part in parts:
        dynamic = part.scheme.activations == "dynamic"
        for item in part.layers:
            axis = _AXES[item.layer.operator]
            steps = weight_steps(tensors[item.layer.weight], axis=axis, shared=part.scheme.granularity == "tensor")
            if not dynamic:
                steps = fit(item, tensors, steps, values, item.layer.input, item.output)
            wanted.append(Chosen(item, steps, axis, dynamic))
    module, weights = insert(prepared(model), wanted, joined, values)
    return to_edge(module, model), weights


def _joined(model: Model, static: Sequence[Placed]) -> tuple[Joined, ...]:
    """Sums that run on integers: between convolutions that do."""
    known = {
        join.node: Joined(join.node, "add", join.inputs, join.output, (), join.fused)
        for join in joins(model)
        if len(join.inputs) == 2 and len(set(join.inputs)) == 2
    }
    made = {item.output for item in static if "conv" in item.layer.operator}
    return carried(tuple(known.values()), made, {item.layer.input for item in static})


def _refusal(item: Placed, scheme: QuantScheme, groups: int) -> str:
    """Why a layer cannot become what the scheme asks for."""
    layer = item.layer
    if not item.node.startswith(BACKEND):
        return f"{BACKEND} did not take it: {item.node} runs on a portable kernel"
    if layer.operator not in _AXES:
        return f"{BACKEND} multiplies no integers in a {layer.operator}"
    if layer.operator == "conv_transpose2d" and groups != 1:
        return f"{BACKEND} has no integer kernel for a transposed convolution in groups"
    if scheme.activations == "dynamic" and "conv" in layer.operator:
        if layer.operator not in ("conv2d", "conv_transpose2d"):
            return f"{BACKEND} has no dynamic {layer.operator}"
        if layer.operator == "conv2d" and layer.shape[1] == 1:
            return f"{BACKEND} has no dynamic depthwise convolution"
    return ""


def _groups(model: Model, layer: Layer) -> int:
    """Of a transposed convolution: into how many it is divided; 1 of any other layer."""
    if not layer.operator.startswith("conv_transpose"):
        return 1
    node = next(node for node in model.program.graph.nodes if node.name == layer.node)
    return int(node.args[6]) if len(node.args) > 6 and isinstance(node.args[6], int) else 1


def _notes(scheme: QuantScheme, ranges: Ranges | None) -> tuple[str, ...]:
    static = scheme.activations == "static"
    found = f"ranges: {ranges.source}" if ranges and static else "ranges found at run time, a row at a time"
    return (f"weights int8 per {scheme.granularity}", f"activations int8, {found}")

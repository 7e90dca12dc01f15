"""From the graph to a float32 `.tflite`, with the table of where each layer went."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.errors import LoweringError
from compress.model.core import Model, state
from compress.model.layers import NORMALIZED, Layer, layers, norm_scales
from compress.registry import require
from compress.runtimes.base import Lowered, Placed, cause_of, refuse_shared
from compress.runtimes.litert.flatbuffer import LOOK_UPS, WEIGHTED, code, constant, fused_activation, read, text, write
from compress.runtimes.litert.joined import find_joined
from compress.runtimes.quiet import quiet


def export(model: Model) -> Lowered:
    """Converts a Model. Every tensor gets a unique name; a layer's output carries the layer's name.

    Raises:
        LoweringError: If an operator cannot be converted.
        MissingPackageError: If litert-torch or ai-edge-quantizer are not installed.
    """
    with quiet():
        litert_torch = require("litert_torch", why="LiteRT targets")
        require("ai_edge_quantizer", why="LiteRT targets")
        try:
            converted = litert_torch.convert(model.program.module(check_guards=False), model.example(rows=1))
            flat = read(converted.model_content())
        except Exception as error:
            raise LoweringError(
                f"LiteRT conversion failed: {cause_of(error)}",
                "replace that operator in the model, or leave this target out.",
            ) from error
    _check_outputs(flat, model)
    _name_signature(flat, model)
    found, missing = _place(model, flat)
    _name_tensors(flat, {position: match.layer.name for position, match in found.items()})
    graph = flat.subgraphs[0]
    placed = {}
    for position, match in found.items():
        operator = graph.operators[position]
        name, at = WEIGHTED[code(flat, operator)]
        at_input = 1 - at if name in LOOK_UPS else 0
        clip = fused_activation(operator)
        placed[position] = Placed(
            layer=match.layer,
            node=name,
            input=text(graph.tensors[operator.inputs[at_input]].name),
            output=text(graph.tensors[operator.outputs[0]].name),
            fused=clip is not None and match.layer.fused is not None,
            gain=match.gain,
            shift=_shift(model, flat, operator, match),
            clip=clip if match.layer.fused is None else None,
            reads=match.reads,
        )
    return Lowered(
        data=write(flat),
        suffix=".tflite",
        inputs=tuple(item.name for item in model.signature.inputs),
        outputs=tuple(item.name for item in model.signature.outputs),
        placed=tuple(placed.values()),
        missing=missing,
        joined=find_joined(model, flat, placed),
    )


def _check_outputs(flat: Any, model: Model) -> None:
    graph, names = flat.subgraphs[0], model.signature
    refuse_shared(
        zip(map(int, graph.inputs), (item.name for item in names.inputs), strict=False),
        zip(map(int, graph.outputs), (item.name for item in names.outputs), strict=True),
        "LiteRT conversion failed",
    )


def _name_signature(flat: Any, model: Model) -> None:
    """Gives the signature the Model's names; the converter calls inputs `args_0`, `args_1`."""
    graph = flat.subgraphs[0]
    definition = flat.signatureDefs[0]
    for entry in definition.inputs:
        number = int(re.sub(r"\D", "", text(entry.name)) or 0)
        entry.name = model.signature.inputs[number].name.encode()
    order = {int(index): position for position, index in enumerate(graph.outputs)}
    for entry in definition.outputs:
        entry.name = model.signature.outputs[order[int(entry.tensorIndex)]].name.encode()
    for entry in (*definition.inputs, *definition.outputs):
        graph.tensors[entry.tensorIndex].name = entry.name


@dataclass(frozen=True)
class _Match:
    """A layer that was found: the constant factor of its weight, and the value that it now reads."""

    layer: Layer
    gain: float
    reads: str = ""


def _place(model: Model, flat: Any) -> tuple[dict[int, _Match], tuple[tuple[Layer, str], ...]]:
    """Finds each layer's operator by the content of its weight, calls of one weight in order.

    The converter may multiply a weight by a constant that follows it (attention's scale); such a weight matches
    up to that gain. It may also multiply a weight by the scale of the layer normalisation before it; the operator then
    reads the normalised value itself.
    """
    tensors = state(model.program)
    scales = norm_scales(model.program)
    operators: list[tuple[int, str, NDArray[np.float32]]] = []
    for position, operator in enumerate(flat.subgraphs[0].operators):
        known = WEIGHTED.get(code(flat, operator))
        if known is None:
            continue
        weight = constant(flat, operator.inputs[known[1]])
        if weight is not None:
            operators.append((position, known[0], weight))
    found: dict[int, _Match] = {}
    missing: list[tuple[Layer, str]] = []
    for layer in layers(model):
        weight = tensors[layer.weight].detach().float().numpy()
        forms = [("", _layouts(weight))]
        if layer.input in scales and layer.operator == "linear":
            scale = tensors[scales[layer.input]].detach().float().numpy()
            forms.append((layer.input + NORMALIZED, _layouts(weight * scale)))
        matches = [
            (position, _Match(layer, gain, reads))
            for reads, layouts in forms
            for position, kind, held in operators
            if position not in found
            and (kind in LOOK_UPS) == (layer.operator == "embedding")
            and (gain := _gain(held, layouts)) is not None
        ]
        if matches:
            # Weights of one shape that are multiples of each other (constants, single numbers): the equal one is it.
            position, match = next((item for item in matches if item[1].gain == 1), matches[0])
            found[position] = match
        else:
            missing.append((layer, "the converter folded it into other operators"))
    return dict(sorted(found.items())), tuple(missing)


def _shift(model: Model, flat: Any, operator: Any, match: _Match) -> tuple[float, float]:
    """The smallest and the largest constant that the converter added to a bias: a hard sigmoid's 3, for instance.

    A layer that reads a normalised value has that value's shift in its bias, and gives what it gave.
    """
    inputs = [int(index) for index in operator.inputs]
    if match.reads or match.layer.operator == "embedding" or len(inputs) < 3 or inputs[2] < 0:
        return 0.0, 0.0
    held = constant(flat, inputs[2])
    if held is None:
        return 0.0, 0.0
    own = state(model.program)[match.layer.bias].detach().float().numpy() if match.layer.bias else np.float32(0)
    added = held - np.float32(match.gain) * own
    if np.abs(added).max() <= 1e-5 * max(1.0, np.abs(held).max()):
        return 0.0, 0.0
    return float(added.min()), float(added.max())


def _layouts(weight: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """The orders in which a converter may write a weight: as it is, channels last, depthwise, transposed."""
    result = [weight.reshape(-1)]
    if weight.ndim == 2:
        result.append(weight.T.reshape(-1))
    if weight.ndim > 2:
        result.append(np.moveaxis(weight, 1, -1).reshape(-1))
        result.append(np.moveaxis(weight[:, 0], 0, -1).reshape(-1) if weight.shape[1] == 1 else result[-1])
    return result


def _gain(found: NDArray[np.float32], layouts: list[NDArray[np.float32]]) -> float | None:
    """Returns the factor between a found weight and one of the layouts, None where they differ otherwise."""
    for layout in layouts:
        if found.size != layout.size:
            return None
        peak = int(np.argmax(np.abs(layout)))
        if layout[peak] == 0 or found[peak] == 0:
            if np.array_equal(found, layout):
                return 1.0
            continue
        gain = float(found[peak]) / float(layout[peak])
        if gain > 0 and np.allclose(found, layout * np.float32(gain), rtol=1e-5, atol=1e-6 * abs(float(found[peak]))):
            return 1.0 if abs(gain - 1) < 1e-6 else gain
    return None


def _name_tensors(flat: Any, names: dict[int, str]) -> None:
    """Names every tensor: signature names stay, layer outputs take the layer's name, the rest are numbered.

    The quantizer finds operators and ranges by name, and refuses a name that exists twice: a layer is often called
    like the output that it leads to. The converter's names are neither unique nor of one layer.
    """
    graph = flat.subgraphs[0]
    kept = {int(index) for index in (*graph.inputs, *graph.outputs)}
    wanted = {index: f"tensor_{index}" for index in range(len(graph.tensors))}
    wanted |= {int(graph.operators[position].outputs[0]): name for position, name in names.items()}
    taken = {text(graph.tensors[index].name) for index in kept}
    for index, name in wanted.items():
        if index in kept:
            continue
        while name in taken:
            name += "_"
        taken.add(name)
        graph.tensors[index].name = name.encode()

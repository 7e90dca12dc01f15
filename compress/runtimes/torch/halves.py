"""Layers in half precision: weights stored as halves, products of halves, everything between layers in float32."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import torch

from compress.errors import LoweringError
from compress.model.edit import edited, get_parameter, set_parameter
from compress.model.pt2 import load_pt2
from compress.recipe import QuantScheme
from compress.runtimes.base import Lowered, Part, chosen, outcomes
from compress.target import Target

_CAST = torch.ops.aten.to.dtype


def quantize(lowered: Lowered, scheme: QuantScheme, target: Target) -> Lowered:
    """Realises `float16` on the layers that a scheme chooses.

    Raw features, normalisation and softmax keep float32: a raw amount may be larger than a half can hold (65504).

    Raises:
        LoweringError: On a CPU, for another scheme, or where nothing is chosen.
    """
    if scheme.dtype != "float16" or scheme.rules:
        raise LoweringError(
            "torch has no integers here: its own are reached through other runtimes' files",
            "leave the scheme out of the target's own schemes; executorch has PyTorch's int8 kernels for CPUs.",
        )
    if target.provider != "cuda":
        raise LoweringError(
            "torch multiplies halves several times slower than floats on a CPU",
            'leave float16 out of the target\'s own schemes, or use a target with provider = "cuda".',
        )
    parts, reasons = chosen(lowered, scheme, lambda item, use: "")
    with tempfile.TemporaryDirectory(prefix="edge-compress-") as folder:
        path = Path(folder) / "model.pt2"
        path.write_bytes(lowered.data)
        model = load_pt2(path, lowered.outputs)
    wanted = {item.node for part in parts for item in part.layers}
    halved = edited(model, lambda module: _halve_all(module, wanted), "float16")
    return replace(
        lowered,
        data=halved.to_bytes(shipped=True),
        outcomes=outcomes(lowered, [Part(part.scheme, part.layers) for part in parts], reasons),
        notes=("layers store and multiply halves, what is between them stays float32",),
    )


def _halve_all(module: torch.fx.GraphModule, wanted: Collection[str]) -> None:
    for node in list(module.graph.nodes):
        if node.name in wanted:
            _halve(module, node)


def _halve(module: torch.fx.GraphModule, node: torch.fx.Node) -> None:
    """Gives a layer halves to read, and what reads the layer floats."""
    arguments = list(node.args)
    with module.graph.inserting_before(node):
        for position, value in enumerate(arguments):
            if not isinstance(value, torch.fx.Node):
                continue
            if value.op == "get_attr":
                arguments[position] = module.graph.get_attr(_half_of(module, str(value.target)))
            elif (held := value.meta.get("val")) is None or held.is_floating_point():
                # Only a cast back from the layer before has no value noted on it.
                arguments[position] = module.graph.call_function(_CAST, (value, torch.float16))
    node.args = tuple(arguments)
    with module.graph.inserting_after(node):
        back = module.graph.call_function(_CAST, (node, torch.float32))
    node.replace_all_uses_with(back, delete_user_cb=lambda user: user is not back)


def _half_of(module: torch.nn.Module, name: str) -> str:
    """The name of a parameter's copy in half precision, made where it is not there: a weight may have two readers."""
    owner, _, leaf = name.rpartition(".")
    half = f"{leaf}_half"
    if not hasattr(module.get_submodule(owner), half):
        set_parameter(module, f"{owner}.{half}" if owner else half, get_parameter(module, name).detach().half())
    return f"{owner}.{half}" if owner else half

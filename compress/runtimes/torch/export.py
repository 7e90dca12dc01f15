"""The archive of a Model, with the table of where each layer is: under its own name."""

from __future__ import annotations

from compress.model.core import Model
from compress.model.layers import layers
from compress.runtimes.base import Lowered, Placed


def export(model: Model) -> Lowered:
    """Returns the archive. Nothing is converted, so every layer is found where the graph has it."""
    return Lowered(
        data=model.to_bytes(shipped=True),
        suffix=".pt2",
        inputs=tuple(item.name for item in model.signature.inputs),
        outputs=tuple(item.name for item in model.signature.outputs),
        placed=tuple(
            Placed(layer=layer, node=layer.node, input=layer.input, output=layer.node) for layer in layers(model)
        ),
    )

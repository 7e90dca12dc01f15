"""ExecuTorch: lowering to `.pte` for its XNNPACK backend, int8 through PT2E, with ranges that are given to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a file can be inspected without torch
    from compress.calibrate import Ranges
    from compress.model.core import Model
    from compress.recipe import QuantScheme
    from compress.runtimes.base import Lowered
    from compress.target import Target

__all__ = ["ExecuTorch"]


class ExecuTorch:
    """The lowering for ExecuTorch on CPUs. The file takes one row at a time: what a phone scores.

    There is no float16: the backend converts no number from one float type to another, so that every such layer would
    be a part of its own, and stores the weights of float16 convolutions as float32.
    """

    name = "executorch"
    schemes = frozenset({("int8", "static"), ("int8", "dynamic")})

    def lower(self, model: Model) -> Lowered:
        """Returns the float32 `.pte` file, batch 1. It holds the graph too, which `quantize` needs."""
        from compress.runtimes.executorch.export import export

        return export(model)

    def quantize(self, lowered: Lowered, scheme: QuantScheme, ranges: Ranges | None, target: Target) -> Lowered:
        """Returns the file with the scheme realised."""
        from compress.runtimes.executorch.quantize import quantize

        return quantize(lowered, scheme, ranges)

"""PyTorch: the exported program itself, the reference beside which other runtimes stand."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # imported when a Model is lowered
    from compress.calibrate import Ranges
    from compress.model.core import Model
    from compress.recipe import QuantScheme
    from compress.runtimes.base import Lowered
    from compress.target import Target

__all__ = ["Torch"]


class Torch:
    """The lowering for PyTorch, eager or compiled where it runs: the graph as it is, in a `.pt2` archive.

    It offers no integers: PyTorch's own integer kernels are reached through other runtimes' files (see ExecuTorch).
    """

    name = "torch"
    schemes = frozenset({("float16", "none")})

    def lower(self, model: Model) -> Lowered:
        """Returns the float32 `.pt2` archive, dynamic batch, with the Model's names."""
        from compress.runtimes.torch.export import export

        return export(model)

    def quantize(self, lowered: Lowered, scheme: QuantScheme, ranges: Ranges | None, target: Target) -> Lowered:
        """Returns the archive with its layers in half precision; only for a GPU."""
        from compress.runtimes.torch.halves import quantize

        return quantize(lowered, scheme, target)

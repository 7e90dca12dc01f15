"""TensorRT: our `.onnx` in the form that it takes; the engine is built where it runs, by a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # imported when a Model is lowered
    from compress.calibrate import Ranges
    from compress.model.core import Model
    from compress.recipe import QuantScheme
    from compress.runtimes.base import Lowered
    from compress.target import Target

__all__ = ["TensorRt"]


class TensorRt:
    """The lowering for TensorRT 10 and newer: types stand in the file, and TensorRT keeps to them.

    `lower` and `quantize` give `.onnx` files, which any machine can make and check. An engine is for one GPU and one
    version of TensorRT, so that the workflow lets a worker on the target's host build it out of them.
    """

    name = "tensorrt"
    schemes = frozenset({("float16", "none"), ("int8", "static")})

    def lower(self, model: Model) -> Lowered:
        """Returns the float32 `.onnx` file, dynamic batch."""
        from compress.runtimes.onnxruntime.export import export

        return export(model)

    def quantize(self, lowered: Lowered, scheme: QuantScheme, ranges: Ranges | None, target: Target) -> Lowered:
        """Returns the `.onnx` file with the scheme written into it: half types, or int8 by pairs around values."""
        from compress.runtimes.onnxruntime.quantize import quantize

        return quantize(lowered, scheme, ranges, target)

    def check(self, lowered: Lowered) -> None:
        """Refuses what TensorRT would refuse, before anybody waits for a build.

        Raises:
            LoweringError: Naming each operator, where it is, and why.
        """
        from compress.runtimes.tensorrt.network import check

        check(lowered.data)

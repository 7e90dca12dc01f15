"""ONNX Runtime: export to `.onnx`, float16 storage, int8 through its QDQ and dynamic quantizers; `.ort` for phones."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a file can be inspected without torch
    from compress.calibrate import Ranges
    from compress.model.core import Model
    from compress.model.onnx_file import OnnxFile
    from compress.recipe import QuantScheme
    from compress.runtimes.base import Lowered
    from compress.target import Target

__all__ = ["OnnxRuntime"]


class OnnxRuntime:
    """The lowering for ONNX Runtime's CPU provider."""

    name = "onnxruntime"
    schemes = frozenset(
        {
            ("float16", "none"),
            ("int8", "static"),
            ("int8", "dynamic"),
            ("int8", "none"),
            ("int4", "none"),
            ("int4", "dynamic"),
        }
    )

    def lower(self, model: Model) -> Lowered:
        """Returns the float32 `.onnx` file, opset 20, dynamic batch."""
        from compress.runtimes.onnxruntime.export import export

        return export(model)

    def take(self, model: OnnxFile) -> Lowered:
        """Returns a file that cannot become a Model as it is, with the layers that can be found in it."""
        from compress.runtimes.onnxruntime.direct import take

        return take(model)

    def quantize(self, lowered: Lowered, scheme: QuantScheme, ranges: Ranges | None, target: Target) -> Lowered:
        """Returns the file with the scheme realised, and attention fused where the target allows it."""
        from compress.runtimes.onnxruntime.fuse import fuse
        from compress.runtimes.onnxruntime.quantize import quantize

        fused = fuse(lowered) if target.fusion else lowered
        made = quantize(fused, scheme, ranges, target)
        return replace(made, notes=(*made.notes, *fused.notes[len(lowered.notes) :]))

    def finish(self, lowered: Lowered, target: Target) -> Lowered:
        """Returns the file in the format that the target ships."""
        from compress.runtimes.onnxruntime.ort_format import to_ort

        return to_ort(lowered, target) if target.format == "ort" else lowered

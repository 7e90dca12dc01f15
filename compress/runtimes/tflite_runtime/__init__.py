"""tflite-runtime 2.14: LiteRT's files in the interpreter of devices that were set up before LiteRT."""

from __future__ import annotations

from compress.runtimes.litert import LiteRt
from compress.runtimes.tflite_runtime.kernels import INTERPRETER

__all__ = ["TfliteRuntime"]


class TfliteRuntime(LiteRt):
    """The lowering is LiteRT's; a file that needs what this interpreter has not is refused here, not on the device."""

    name = "tflite_runtime"
    # Its DEQUANTIZE knows no 4-bit integers.
    schemes = LiteRt.schemes - {("int4", "none")}
    interpreter = INTERPRETER

"""TensorFlow Lite files in tflite-runtime, the interpreter of devices that were set up before LiteRT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tflite_runtime import __version__
from tflite_runtime.interpreter import Interpreter

from .tflite_session import TfliteSession


class TfliteRuntimeSession(TfliteSession):
    """One `.tflite` file in tflite-runtime. It has no profiler."""

    title = f"tflite-runtime {__version__}"

    def _open(self, artifact: Path, threads: int) -> Any:
        return Interpreter(model_path=str(artifact), num_threads=threads)

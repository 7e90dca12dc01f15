"""Which reader describes which kind of file that a runtime opens."""

from __future__ import annotations

import importlib
from pathlib import Path

from compress.model.fileinfo import FileInfo

# Kind, as `compress.model.screen.sniff` tells it -> the function; its module is imported when it is called.
READERS = {
    "onnx": "compress.runtimes.onnxruntime.inspect:describe_onnx",
    "ort": "compress.runtimes.onnxruntime.inspect_ort:describe_ort",
    "tflite": "compress.runtimes.litert.inspect:describe_tflite",
    "pte": "compress.runtimes.executorch.inspect:describe_pte",
}


def describe_file(path: Path, kind: str) -> FileInfo:
    """Describes a file of one of the kinds in `READERS` without running it.

    Raises:
        UnsafeFileError: If it claims bytes outside of its folder.
        ModelError: If it is damaged.
        MissingPackageError: If the package that reads its kind is not installed.
    """
    module, _, function = READERS[kind].partition(":")
    found: FileInfo = getattr(importlib.import_module(module), function)(path)
    return found

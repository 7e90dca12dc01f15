"""An `.onnx` file as a message: bounded, parsed, of a version that is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from compress.errors import ModelError
from compress.model.fileinfo import read_bounded
from compress.model.onnx_beside import text
from compress.registry import require

MIN_OPSET = 11
MAX_OPSET = 22
EXPORT_AGAIN = "export or copy the model again; the file is damaged, or no ONNX model."
STANDARD_DOMAINS = ("", "ai.onnx")


def read_model(path: Path) -> Any:
    """Returns the ModelProto of a file of at most 2 GiB.

    Raises:
        ModelError: If it is missing, too long, no ONNX model, or of an opset that is not known.
        MissingPackageError: If onnx is not installed.
    """
    onnx = require("onnx", why="reading .onnx files")
    decode_error = require("google.protobuf.message").DecodeError
    data, _ = read_bounded(path)
    try:
        model = onnx.ModelProto.FromString(data)
    except (decode_error, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: it cannot be read as ONNX: {str(error)[:200]}", EXPORT_AGAIN) from error
    if not model.ir_version or not model.graph.output:
        raise ModelError(f"{path}: it holds no ONNX graph", EXPORT_AGAIN)
    _check_opset(model, path)
    return model


def opset_of(model: Any) -> int:
    """Returns the version of the standard operators that a model asks for; 0 where it asks for none."""
    return max((int(item.version) for item in model.opset_import if text(item.domain) in STANDARD_DOMAINS), default=0)


def _check_opset(model: Any, path: Path) -> None:
    opset = opset_of(model)
    if not MIN_OPSET <= opset <= MAX_OPSET:
        raise ModelError(
            f"{path}: it is written in opset {opset}; the versions {MIN_OPSET} to {MAX_OPSET} can be imported",
            f"export it again with opset_version {MIN_OPSET} to {MAX_OPSET}, or use onnx.version_converter.",
        )

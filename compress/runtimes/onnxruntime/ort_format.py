"""`.ort`: an `.onnx` that is optimised already, in the form that builds of ONNX Runtime for phones read."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from compress.errors import LoweringError
from compress.evidence import LayerOutcome
from compress.model.fileinfo import FileInfo
from compress.registry import require
from compress.runtimes.base import Lowered, cause_of
from compress.runtimes.onnxruntime.inspect import describe_onnx
from compress.runtimes.onnxruntime.inspect_ort import describe_ort
from compress.runtimes.quiet import quiet
from compress.target import Target

# What a build of ONNX Runtime must have to run the file, for its `--include_ops_by_config`.
OPERATORS_SUFFIX = ".required_operators.config"
_WIDENED = "weights that are only stored smaller are float32 again when the file is converted"


def to_ort(lowered: Lowered, target: Target) -> Lowered:
    """Converts a file with ONNX Runtime's own tool, which applies all optimisations of its processor's family.

    For `arm` the file runs on every processor; for `amd64` convolutions are laid out for processors like this one. The
    order of what lies in the file is not always the same.

    Whatever the tool can compute, it does: weights that are only stored smaller become float32 again, and would be
    widened at every call if they did not. Such layers are told, and a file in which all are lost is refused.

    Raises:
        LoweringError: If ONNX Runtime refuses the file, or nothing of its scheme is left.
    """
    if lowered.beside:
        raise LoweringError(
            f"an .ort file is one file; the weights of this model ({lowered.size_bytes:,} bytes) lie beside it",
            'set format = "onnx", or leave it out.',
        )
    tool = require("onnxruntime.tools.convert_onnx_models_to_ort", why="the .ort format")
    with tempfile.TemporaryDirectory(prefix="edge-compress-") as folder:
        path = Path(folder) / f"model{lowered.suffix}"
        path.write_bytes(lowered.data)
        try:
            with quiet():
                tool.convert_onnx_models_to_ort(
                    path, optimization_styles=[tool.OptimizationStyle.Fixed], target_platform=target.target_platform
                )
            made = path.with_suffix(".ort")
            data = made.read_bytes()
            operators = path.with_suffix(OPERATORS_SUFFIX).read_text(encoding="utf-8")
        except Exception as error:  # onnxruntime's own exceptions share no base class
            raise LoweringError(
                f"the file cannot be converted to .ort: {cause_of(error)}", 'set format = "onnx", or leave it out.'
            ) from error
        outcomes = _outcomes(lowered, path, made)
    # The tool's own comment names the folder of this moment.
    kept = [line for line in operators.splitlines() if line and not line.startswith("#")]
    return replace(
        lowered,
        data=data,
        suffix=".ort",
        outcomes=outcomes,
        texts=((OPERATORS_SUFFIX, "\n".join(kept) + "\n"),),
        notes=(*lowered.notes, _note(target)),
    )


def _outcomes(lowered: Lowered, onnx: Path, ort: Path) -> tuple[LayerOutcome, ...]:
    """The layer table, with those layers in float32 whose smaller weights are not in the file any more."""
    claimed = {item.precision for item in lowered.outcomes} - {"float32"}
    if not claimed:
        return lowered.outcomes
    before, after = describe_onnx(onnx, _no_shapes), describe_ort(ort, _no_shapes)
    lost = {name for name in claimed if _elements(after, name) < _elements(before, name) / 2}
    if lost == claimed:
        raise LoweringError(f"an .ort file cannot hold it: {_WIDENED}", "leave the scheme out on this target.")
    return tuple(
        replace(item, precision="float32", reason=_WIDENED) if item.precision in lost else item
        for item in lowered.outcomes
    )


def _no_shapes(what: str, data: bytes) -> None:
    """Stands for onnx's shape inference where only the weights count."""


def _elements(info: FileInfo, dtype: str) -> float:
    """How many elements of weights a file holds in a type, whether signed or not."""
    shares = sum(share for name, share in info.precision.shares.items() if name in (dtype, f"u{dtype}"))
    return shares * info.parameters


def _note(target: Target) -> str:
    where = "any processor" if target.target_platform == "arm" else "processors like the one that converted it"
    return f"ORT format, optimised for {target.target_platform} when it was converted; runs on {where}"

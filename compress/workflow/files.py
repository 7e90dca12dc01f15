"""Model files that are measured as they are, whoever made them: which runtime opens one, and what to feed it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from compress.errors import ModelError
from compress.model.fileinfo import identify, is_integer_weight
from compress.model.screen import screen_pt2, sniff
from compress.runtimes.describe import describe_file
from compress.worker.session import SESSIONS, TensorSpec

# What a file's content says -> the runtimes that open it, first the one that does where no target says which.
RUNTIMES_OF = {
    "onnx": ("onnxruntime",),
    "ort": ("onnxruntime",),
    "tflite": ("litert", "tflite_runtime"),
    "pte": ("executorch",),
    "pt2": ("torch",),
}
# How the file of an engine ends; see `engine`.
ENGINE = ".plan.zip"
# Integer inputs are positions in a table of unknown length: this many of its rows exist in every vocabulary.
SAFE_IDS = 2


@dataclass(frozen=True)
class ModelFile:
    """A file that a runtime can open.

    Attributes:
        name: What tables call it: the file's name, with its folder where two names are equal.
        path: Where it lies.
        kind: What its content is: a key of `RUNTIMES_OF`.
        runtime: Which runtime opens it.
        sha256: Of its bytes.
        size_bytes: Its length, with that of the files beside it.
        beside: Other files that hold its weights, as it calls them.
        precision: `int8` where a weight is an integer, else `float`; it decides which kernels count as accelerated.
    """

    name: str
    path: Path
    kind: str
    runtime: str
    sha256: str
    size_bytes: int
    precision: Literal["float", "int8"]
    beside: tuple[str, ...] = ()

    def runs_in(self, runtime: str) -> bool:
        """Whether a runtime opens files of its kind."""
        return runtime in RUNTIMES_OF[self.kind]


def open_files(paths: Sequence[Path]) -> tuple[ModelFile, ...]:
    """Looks at each file's content, not at its ending.

    Raises:
        ModelError: If one is missing, damaged, of a kind that no runtime here opens, or named twice.
        MissingPackageError: If the package that reads its kind is not installed.
    """
    files = [_open(path) for path in paths]
    names = [item.name for item in files]
    for index, item in enumerate(files):
        if names.count(item.name) > 1:
            files[index] = replace(item, name=str(item.path))
    shown = [item.name for item in files]
    for name in shown:
        if shown.count(name) > 1:
            raise ModelError(f"{name}: it is named twice", "name each file once.")
    return tuple(files)


def synthetic_inputs(specs: Mapping[str, TensorSpec], rows: int, seed: int) -> dict[str, NDArray[np.generic]]:
    """Makes rows for timing where no real ones are given: normal floats, ids that every table has, free sizes 1.

    Args:
        specs: The file's inputs.
        rows: Number of rows.
        seed: Of the draw.
    """
    random = np.random.default_rng(seed)
    made: dict[str, NDArray[np.generic]] = {}
    for name, spec in specs.items():
        shape = (rows, *(size or 1 for size in spec.shape[1:]))
        dtype = np.dtype(spec.dtype)
        if dtype.kind == "f":
            made[name] = random.standard_normal(shape).astype(dtype)
        else:
            made[name] = random.integers(0, SAFE_IDS, shape).astype(dtype)
    return made


def _open(path: Path) -> ModelFile:
    kind = sniff(path)
    if kind == "zip" and path.name.endswith(ENGINE):
        raise ModelError(
            f"{path}: an engine is machine code for one GPU; only the run that built it measures it",
            "measure the .onnx of an onnxruntime target instead, with --target onnxruntime-tensorrt.",
        )
    if kind not in RUNTIMES_OF:
        raise ModelError(
            f"{path}: it is no file that a runtime opens (its content is: {kind})",
            "name an .onnx, .ort, .tflite, .pte or .pt2 file; a factory or a Hugging Face folder is lowered first: "
            "edge-compress run.",
        )
    runtime = RUNTIMES_OF[kind][0]
    if runtime not in SESSIONS:
        raise ModelError(
            f"{path}: it is for {runtime}, which this version does not run",
            f"runtimes here: {', '.join(sorted(SESSIONS))}.",
        )
    if kind == "pt2":
        screen_pt2(path)
    if kind in ("pte", "pt2"):
        # A .pte's weights lie inside what backends made of them; torch has no integers here.
        identity = identify(path)
        return ModelFile(path.name, path, kind, runtime, identity.sha256, identity.size_bytes, "float")
    info = describe_file(path, kind)
    integer = any(is_integer_weight(dtype) and share for dtype, share in info.precision.shares.items())
    return ModelFile(
        path.name,
        path,
        kind,
        runtime,
        info.identity.sha256,
        info.identity.size_bytes + sum(info.beside.values()),
        "int8" if integer else "float",
        tuple(sorted(info.beside)),
    )

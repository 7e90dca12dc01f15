"""The Session: one opened artifact in one runtime; and which module opens which runtime."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from .arrays import Array
from .errors import JobError

# Runtime to "module:class". A new runtime is one module beside this one and one line here.
SESSIONS = {
    "onnxruntime": "onnxruntime_session:OnnxRuntimeSession",
    "litert": "litert_session:LiteRtSession",
    "tflite_runtime": "tflite_runtime_session:TfliteRuntimeSession",
    "executorch": "executorch_session:ExecuTorchSession",
    "torch": "torch_session:TorchSession",
    "tensorrt": "tensorrt_session:TensorRtSession",
}
# Runtime -> the distributions whose version is the runtime's, the first that is installed.
DISTRIBUTIONS = {
    "litert": ("ai-edge-litert",),
    "tflite_runtime": ("tflite-runtime",),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
}


@dataclass(frozen=True)
class TensorSpec:
    """An input or output: its shape, None where a dimension is free, and its numpy dtype by name."""

    shape: tuple[int | None, ...]
    dtype: str


@dataclass(frozen=True)
class Operators:
    """Operators of one kind, whether they are accelerated, and if not why."""

    operator: str
    count: int
    accelerated: bool
    reason: str = ""


@dataclass(frozen=True)
class Placement:
    """Which operators run on `path`, the runtime's fast path for an artifact of this precision."""

    path: str
    operators: tuple[Operators, ...]


@dataclass(frozen=True)
class OperatorTime:
    """One operator of the optimised graph and its time in one call, in milliseconds."""

    name: str
    operator: str
    ms: float


class Session(Protocol):
    """An artifact, open.

    1. It is a context manager; leaving it frees the runtime's memory.
    2. `run` and `prepare` take one array `[rows, ...]` per input name, of the artifact's dtype or one that casts to it
       without loss of range, and refuse what does not fit. Arrays under other names are left alone.
    3. Where the artifact's batch is fixed, rows are run in portions of that size.
    """

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        """What `run` takes, by name."""

    @property
    def outputs(self) -> Mapping[str, TensorSpec]:
        """What `run` gives, by name."""

    def __enter__(self) -> Session:
        """Returns the session itself."""

    def __exit__(self, *exception: object) -> None:
        """Frees what the runtime holds."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Returns every output, `[rows, ...]`, by name."""

    def prepare(self, inputs: Mapping[str, Array]) -> Callable[[], None]:
        """Returns a call for a timed loop: inputs are checked here, so that it only passes them on and runs."""

    def placement(self, precision: str, inputs: Mapping[str, Array] | None = None) -> Placement:
        """Returns which operators run where.

        Args:
            precision: `float` or `int8`, what the artifact was lowered to.
            inputs: One row to run with, where the runtime tells only by running; zeros if None.
        """

    def profile(self, inputs: Mapping[str, Array], calls: int) -> tuple[OperatorTime, ...]:
        """Returns the time of every operator, in the order in which they run, averaged over a number of calls.

        Raises:
            JobError: If the runtime's Python package has no profiler.
        """


def session_class(runtime: str) -> Any:
    """Returns the class that opens artifacts of a runtime; importing it imports the runtime.

    Its constructor takes the artifact's `Path`, the number of threads, and the settings that it knows by keyword; its
    class method `processor` tells what computes for a provider.

    Raises:
        JobError: If the runtime is unknown, or its package is not installed where the worker runs.
    """
    if runtime not in SESSIONS:
        raise JobError(f"job: unknown runtime {runtime!r}", f"known: {', '.join(sorted(SESSIONS))}.")
    module, _, name = SESSIONS[runtime].partition(":")
    try:
        return getattr(importlib.import_module(f".{module}", __package__), name)
    except ImportError as error:
        package = (error.name or str(error)).partition(".")[0]
        raise JobError(
            f"the runtime {runtime!r} cannot be imported here: {error}",
            f"install the package {package!r} for the Python that runs the worker.",
        ) from error


def runtime_version(runtime: str) -> str:
    """Returns the version of a runtime's package where the worker runs; empty where it has none."""
    from importlib.metadata import PackageNotFoundError, version

    for name in DISTRIBUTIONS.get(runtime, (runtime,)):
        with suppress(PackageNotFoundError):
            return version(name)
    return ""


def open_session(runtime: str, artifact: Path, threads: int, settings: Mapping[str, Any] | None = None) -> Session:
    """Opens an artifact in its runtime.

    Args:
        runtime: The runtime's name.
        artifact: The file.
        threads: Of the runtime.
        settings: Keywords of the runtime's Session, such as `provider`.

    Raises:
        JobError: If the runtime is missing, knows no such setting, or refuses the file.
    """
    found = session_class(runtime)
    unknown = sorted(set(settings or ()) - set(inspect.signature(found).parameters))
    if unknown:
        raise JobError(f"the runtime {runtime!r} has no setting {unknown[0]!r}")
    session: Session = found(artifact, threads, **(settings or {}))
    return session

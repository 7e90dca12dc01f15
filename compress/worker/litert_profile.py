"""The operator profiler of LiteRT, through its C interface: the Python package exposes none.

The profiler belongs to LiteRT's compiled model, which runs a file as the interpreter does: the same kernels, XNNPACK
applied by itself. Declarations follow `litert/c/*.h` of LiteRT 2.x.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from ctypes import byref, c_char_p, c_int, c_size_t, c_uint, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from .arrays import Array
from .errors import JobError
from .session import OperatorTime

_LIBRARY = "libLiteRt.so"
_CPU = 1
_WRITE = 1
_MAX_RANK = 8
# Kinds of events, `LiteRtProfilerEventType`: an operator of the file, and one inside a delegated part.
OPERATOR, DELEGATED = 2, 8
# How XNNPACK's names of operators that multiply by a weight begin.
_MULTIPLYING = ("Convolution", "Deconvolution", "Fully Connected")


class _Layout(ctypes.Structure):
    """`LiteRtLayout`: seven bits of rank, one that says whether strides follow."""

    _fields_ = (("rank", c_uint32), ("dimensions", c_int * _MAX_RANK), ("strides", c_uint32 * _MAX_RANK))


class _TensorType(ctypes.Structure):
    """`LiteRtRankedTensorType`."""

    _fields_ = (("element", c_int), ("layout", _Layout))


class _Event(ctypes.Structure):
    """`ProfiledEventData`."""

    _fields_ = (
        ("tag", c_char_p),
        ("kind", c_int),
        ("start_us", c_uint64),
        ("elapsed_us", c_uint64),
        ("memory", c_size_t * 6),
        ("index", c_uint64),
        ("subgraph", c_uint64),
        ("source", c_int),
    )


@dataclass(frozen=True)
class Event:
    """One timed operator of one call.

    Attributes:
        tag: What LiteRT or the delegate calls it.
        kind: `OPERATOR` or `DELEGATED`.
        index: Its number in the file, or within the delegated part.
        ms: How long it took.
    """

    tag: str
    kind: int
    index: int
    ms: float


def events(artifact: Path, threads: int, inputs: Mapping[str, Array], calls: int) -> list[list[Event]]:
    """Runs a file a number of times and returns each call's events, in the order in which they were recorded.

    Args:
        artifact: A `.tflite` with one signature.
        threads: Of XNNPACK.
        inputs: Signature name to array `[rows, ...]` of the file's dtype.
        calls: How often; one more runs before, which allocates.

    Raises:
        JobError: If the library is missing, or refuses the file.
    """
    library = _library()
    with ExitStack() as stack:
        model, compiled = _compiled(library, artifact, threads, stack)
        given, made = _buffers(library, model, compiled, inputs, artifact, stack)
        run = _call(library, "LiteRtRunCompiledModel", artifact)
        both = (c_size_t(len(given)), given, c_size_t(len(made)), made)
        profiler = c_void_p()
        _call(library, "LiteRtCompiledModelGetProfiler", artifact)(compiled, byref(profiler))
        run(compiled, c_size_t(0), *both)
        found = []
        for _ in range(calls):
            _call(library, "LiteRtStartProfiler", artifact)(profiler)
            run(compiled, c_size_t(0), *both)
            # Its buffer is bounded: emptied after every call, nothing is dropped.
            found.append(_recorded(library, profiler, artifact))
            _call(library, "LiteRtResetProfiler", artifact)(profiler)
        return found


def operator_times(
    runs: Sequence[Sequence[Event]], swallowed: Sequence[str], names: Mapping[int, str]
) -> tuple[OperatorTime, ...]:
    """Returns the median time of every operator over some calls, in the order in which they run.

    XNNPACK names nothing, but keeps the order of the file: its operators that multiply by a weight take the names of
    those that it swallowed, where there are as many of them.

    Args:
        runs: The events of each call.
        swallowed: Names of the operators with weights inside delegated parts, in order.
        names: Node of an operator of the file -> its name.
    """
    first, *_ = runs
    alike = [run for run in runs if len(run) == len(first)]
    inside = [event for event in first if event.kind == DELEGATED and event.tag.startswith(_MULTIPLYING)]
    waiting = iter(swallowed if len(swallowed) == len(inside) else ())
    found = []
    for place, event in enumerate(first):
        name = names.get(event.index, event.tag) if event.kind == OPERATOR else event.tag
        if event.kind == DELEGATED and event.tag.startswith(_MULTIPLYING):
            name = next(waiting, event.tag)
        found.append(OperatorTime(name, event.tag, median(run[place].ms for run in alike)))
    return tuple(found)


def _recorded(library: Any, profiler: c_void_p, artifact: Path) -> list[Event]:
    count = c_int()
    _call(library, "LiteRtGetNumProfilerEvents", artifact)(profiler, byref(count))
    if not count.value:
        return []
    held = (_Event * count.value)()
    _call(library, "LiteRtGetProfilerEvents", artifact)(profiler, count, held)
    return [
        Event(item.tag.decode(errors="replace"), item.kind, item.index, item.elapsed_us / 1e3)
        for item in held
        if item.kind in (OPERATOR, DELEGATED)
    ]


def _compiled(library: Any, artifact: Path, threads: int, stack: ExitStack) -> tuple[c_void_p, c_void_p]:
    environment, model, options, compiled = c_void_p(), c_void_p(), c_void_p(), c_void_p()
    _call(library, "LiteRtCreateEnvironment", artifact)(c_int(0), None, byref(environment))
    stack.callback(library.LiteRtDestroyEnvironment, environment)
    _call(library, "LiteRtCreateModelFromFile", artifact)(environment, str(artifact).encode(), byref(model))
    stack.callback(library.LiteRtDestroyModel, model)
    _call(library, "LiteRtCreateOptions", artifact)(byref(options))
    stack.callback(library.LiteRtDestroyOptions, options)
    _call(library, "LiteRtSetOptionsHardwareAccelerators", artifact)(options, c_int(_CPU))
    texts = {"runtime_options_string": "enable_profiling = true\n", "xnnpack": f"num_threads = {threads}\n"}
    for name, text in texts.items():
        _add_options(library, options, name, text, artifact)
    _call(library, "LiteRtCreateCompiledModel", artifact)(environment, model, options, byref(compiled))
    stack.callback(library.LiteRtDestroyCompiledModel, compiled)
    return model, compiled


def _add_options(library: Any, options: c_void_p, name: str, text: str, artifact: Path) -> None:
    """Adds options that are passed as text; the library frees the text with the function that it is given."""
    system = ctypes.CDLL(None)
    system.strdup.restype = c_void_p
    opaque = c_void_p()
    payload = c_void_p(system.strdup(text.encode()))
    free = ctypes.cast(system.free, c_void_p)
    _call(library, "LiteRtCreateOpaqueOptions", artifact)(name.encode(), payload, free, byref(opaque))
    _call(library, "LiteRtAddOpaqueOptions", artifact)(options, opaque)


def _buffers(
    library: Any, model: c_void_p, compiled: c_void_p, inputs: Mapping[str, Array], artifact: Path, stack: ExitStack
) -> tuple[Any, Any]:
    """The tensor buffers of all inputs, filled, and of all outputs."""
    signature = c_void_p()
    _call(library, "LiteRtGetModelSignature", artifact)(model, c_size_t(0), byref(signature))
    names = _names(library, signature, "Input", artifact)
    if set(names) != set(inputs):
        raise JobError(f"{artifact}: its signature takes {', '.join(names)}; got {', '.join(sorted(inputs))}")
    for at, name in enumerate(names):
        shape = inputs[name].shape
        _call(library, "LiteRtCompiledModelResizeInputTensor", artifact)(
            compiled, c_size_t(0), c_size_t(at), (c_int * len(shape))(*shape), c_size_t(len(shape))
        )
    given = (c_void_p * len(names))()
    for at, name in enumerate(names):
        layout = _Layout()
        _call(library, "LiteRtGetCompiledModelInputTensorLayout", artifact)(
            compiled, c_size_t(0), c_size_t(at), byref(layout)
        )
        given[at] = _buffer(library, signature, compiled, "Input", at, layout, artifact, stack)
        _fill(library, given[at], inputs[name], artifact)
    count = len(_names(library, signature, "Output", artifact))
    layouts = (_Layout * count)()
    _call(library, "LiteRtGetCompiledModelOutputTensorLayouts", artifact)(
        compiled, c_size_t(0), c_size_t(count), layouts, ctypes.c_bool(True)
    )
    made = (c_void_p * count)()
    for at in range(count):
        made[at] = _buffer(library, signature, compiled, "Output", at, layouts[at], artifact, stack)
    return given, made


def _names(library: Any, signature: c_void_p, side: str, artifact: Path) -> Sequence[str]:
    count = c_size_t()
    _call(library, f"LiteRtGetNumSignature{side}s", artifact)(signature, byref(count))
    found = []
    for at in range(count.value):
        name = c_char_p()
        _call(library, f"LiteRtGetSignature{side}Name", artifact)(signature, c_size_t(at), byref(name))
        found.append((name.value or b"").decode())
    return found


def _buffer(
    library: Any,
    signature: c_void_p,
    compiled: c_void_p,
    side: str,
    at: int,
    layout: _Layout,
    artifact: Path,
    stack: ExitStack,
) -> Any:
    environment, tensor, needed, buffer = c_void_p(), c_void_p(), c_void_p(), c_void_p()
    kind = _TensorType()
    _call(library, "LiteRtGetCompiledModelEnvironment", artifact)(compiled, byref(environment))
    _call(library, f"LiteRtGetSignature{side}TensorByIndex", artifact)(signature, c_size_t(at), byref(tensor))
    _call(library, "LiteRtGetRankedTensorType", artifact)(tensor, byref(kind))
    kind.layout = layout
    _call(library, f"LiteRtGetCompiledModel{side}BufferRequirements", artifact)(
        compiled, c_size_t(0), c_size_t(at), byref(needed)
    )
    _call(library, "LiteRtCreateManagedTensorBufferFromRequirements", artifact)(
        environment, byref(kind), needed, byref(buffer)
    )
    stack.callback(library.LiteRtDestroyTensorBuffer, buffer)
    return buffer.value


def _fill(library: Any, buffer: Any, array: Array, artifact: Path) -> None:
    address = c_void_p()
    held = c_void_p(buffer)
    _call(library, "LiteRtLockTensorBuffer", artifact)(held, byref(address), c_uint(_WRITE))
    ctypes.memmove(address, array.tobytes(), array.nbytes)
    _call(library, "LiteRtUnlockTensorBuffer", artifact)(held)


def _call(library: Any, name: str, artifact: Path) -> Any:
    """The function of a name, raising where it does not return zero."""

    def checked(*arguments: Any) -> None:
        status = getattr(library, name)(*arguments)
        if status:
            raise JobError(f"{artifact}: LiteRT's profiler: {name} failed with status {status}")

    return checked


def _library() -> Any:
    package = find_spec("ai_edge_litert")
    for folder in (package.submodule_search_locations or ()) if package else ():
        path = Path(folder) / _LIBRARY
        if path.is_file():
            return ctypes.CDLL(str(path))
    raise JobError(f"this installation of ai-edge-litert has no {_LIBRARY}, which holds its profiler")

"""ExecuTorch programs (`.pte`) in its own runtime, with the backends that its Python package was built with."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakSet

import torch

# The library itself, not `portable_lib` around it: that one imports the exporter for the name of a warning, which takes
# three quarters of a worker's start. torch comes first: the library needs torch's own.
from executorch.extension.pybindings import _portable_lib as portable_lib

from .arrays import Array
from .base_session import BaseSession
from .errors import JobError
from .session import Operators, Placement, TensorSpec

METHOD = "forward"
# A method that gives what the file has no other place for, as JSON: names, and what a backend took and left.
ABOUT = "about"
# c10::ScalarType, as the program states it.
DTYPES = {
    0: "uint8",
    1: "int8",
    2: "int16",
    3: "int32",
    4: "int64",
    5: "float16",
    6: "float32",
    7: "float64",
    11: "bool",
}


class ExecuTorchSession(BaseSession):
    """One `.pte`. Where it does not carry names, inputs are `input_0`, `input_1` … in its order, outputs likewise.

    1. A batch that is open has an upper bound in the file; more rows are run in portions.
    2. A process has one pool of threads: sessions that are open at the same time have the same number of them.
    """

    _opened: ClassVar[WeakSet[ExecuTorchSession]] = WeakSet()

    def __init__(self, artifact: Path, threads: int) -> None:
        _set_threads(threads, artifact, shared=len(self._opened) > 0)
        self._artifact = artifact
        try:
            # Read here: a file that is no program would end the process in native code without a word.
            data = artifact.read_bytes()
            if data[4:6] != b"ET":
                raise JobError(f"{artifact}: it is no ExecuTorch program", "copy or export it again.")
            # The program is read out of these bytes as long as it runs.
            self._data = data
            self._module: Any = portable_lib._load_for_executorch_from_buffer(data)
            meta = self._module.method_meta(METHOD)
            given = [meta.input_tensor_meta(index) for index in range(meta.num_inputs())]
            made = [meta.output_tensor_meta(index) for index in range(meta.num_outputs())]
        except (RuntimeError, OSError, IndexError) as error:
            raise JobError(f"{artifact}: ExecuTorch cannot open it: {error}") from error
        self._about = _read_about(self._module)
        names_in = _names(self._about.get("inputs"), len(given), "input")
        names_out = _names(self._about.get("outputs"), len(made), "output")
        self._bounds = {name: _spec(item, artifact) for name, item in zip(names_in, given, strict=True)}
        bounds = [spec.shape[0] for spec in self._bounds.values() if spec.shape]
        self._most = max((size for size in bounds if size is not None), default=1)
        self._open = self._most > 1 and self._takes_one_row()
        self.inputs = {name: self._freed(spec) for name, spec in self._bounds.items()}
        self.outputs = {name: self._freed(_spec(item, artifact)) for name, item in zip(names_out, made, strict=True)}
        self._opened.add(self)

    def __enter__(self) -> ExecuTorchSession:
        """Returns the session itself."""
        return self

    def close(self) -> None:
        """Frees the program."""
        self._opened.discard(self)
        self._module = None

    def placement(self, precision: str, inputs: Mapping[str, Array] | None = None) -> Placement:
        """Returns which operators a backend took, and which run on portable kernels, and why.

        A file made elsewhere does not say what is inside the parts that a backend took: there each counts as one.

        Args:
            precision: Not needed: a backend takes what it has kernels for.
            inputs: Not needed.
        """
        told = _told(self._about)
        if told:
            return Placement("XNNPACK", told)
        from executorch.exir._serialize._program import deserialize_pte_binary
        from executorch.exir.schema import DelegateCall, KernelCall

        read = deserialize_pte_binary(self._artifact.read_bytes())
        plan = next(item for item in getattr(read, "program", read).execution_plan if item.name == METHOD)
        counts: Counter[tuple[str, bool]] = Counter()
        for chain in plan.chains:
            for instruction in chain.instructions:
                call = instruction.instr_args
                if isinstance(call, DelegateCall):
                    counts[plan.delegates[call.delegate_index].id, True] += 1
                elif isinstance(call, KernelCall):
                    counts[plan.operators[call.op_index].name, False] += 1
        return Placement(
            "delegates",
            tuple(
                Operators(name, count, taken, "" if taken else "portable kernel: no backend took it")
                for (name, taken), count in sorted(counts.items())
            ),
        )

    def _call(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        made = self._forward([torch.from_numpy(feed[name]) for name in self.inputs])
        return {name: tensor.numpy().copy() for name, tensor in zip(self.outputs, made, strict=True)}

    def _bind(self, feed: Mapping[str, Array]) -> Callable[[], None]:
        tensors, run = [torch.from_numpy(feed[name]) for name in self.inputs], self._module.run_method
        self._forward(tensors)

        # The program is read out of the bytes: they must live as long as the call does.
        def call(_held: bytes = self._data) -> None:
            run(METHOD, tensors)

        return call

    def _forward(self, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
        try:
            made: list[torch.Tensor] = self._module.run_method(METHOD, tensors)
        except RuntimeError as error:
            shapes = [list(tensor.shape) for tensor in tensors]
            raise JobError(f"{self._artifact}: ExecuTorch cannot run it on {shapes}: {error}") from error
        return made

    def _takes_one_row(self) -> bool:
        """Whether the batch is open: the program states an upper bound only."""
        one = [
            torch.zeros((1, *(size or 1 for size in spec.shape[1:])), dtype=getattr(torch, spec.dtype))
            for spec in self._bounds.values()
        ]
        try:
            self._forward(one)
        except JobError:
            return False
        return True

    def _freed(self, spec: TensorSpec) -> TensorSpec:
        return TensorSpec((None, *spec.shape[1:]), spec.dtype) if self._open and spec.shape else spec


def _spec(meta: Any, artifact: Path) -> TensorSpec:
    if meta.dtype() not in DTYPES:
        raise JobError(f"{artifact}: it takes or gives numbers of an unknown type ({meta.dtype()})")
    sizes = tuple(int(size) for size in meta.sizes())
    if math.prod(sizes) <= 0:
        raise JobError(f"{artifact}: it takes or gives a tensor without elements: {list(sizes)}")
    return TensorSpec(sizes, DTYPES[meta.dtype()])


def _set_threads(threads: int, artifact: Path, *, shared: bool) -> None:
    """Sets the size of the pool, but not while another program holds on to it: that would free it in use."""
    if portable_lib._threadpool_get_thread_count() == threads:
        return
    if shared:
        raise JobError(
            f"{artifact}: ExecuTorch has one pool of threads in a process, and another program uses it",
            "time files with the same number of threads beside each other.",
        )
    portable_lib._unsafe_reset_threadpool(threads)


def _read_about(module: Any) -> dict[str, Any]:
    """What the file says of itself; nothing where it was made elsewhere."""
    if ABOUT not in module.method_names():
        return {}
    try:
        about = json.loads(module.run_method(ABOUT, [])[0])
    except (RuntimeError, ValueError, TypeError, IndexError, RecursionError):
        return {}
    return about if isinstance(about, dict) else {}


def _names(found: Any, count: int, kind: str) -> list[str]:
    fits = isinstance(found, list) and len(found) == count == len({name for name in found if isinstance(name, str)})
    return found if fits else [f"{kind}_{index}" for index in range(count)]


def _told(about: Mapping[str, Any]) -> tuple[Operators, ...]:
    """The operators that the file lists; none where it does not, or not in this form."""
    taken, left = about.get("taken"), about.get("left")
    try:
        inside = [Operators(str(name), int(count), True) for name, count in dict(taken or {}).items()]
        outside = [Operators(str(name), int(count), False, str(reason)) for name, count, reason in left or ()]
    except (TypeError, ValueError):
        return ()
    return (*inside, *outside)

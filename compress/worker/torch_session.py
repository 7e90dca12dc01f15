"""Exported programs (`.pt2`) in PyTorch itself, eager or compiled, on the CPU or on a CUDA GPU."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter_ns
from typing import Any, BinaryIO

import torch
from torch.utils import _pytree as pytree

from .arrays import Array
from .base_session import BaseSession
from .errors import JobError
from .feed import check_inputs, portions
from .session import Operators, OperatorTime, Placement, TensorSpec

# The member that names inputs and outputs; see `compress.model.core`.
SIGNATURE_FILE = "signature.json"
# What a graph calls without computing anything on a device.
_NO_KERNEL = ("getitem", "sym_size", "sym_numel", "assert", "_guards_fn")


class TorchSession(BaseSession):
    """One `.pt2`, of which the sender of the job has made sure that opening it runs no code of the file.

    Args:
        artifact: The archive.
        threads: Of the operators.
        provider: `cpu` or `cuda`.
        compile: Whether `torch.compile` makes kernels of the graph; the first call of each batch size then takes long.
        screened: sha256 of every archive that was screened; another one is not opened, since torch would run what it
            holds. The screen itself stays where the rest of the program is.
    """

    def __init__(
        self,
        artifact: Path,
        threads: int,
        provider: str = "cpu",
        compile: bool = False,
        screened: tuple[str, ...] = (),
    ) -> None:
        self.processor(provider)
        torch.set_num_threads(threads)
        self._artifact, self._device, self._compiles = artifact, torch.device(provider), compile
        program, names = _load(artifact, screened)
        if provider != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, provider)
        self._graph: Any = program.module(check_guards=False)
        self._run: Any = torch.compile(self._graph, fullgraph=True) if compile else self._graph
        self._in_spec = program.call_spec.in_spec
        values = {node.name: node.meta.get("val") for node in program.graph.nodes}
        given = [str(name) for name in program.graph_signature.user_inputs]
        made = [str(name) for name in program.graph_signature.user_outputs]
        called = names or {"inputs": given, "outputs": _paths(program.call_spec.out_spec, len(made))}
        self.inputs = _specs(called["inputs"], [values.get(name) for name in given], artifact)
        self.outputs = _specs(called["outputs"], [values.get(name) for name in made], artifact)

    def __enter__(self) -> TorchSession:
        """Returns the session itself."""
        return self

    @classmethod
    def processor(cls, provider: str) -> str:
        """Returns the GPU's name and compute capability, empty for the CPU; starts CUDA.

        Raises:
            JobError: If torch cannot compute there.
        """
        if provider == "cpu":
            return ""
        if provider != "cuda":
            raise JobError(f"torch has no provider {provider!r}", "known: cpu, cuda.")
        if not torch.cuda.is_available():
            if torch.version.cuda is None:
                raise JobError(
                    f"torch {torch.__version__} is a build without CUDA",
                    f"pip install --force-reinstall torch=={torch.__version__.partition('+')[0]}",
                )
            raise JobError(
                f"torch {torch.__version__} (CUDA {torch.version.cuda}) finds no NVIDIA GPU it can use",
                "see what the driver says: nvidia-smi",
            )
        # Convolutions round their inputs to 10 bits otherwise.
        torch.backends.cudnn.allow_tf32 = False
        torch.zeros(1, device=provider)
        major, minor = torch.cuda.get_device_capability()
        return f"{torch.cuda.get_device_name()}, compute capability {major}.{minor}, CUDA {torch.version.cuda}"

    def close(self) -> None:
        """Frees the program."""
        self._run = self._graph = None

    def placement(self, precision: str, inputs: Mapping[str, Array] | None = None) -> Placement:
        """Returns the graph's operators: all of them run on the one device that was asked for."""
        counts = Counter(
            str(node.target)
            for node in self._graph.graph.nodes
            if node.op == "call_function" and not any(part in str(node.target) for part in _NO_KERNEL)
        )
        how = "TorchInductor" if self._compiles else "eager kernels"
        path = f"torch {how}, {self._device.type}"
        return Placement(path, tuple(Operators(name, count, True) for name, count in sorted(counts.items())))

    def profile(self, inputs: Mapping[str, Array], calls: int) -> tuple[OperatorTime, ...]:
        """Returns the time of every operator, run one by one; the names are those of the graph.

        Raises:
            JobError: If the graph is compiled, which leaves no single operators.
        """
        if self._compiles:
            raise JobError("a compiled graph has no single operators", "profile it on a target without compile.")
        feed = portions(self.inputs, check_inputs(self.inputs, inputs))[0]
        tensors = [tensor.to(self._device) for tensor in self._tensors(feed)]
        timed = _Timed(self._graph, waits=self._device.type != "cpu")
        args, kwargs = pytree.tree_unflatten(tensors, self._in_spec)
        with torch.inference_mode():
            timed.run(*args, **kwargs)
            timed.times_ns.clear()
            for _ in range(calls):
                timed.run(*args, **kwargs)
        return tuple(
            OperatorTime(node.name, str(node.target), total / calls / 1e6) for node, total in timed.times_ns.items()
        )

    def _tensors(self, feed: Mapping[str, Array]) -> list[torch.Tensor]:
        # A copy: torch refuses to share memory that may not be written.
        return [torch.from_numpy(feed[name].copy()) for name in self.inputs]

    def _call(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        tensors = [tensor.to(self._device) for tensor in self._tensors(feed)]
        made = self._forward(pytree.tree_unflatten(tensors, self._in_spec))
        return {name: tensor.cpu().numpy().copy() for name, tensor in zip(self.outputs, made, strict=True)}

    def _bind(self, feed: Mapping[str, Array]) -> Callable[[], None]:
        """The inputs are copied to the device and the outputs back in every call, as where rows come from memory."""
        here = self._tensors(feed)
        there = [tensor.to(self._device, copy=True) for tensor in here]
        arguments = pytree.tree_unflatten(there, self._in_spec)
        self._forward(arguments)
        args, kwargs = arguments
        run, on_cpu = self._run, self._device.type == "cpu"

        def call() -> None:
            with torch.inference_mode():
                if on_cpu:
                    run(*args, **kwargs)
                    return
                for target, source in zip(there, here, strict=True):
                    target.copy_(source)
                # Waits until the results are there.
                for tensor in pytree.tree_leaves(run(*args, **kwargs)):
                    tensor.cpu()

        return call

    def _forward(self, arguments: Any) -> list[torch.Tensor]:
        args, kwargs = arguments
        try:
            with torch.inference_mode():
                return pytree.tree_leaves(self._run(*args, **kwargs))
        except Exception as error:  # compilers raise what they like
            said = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
            if self._compiles:
                raise JobError(
                    f"{self._artifact}: torch.compile failed: {said}",
                    "it needs g++ on a CPU (apt-get install g++) and Triton on a GPU; or drop compile from the target.",
                ) from error
            shapes = [list(tensor.shape) for tensor in pytree.tree_leaves(arguments)]
            raise JobError(f"{self._artifact}: torch cannot run it on {shapes}: {said}") from error


class _Timed(torch.fx.Interpreter):
    """Runs a graph node by node and adds up each one's time; `waits` for the GPU after each."""

    def __init__(self, module: Any, waits: bool) -> None:
        super().__init__(module)
        self._waits = waits
        self.times_ns: Counter[torch.fx.Node] = Counter()

    def run_node(self, n: torch.fx.Node) -> Any:
        start = perf_counter_ns()
        made = super().run_node(n)
        if n.op == "call_function":
            if self._waits:
                torch.cuda.synchronize()
            self.times_ns[n] += perf_counter_ns() - start
        return made


def _load(artifact: Path, screened: tuple[str, ...]) -> tuple[torch.export.ExportedProgram, dict[str, list[str]]]:
    """Opens an archive if it is one of those that were screened; hashed and read through one descriptor."""
    try:
        with artifact.open("rb") as file:
            digest = _digest(file)
            if digest not in screened:
                raise JobError(
                    f"{artifact}: nobody has screened this .pt2, and torch would run code that it holds",
                    "open it through edge-compress on the machine that sends the job, which screens it first.",
                )
            file.seek(0)
            extra = {SIGNATURE_FILE: ""}
            program = torch.export.load(file, extra_files=extra)
    except JobError:
        raise
    except Exception as error:  # the reader raises whatever the part of it that stumbles does
        said = next(iter(str(error).splitlines()), "")
        raise JobError(f"{artifact}: torch {torch.__version__} cannot open it: {said[:300]}") from error
    stated = extra[SIGNATURE_FILE]
    return program, json.loads(stated) if stated else {}


def _digest(file: BinaryIO) -> str:
    # Not hashlib.file_digest: a device may have Python 3.10.
    hashed = hashlib.sha256()
    while chunk := file.read(1 << 20):
        hashed.update(chunk)
    return hashed.hexdigest()


def _paths(specification: Any, count: int) -> list[str]:
    """Names of the outputs of an archive that states none: their keys, else `output_0` and so on."""
    paths = pytree.tree_flatten_with_path(pytree.tree_unflatten(list(range(count)), specification))[0]
    names = ["_".join(str(getattr(key, "key", getattr(key, "idx", ""))) for key in path) for path, _ in paths]
    return [name if name and not name[0].isdigit() else f"output_{name}".rstrip("_") for name in names]


def _specs(names: list[str], values: list[Any], artifact: Path) -> dict[str, TensorSpec]:
    found = {}
    for name, value in zip(names, values, strict=True):
        if not isinstance(value, torch.Tensor):
            raise JobError(f"{artifact}: {name!r} is no tensor; inputs and outputs must be tensors of numbers")
        # A dimension of the trace is an int where it is fixed.
        shape = tuple(size if isinstance(size, int) else None for size in value.shape)
        found[name] = TensorSpec(shape, str(value.dtype).removeprefix("torch."))
    return found

"""ONNX files (`.onnx`, `.ort`) in ONNX Runtime, on the CPU or through another of its execution providers."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import onnxruntime

from .arrays import Array
from .base_session import BaseSession
from .errors import JobError
from .feed import check_inputs, portions, zeros
from .onnxruntime_providers import CPU, PROVIDERS, check, open_file, refuse_absence
from .session import Operators, OperatorTime, Placement, TensorSpec

DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(bool)": "bool",
    **{f"tensor({sign}int{bits})": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}

# Operators whose work is a product with weights; the fused forms are ONNX Runtime's own. Those of the second line
# may also multiply two activations, as attention does.
WEIGHTED = {"Conv", "FusedConv", "ConvTranspose", "Gemm", "FusedGemm", "LSTM", "GRU", "RNN"}
PRODUCTS = {"MatMul", "FusedMatMul", "TransposeMatMul", "Attention"}


class OnnxRuntimeSession(BaseSession):
    """One ONNX file, opened as it is deployed: all graph optimisations, sequential, one pool of `threads` threads."""

    def __init__(self, artifact: Path, threads: int, provider: str = "cpu") -> None:
        self._artifact = artifact
        self._threads = threads
        self._provider = provider
        self._session: Any = open_file(artifact, _options(threads), provider)
        self.inputs = {item.name: _spec(item) for item in self._session.get_inputs()}
        self.outputs = {item.name: _spec(item) for item in self._session.get_outputs()}

    def __enter__(self) -> OnnxRuntimeSession:
        """Returns the session itself."""
        return self

    @classmethod
    def processor(cls, provider: str) -> str:
        """Returns the GPU that a provider computes on; empty for the CPU.

        Raises:
            JobError: If the provider does not work here.
        """
        return check(provider)

    def close(self) -> None:
        """Frees the session."""
        self._session = None

    def _call(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        arrays = self._session.run(list(self.outputs), dict(feed))
        return {name: arrays[index] for index, name in enumerate(self.outputs)}

    def _bind(self, feed: Mapping[str, Array]) -> Callable[[], None]:
        session = self._session
        binding = session.io_binding()
        for name, array in feed.items():
            binding.bind_cpu_input(name, array)
        for name in self.outputs:
            # On a GPU this copies the outputs back, and so waits for them.
            binding.bind_output(name)
        run = session.run_with_iobinding

        # The default argument keeps the arrays alive: the binding holds only their addresses.
        def call(_keep: Mapping[str, Array] = feed) -> None:
            run(binding)

        return call

    def placement(self, precision: str, inputs: Mapping[str, Array] | None = None) -> Placement:
        """Returns which operators run on the best kernels ONNX Runtime has for this artifact.

        One profiled run lists every operator of the optimised graph. The CPU provider takes all of them, so what
        sets an int8 artifact apart is its weighted operators (`Conv`, `Gemm`, `MatMul` with a matrix, ...): one that
        stayed in float is not accelerated. Operators without weights (`Softmax`, `Add`, a product of two activations)
        count as accelerated wherever the provider runs them, since their float kernel is the one there is. On a GPU
        the provider alone counts: what it does not take runs on the CPU. An engine of TensorRT is one operator.

        Args:
            precision: `float` or `int8`.
            inputs: One row to run with; zeros if None.
        """
        events = self._profiled(inputs or zeros(self.inputs), 1)
        name = PROVIDERS[self._provider].name
        refuse_absence(self._provider, {event["args"]["provider"] for event in events if _is_kernel(event)})
        path = f"{name}, integer kernels" if precision == "int8" and name == CPU else name
        return Placement(path, _count(events, precision, name))

    def profile(self, inputs: Mapping[str, Array], calls: int) -> tuple[OperatorTime, ...]:
        """Returns the time of every operator by ONNX Runtime's own profiler, without the first call."""
        events = self._profiled(inputs, calls + 1)
        times: dict[tuple[int, str, str], list[float]] = {}
        for event in events:
            if _is_kernel(event):
                node = event["args"]
                key = (int(node["node_index"]), event["name"].removesuffix("_kernel_time"), node["op_name"])
                times.setdefault(key, []).append(event["dur"] / 1e3)
        # The first of each was the call that allocates. The median, because one interruption outweighs a mean of few
        # calls; a node in a loop runs several times a call.
        return tuple(
            OperatorTime(name, operator, median(found[len(found) // (calls + 1) :]) * len(found) / (calls + 1))
            for (_, name, operator), found in sorted(times.items(), key=lambda item: item[0][0])
        )

    def _profiled(self, inputs: Mapping[str, Array], calls: int) -> list[dict[str, Any]]:
        """The profiler's events of a number of calls, in a session of their own."""
        with tempfile.TemporaryDirectory() as folder:
            options = _options(self._threads)
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "profile")
            session = open_file(self._artifact, options, self._provider)
            feed = portions(self.inputs, check_inputs(self.inputs, inputs))[0]
            for _ in range(calls):
                session.run(None, feed)
            events: list[dict[str, Any]] = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        return events


def _options(threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    return options


def _spec(item: Any) -> TensorSpec:
    if item.type not in DTYPES:
        raise JobError(f"{item.name!r} is {item.type}; inputs and outputs must be tensors of numbers")
    shape = tuple(size if isinstance(size, int) and size > 0 else None for size in item.shape)
    return TensorSpec(shape, DTYPES[item.type])


def _count(events: list[dict[str, Any]], precision: str, provider: str) -> tuple[Operators, ...]:
    """Counts executed nodes by operator and reason. A node inside a loop is one node however often it ran."""
    nodes = {(event["name"], event["args"]["node_index"]): event["args"] for event in events if _is_kernel(event)}
    counts = Counter((node["op_name"], _why_not(node, precision, provider)) for node in nodes.values())
    return tuple(Operators(name, count, not reason, reason) for (name, reason), count in sorted(counts.items()))


def _is_kernel(event: Mapping[str, Any]) -> bool:
    return event.get("cat") == "Node" and "provider" in event.get("args", {})


def _why_not(node: Mapping[str, Any], precision: str, provider: str) -> str:
    if node["provider"] != provider:
        return f"runs on {node['provider']}"
    if provider == CPU and precision == "int8" and _is_weighted_float(node):
        return "float kernel; see the layer table"
    return ""


def _is_weighted_float(node: Mapping[str, Any]) -> bool:
    if node["op_name"] in WEIGHTED:
        return True
    if node["op_name"] not in PRODUCTS:
        return False
    # A weight is a matrix, or missing from the list once it was packed for the kernel; where both sides are
    # activations, both carry the batch and attention's heads.
    ranks = [len(shape) for entry in node["input_type_shape"] for shape in entry.values()]
    return len(ranks) < 2 or min(ranks[:2]) <= 2

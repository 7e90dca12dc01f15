"""The runtimes' own benchmark programs: how each is called, and what it must say. Times and memory; no answers.

`benchmark_model` of LiteRT (tensorflow/lite/tools/benchmark) for `.tflite`, `onnxruntime_perf_test` of ONNX Runtime
(onnxruntime/test/perftest) for `.onnx`. What they print is read strictly: a line that is missing is an error.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from compress.errors import WorkerError
from compress.registry import require
from compress.worker.arrays import Array
from compress.worker.errors import JobError
from compress.worker.feed import check_inputs
from compress.worker.session import TensorSpec

MIN_RUNS = 3
# Single calls that are kept for percentiles; as in `compress.worker.timing`.
MAX_SINGLES = 512
SINGLE_MS = 0.02
_NUMBER = r"([0-9][0-9.]*(?:e[+-]?[0-9]+)?)"


@dataclass(frozen=True)
class Plan:
    """What a tool is to do: the artifact, its rows, and how long; `here` is the folder there that holds the files."""

    here: str
    artifact: Path
    inputs: Mapping[str, Array]
    threads: int
    seconds: float
    warmup_s: float


@dataclass(frozen=True)
class Call:
    """A call of a tool: the files it wants in its folder, by name, and its arguments.

    `read` is a file that it leaves in its folder; empty where it says everything.
    """

    files: Mapping[str, bytes | Path]
    arguments: Sequence[str]
    read: str = ""


@dataclass(frozen=True)
class Tool:
    """A benchmark program.

    Attributes:
        name: Its usual file name.
        plan: Gives the call for a plan.
        parse: What it printed, and the file it left, as the answer to a job `latency`.
        empty: Gives a call that loads as good as nothing, for the folder it runs in.
        parse_empty: The peak memory of that call, in bytes.
    """

    name: str
    plan: Callable[[Plan], Call]
    parse: Callable[[str, str, Plan], dict[str, Any]]
    empty: Callable[[str], Call]
    parse_empty: Callable[[str], int]


def tool_for(runtime: str) -> Tool:
    """Returns the tool of a runtime.

    Raises:
        WorkerError: If none is known.
    """
    if runtime not in TOOLS:
        raise WorkerError(
            f"no benchmark program of {runtime} is known",
            f"known: {', '.join(f'{tool.name} ({name})' for name, tool in TOOLS.items())}; or set adb.python.",
        )
    return TOOLS[runtime]


def _plan_litert(plan: Plan) -> Call:
    tensors = _litert_inputs(plan.artifact)
    fed = _fed(tensors, plan)
    files: dict[str, bytes | Path] = {"model.tflite": plan.artifact}
    names, shapes, values = [], [], []
    for index, (name, (tensor, _)) in enumerate(tensors.items()):
        if "," in tensor:
            raise WorkerError(
                f"{plan.artifact}: benchmark_model cannot be told of the tensor {tensor!r}: its name has a comma",
                "set adb.python instead of adb.benchmark_binary.",
            )
        file = f"input{index}.bin"
        files[file] = fed[name].tobytes()
        names.append(tensor)
        shapes.append(",".join(map(str, fed[name].shape)))
        # In this flag alone a colon of a name is written twice.
        values.append(f"{tensor.replace(':', '::')}:{plan.here}/{file}")
    return Call(
        files,
        (
            f"--graph={plan.here}/model.tflite",
            f"--input_layer={','.join(names)}",
            f"--input_layer_shape={':'.join(shapes)}",
            f"--input_layer_value_files={','.join(values)}",
            f"--num_threads={plan.threads}",
            f"--num_runs={MIN_RUNS}",
            f"--min_secs={plan.seconds:g}",
            "--warmup_runs=1",
            f"--warmup_min_secs={plan.warmup_s:g}",
        ),
    )


def _parse_litert(said: str, left: str, plan: Plan) -> dict[str, Any]:
    timings = _find(
        rf"Inference timings in us: Init: {_NUMBER}, First inference: {_NUMBER}, Warmup \(avg\): {_NUMBER},"
        rf" Inference \(avg\): {_NUMBER}",
        said,
        "benchmark_model",
        "its times",
    )
    init_us, first_us, _, average_us = map(float, timings.groups())
    counts = re.findall(r"\bcount=(\d+)\b[^\n]*", said)
    # The warm-up's line and that of the timed runs, in this order; newer versions add the median.
    lines = [line for line in said.splitlines() if re.search(r"\bcount=\d+\b", line)]
    if len(counts) < 2:
        raise _unsaid("benchmark_model", "the number of runs", said)
    middle = re.search(rf"\bmedian={_NUMBER}", lines[-1])
    call_ms = (float(middle[1]) if middle else average_us) / 1000
    memory = _find(
        rf"Memory footprint delta from the start of the tool \(MB\): init={_NUMBER} overall={_NUMBER}",
        said,
        "benchmark_model",
        "its memory",
    )
    return {
        "load_ms": _positive(init_us / 1000, "benchmark_model", "the time to load"),
        "first_ms": first_us / 1000,
        "samples_ms": [_positive(call_ms, "benchmark_model", "the time of a call")],
        # One figure stands for all runs: no percentile can be told from it.
        "calls_per_sample": max(2, int(counts[-1])),
        "singles_ms": [],
        "peak_rss_bytes": round(float(memory[2]) * 2**20),
    }


def _empty_litert(here: str) -> Call:
    return Call({}, ("--help",))


def _parse_empty_litert(said: str) -> int:
    if "--graph" not in said:
        raise _unsaid("benchmark_model", "its options", said)
    # What it says of memory is already above its own start.
    return 0


def _plan_onnx(plan: Plan) -> Call:
    onnx = require("onnx", why="the rows that onnxruntime_perf_test reads")
    specs = _onnx_inputs(plan.artifact)
    fed = _fed({name: (name, spec) for name, spec in specs.items()}, plan)
    files: dict[str, bytes | Path] = {"model.onnx": plan.artifact}
    for index, (name, array) in enumerate(fed.items()):
        proto = onnx.numpy_helper.from_array(array, name)
        files[f"test_data_set_0/input_{index}.pb"] = proto.SerializeToString()
    return _onnx_call(files, plan.here, plan.threads, plan.seconds + plan.warmup_s)


def _onnx_call(files: Mapping[str, bytes | Path], here: str, threads: int, seconds: float) -> Call:
    arguments = ("-e", "cpu", "-m", "duration", "-t", str(max(1, math.ceil(seconds))), "-o", "99")
    paths = (f"{here}/model.onnx", f"{here}/times.csv")
    return Call(files, (*arguments, "-x", str(threads), "-y", "1", *paths), "times.csv")


def _parse_onnx(said: str, left: str, plan: Plan) -> dict[str, Any]:
    tool = "onnxruntime_perf_test"
    load_s = float(_find(rf"Session creation time cost: {_NUMBER} s", said, tool, "the time to load")[1])
    first = _find(rf"First inference time cost: {_NUMBER} ms", said, tool, "the time of the first call")
    times_ms = [_row(line, left) for line in left.splitlines() if line.strip()]
    if not times_ms:
        raise _unsaid(tool, "the time of any call", said)
    # It warms up by one call alone: the calls of the time that is for warming up are left out.
    ends = accumulate(times_ms)
    timed = [ms for ms, end in zip(times_ms, ends, strict=True) if end > 1000 * plan.warmup_s] or times_ms[-1:]
    calls = max(1, math.ceil(2.0 / max(min(timed), 1e-6)))
    step = max(1, -(-len(timed) // MAX_SINGLES))
    samples = [float(np.mean(timed[at : at + calls])) for at in range(0, len(timed) - calls + 1, calls)] or [
        float(np.mean(timed))
    ]
    return {
        "load_ms": _positive(load_s * 1000, tool, "the time to load"),
        "first_ms": float(first[1]),
        "samples_ms": samples,
        "calls_per_sample": calls,
        "singles_ms": timed[::step] if min(timed) >= SINGLE_MS else [],
        "peak_rss_bytes": _parse_empty_onnx(said),
    }


def _row(line: str, left: str) -> float:
    """The milliseconds of `model,seconds,peak bytes,CPU share,number`."""
    parts = line.split(",")
    try:
        _, said, _, _, _ = parts
        seconds = float(said)
    except ValueError:
        raise _unsaid("onnxruntime_perf_test", "the seconds of each call in a file of five columns", left) from None
    return _positive(seconds * 1000, "onnxruntime_perf_test", "the time of a call")


def _empty_onnx(here: str) -> Call:
    onnx = require("onnx", why="the smallest file for onnxruntime_perf_test")
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["x"], ["y"])],
        "empty",
        [value("x", onnx.TensorProto.FLOAT, [1])],
        [value("y", onnx.TensorProto.FLOAT, [1])],
    )
    model = onnx.helper.make_model(graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 17)])
    rows = onnx.numpy_helper.from_array(np.zeros(1, np.float32), "x").SerializeToString()
    return _onnx_call({"model.onnx": model.SerializeToString(), "test_data_set_0/input_0.pb": rows}, here, 1, 1)


def _parse_empty_onnx(said: str) -> int:
    found = _find(rf"Peak working set size: {_NUMBER} bytes", said, "onnxruntime_perf_test", "its memory")
    return int(float(found[1]))


TOOLS = {
    "litert": Tool("benchmark_model", _plan_litert, _parse_litert, _empty_litert, _parse_empty_litert),
    "tflite_runtime": Tool("benchmark_model", _plan_litert, _parse_litert, _empty_litert, _parse_empty_litert),
    "onnxruntime": Tool("onnxruntime_perf_test", _plan_onnx, _parse_onnx, _empty_onnx, _parse_empty_onnx),
}


def _fed(tensors: Mapping[str, tuple[str, TensorSpec]], plan: Plan) -> dict[str, Array]:
    """The rows in the types that the artifact takes."""
    try:
        return check_inputs({name: spec for name, (_, spec) in tensors.items()}, plan.inputs)
    except JobError as error:
        raise WorkerError(f"{plan.artifact}: {error.message}", error.hint) from error


def _litert_inputs(path: Path) -> dict[str, tuple[str, TensorSpec]]:
    """The signature's inputs: their names -> the tensor's name, and what it takes."""
    schema = require("ai_edge_litert.schema_py_generated", why="reading .tflite files")
    types = {code: name.lower() for name, code in vars(schema.TensorType).items() if not name.startswith("_")}
    try:
        model = schema.Model.GetRootAs(path.read_bytes(), 0)
        found: dict[str, tuple[str, TensorSpec]] = {}
        signature = model.SignatureDefs(0)
        graph = model.Subgraphs(signature.SubgraphIndex())
        for index in range(signature.InputsLength()):
            entry = signature.Inputs(index)
            tensor = graph.Tensors(entry.TensorIndex())
            sizes = tensor.ShapeSignatureAsNumpy() if tensor.ShapeSignatureLength() else tensor.ShapeAsNumpy()
            shape = tuple(None if size < 0 else int(size) for size in np.atleast_1d(sizes))
            dtype = np.dtype(types[tensor.Type()]).name
            found[entry.Name().decode()] = (tensor.Name().decode(), TensorSpec(shape, dtype))
    except OSError as error:
        raise WorkerError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # a damaged file ends the reader in many ways
        raise WorkerError(f"{path}: its inputs cannot be read: {error}", "lower it again.") from error
    return found


def _onnx_inputs(path: Path) -> dict[str, TensorSpec]:
    onnx = require("onnx", why="the rows that onnxruntime_perf_test reads")
    try:
        graph = onnx.load(str(path), load_external_data=False).graph
        stored = {item.name for item in graph.initializer}
        return {
            item.name: TensorSpec(
                tuple(
                    size.dim_value if size.HasField("dim_value") else None for size in item.type.tensor_type.shape.dim
                ),
                onnx.helper.tensor_dtype_to_np_dtype(item.type.tensor_type.elem_type).name,
            )
            for item in graph.input
            if item.name not in stored
        }
    except Exception as error:  # a damaged file ends the reader in many ways
        raise WorkerError(f"{path}: its inputs cannot be read: {error}", "lower it again.") from error


def _find(pattern: str, said: str, tool: str, what: str) -> re.Match[str]:
    found = re.search(pattern, said)
    if found is None:
        raise _unsaid(tool, what, said)
    return found


def _positive(value: float, tool: str, what: str) -> float:
    if not (math.isfinite(value) and value > 0):
        raise WorkerError(f"{tool} gives {what} as {value:g} ms", "use another version of it.")
    return value


def _unsaid(tool: str, what: str, said: str) -> WorkerError:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    tail = "; its last words:\n" + "\n".join(lines[-5:]) if lines else " and nothing else"
    return WorkerError(f"{tool} did not say {what}{tail}", "check that it is this program, and a recent version.")

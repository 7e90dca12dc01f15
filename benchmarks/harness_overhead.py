"""What the harness adds to a call: its loop beside a bare loop over the runtime's own call, in turns, one process.

python benchmarks/harness_overhead.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter_ns

import numpy as np
import onnxruntime
from gate_models import rows, write_models

from compress.worker.onnxruntime_session import OnnxRuntimeSession, _options
from compress.worker.timing import time_calls

TURNS, SECONDS = 40, 0.1


def main() -> int:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory(prefix="edge-compress-") as folder:
        for name in ("base", "tiny"):
            path = write_models(Path(folder))["base"] if name == "base" else _tiny(Path(folder))
            _compare(name, path, rows() if name == "base" else {"x": np.ones((1, 4), np.float32)})
    if len(sys.argv) > 1:
        _litert(Path(sys.argv[1]))
    return 0


def _litert(path: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    from compress.worker.feed import zeros
    from compress.worker.litert_session import LiteRtSession

    bare = Interpreter(model_path=str(path), num_threads=1)
    bare.allocate_tensors()
    tool_ms, bare_ms, harness_ms = [], [], []
    with LiteRtSession(path, 1) as session:
        call = session.prepare(zeros(session.inputs))
        for _ in range(10):
            command = ["litert-benchmark", "--model", str(path), "--num_threads", "1", "--num_runs", "1000"]
            done = subprocess.run(
                [Path(sys.executable).with_name(command[0]), *command[1:]], capture_output=True, text=True, check=True
            )
            tool_ms.append(float(done.stdout.partition("(median):")[2].split()[0]))
            bare_ms.append(_loop(bare.invoke))
            harness_ms.append(median(time_calls(call, warmup_s=0.02, sample_s=0.002, seconds=SECONDS).samples_ms))
    print(
        f"{path.name}: litert-benchmark {median(tool_ms):.2f} ms (two digits are all that it prints), bare"
        f" {median(bare_ms):.4f} ms, harness with inputs and outputs {median(harness_ms):.4f} ms:"
        f" {1000 * (median(harness_ms) - median(bare_ms)):+.2f} microseconds a call"
    )


def _compare(name: str, path: Path, given: dict[str, np.ndarray]) -> None:
    session = onnxruntime.InferenceSession(str(path), _options(1), providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    for key, array in given.items():
        binding.bind_cpu_input(key, array)
    binding.bind_output(session.get_outputs()[0].name)
    with OnnxRuntimeSession(path, 1) as ours:
        call = ours.prepare(given)
        bare_ms, harness_ms = [], []
        for turn in range(TURNS):
            for side in (0, 1) if turn % 2 else (1, 0):
                if side:
                    harness_ms.append(
                        median(time_calls(call, warmup_s=0.02, sample_s=0.002, seconds=SECONDS).samples_ms)
                    )
                else:
                    bare_ms.append(_bare(session, binding))
    logs = [np.log(ours / bare) for ours, bare in zip(harness_ms, bare_ms, strict=True)]
    medians = np.median(np.random.default_rng(0).choice(logs, (2000, TURNS)), axis=1)
    low, middle, high = np.quantile(medians, [0.005, 0.5, 0.995])
    added_us = 1000 * (median(harness_ms) - median(bare_ms))
    print(
        f"{name}: bare {median(bare_ms):.4f} ms, harness {median(harness_ms):.4f} ms: {np.expm1(middle):+.2%}"
        f" [{np.expm1(low):+.2%}, {np.expm1(high):+.2%}], {added_us:+.2f} microseconds a call"
    )


def _bare(session: onnxruntime.InferenceSession, binding: object) -> float:
    run = session.run_with_iobinding
    return _loop(lambda: run(binding))


def _loop(call: Callable[[], object]) -> float:
    times: list[int] = []
    for _ in range(5):
        call()
    end = perf_counter_ns() + round(SECONDS * 1e9)
    while (start := perf_counter_ns()) < end:
        call()
        times.append(perf_counter_ns() - start)
    return median(times) / 1e6


def _tiny(folder: Path) -> Path:
    from onnx import TensorProto, helper, numpy_helper, save

    weight = numpy_helper.from_array(np.ones((4, 2), np.float32), "w")
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, s]) for n, s in (("x", 4), ("y", 2))]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "tiny", ends[:1], ends[1:], [weight])
    path = folder / "tiny.onnx"
    save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


if __name__ == "__main__":
    sys.exit(main())

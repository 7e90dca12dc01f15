"""Where int8 gains on ExecuTorch and where it does not: chains of one kind of layer, float32 and int8 static in turns.

    python benchmarks/executorch_kernels.py
    python benchmarks/executorch_kernels.py out-mobilenet/float32.pte out-mobilenet/int8-static.pte

The first form makes the chains; the second takes two files. Both programs are called alternately in one process, on one
thread. The fastest call of each, in processor time, is what other work disturbs least; the median stands beside it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np
import torch

# torch comes first: the library needs torch's own.
from executorch.extension.pybindings import _portable_lib as library
from torch import nn

from compress.calibrate import calibrate
from compress.model.core import TensorInfo
from compress.model.factory import export_module
from compress.recipe import BUILTIN_SCHEMES
from compress.target import load_target
from compress.workflow.plan import runtime

LAYERS = 8
# As in MobileNetV2: where its multiply-adds are, where its memory is, and how it begins.
CHAINS: dict[str, tuple[tuple[int, ...], list[nn.Module]]] = {
    "1x1, 96 channels, 28x28": ((96, 28, 28), [nn.Conv2d(96, 96, 1) for _ in range(LAYERS)]),
    "3x3 depthwise, 144 channels, 56x56": (
        (144, 56, 56),
        [nn.Conv2d(144, 144, 3, padding=1, groups=144) for _ in range(LAYERS)],
    ),
    "3x3, 3 to 32 channels, 224x224, every other": ((3, 224, 224), [nn.Conv2d(3, 32, 3, stride=2, padding=1)]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, help="float32.pte int8.pte; none for the chains")
    parser.add_argument("--calls", type=int, default=400, help="calls of each program (400)")
    given = parser.parse_args()
    if len(given.files) not in (0, 2):
        parser.error(f"two files or none; got {len(given.files)}")
    library._unsafe_reset_threadpool(1)
    pairs = [("files", *(file.read_bytes() for file in given.files))] if given.files else _chains()
    for name, before, after in pairs:
        first, second = _in_turns(before, after, given.calls)
        print(
            f"{name}: float32 {min(first):.2f} ms (median {median(first):.2f}), "
            f"int8 {min(second):.2f} ms (median {median(second):.2f})",
            flush=True,
        )


def _chains() -> Iterator[tuple[str, bytes, bytes]]:
    target = load_target("executorch-cpu", Path())
    engine = runtime(target.runtime)
    for name, (shape, layers) in CHAINS.items():
        module = nn.Sequential(*layers).eval()
        model = export_module(module, [TensorInfo("input", shape, "float32")], ("output",), "chain")
        rows = np.random.default_rng(0).standard_normal((2, *shape)).astype(np.float32)
        lowered = engine.lower(model)
        quantized = engine.quantize(
            lowered, BUILTIN_SCHEMES["int8-static"], calibrate(model, [{"input": rows}]), target
        )
        yield name, lowered.data, quantized.data


def _in_turns(before: bytes, after: bytes, calls: int) -> tuple[list[float], list[float]]:
    """Processor time of each call of two programs, in milliseconds. They read from their bytes as long as they run."""
    programs = [library._load_for_executorch_from_buffer(data) for data in (before, after)]
    given = [torch.randn(*programs[0].method_meta("forward").input_tensor_meta(0).sizes())]
    taken: tuple[list[float], list[float]] = ([], [])
    for turn in range(calls + 2):
        for side in (0, 1) if turn % 2 else (1, 0):
            start = time.process_time()
            programs[side].run_method("forward", given)
            if turn >= 2:
                taken[side].append((time.process_time() - start) * 1e3)
    return taken


if __name__ == "__main__":
    main()

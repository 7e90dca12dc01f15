"""Peak memory of calibration by the number of rows, each in a process of its own, for every method.

    PYTHONPATH=. python benchmarks/calibration_memory.py [--rows 100 10000] [--methods min-max mse] [--size 224]

MobileNetV2 from the zoo, random weights, square images made as they are asked for, 16 at a time. Prints one JSON
object: peak resident bytes by method and rows, and the ratio of the most to the fewest rows.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Iterator

import numpy as np

from compress.calibrate.method import METHODS

BATCH = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[100, 10_000])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--size", type=int, default=224, help="pixels a side")
    parser.add_argument("--one", nargs=2, metavar=("METHOD", "ROWS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(measure(arguments.one[0], int(arguments.one[1]), arguments.size))
        return
    found: dict[str, dict[str, float]] = {}
    for method in arguments.methods:
        peaks = {rows: _in_a_process(method, rows, arguments.size) for rows in arguments.rows}
        found[method] = {str(rows): peak for rows, peak in peaks.items()}
        found[method]["ratio"] = round(peaks[max(peaks)] / peaks[min(peaks)], 3)
    print(json.dumps({"unit": "bytes of peak resident memory", "pixels": arguments.size, "methods": found}, indent=1))


def measure(method: str, rows: int, size: int) -> int:
    """Calibrates in this process and returns its peak resident bytes."""
    import torch

    from compress import zoo
    from compress.calibrate import Method, calibrate
    from compress.model.core import TensorInfo
    from compress.model.factory import export_module
    from compress.passes.base import Context, run_pass

    torch.manual_seed(0)
    torch.set_num_threads(1)
    module = zoo.mobilenet_v2(classes=10).eval()
    model = export_module(module, [TensorInfo("image", (3, size, size), "float32")], (), "zoo")
    folded = run_pass("fold_batch_norm", model, None, Context()).model
    calibrate(folded, _batches(rows, size), Method(method))  # type: ignore[arg-type]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _batches(rows: int, size: int) -> Iterator[dict[str, np.ndarray]]:
    random = np.random.default_rng(0)
    for start in range(0, rows, BATCH):
        count = min(BATCH, rows - start)
        yield {"image": random.standard_normal((count, 3, size, size)).astype(np.float32)}


def _in_a_process(method: str, rows: int, size: int) -> int:
    command = [sys.executable, __file__, "--size", str(size), "--one", method, str(rows)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


if __name__ == "__main__":
    main()

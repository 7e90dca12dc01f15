"""Peak memory and time of quantizing an `.onnx` of more than 2 GB, each scheme in a process of its own.

    PYTHONPATH=. python benchmarks/large_model.py [--gigabytes 2.3] [--schemes int8-dynamic] [--folder /tmp/large]

The model is made here, piece by piece: products by 4096 x 4096 matrices of random weights, in a data file beside it.
Prints one JSON object: for each scheme seconds, bytes of the result, peak resident bytes of the process that
quantizes, its ratio to the model, and how close the result's answers are, in ONNX Runtime, to the float file's. Needs
disk for the model and one result; TMPDIR for the result while it is written.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

WIDTH, LOCATION = 4096, "large.data"
SCHEMES = ("float16", "int8-weights", "int8-dynamic", "int4-weights", "int4-dynamic")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2.3)
    parser.add_argument("--schemes", nargs="+", default=list(SCHEMES), choices=SCHEMES)
    parser.add_argument("--folder", type=Path, help="where the model is made, and kept; a temporary one if not given")
    parser.add_argument("--one", nargs=2, metavar=("MODEL", "SCHEME"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(Path(arguments.one[0]), arguments.one[1])))
        return
    with tempfile.TemporaryDirectory(prefix="edge-compress-") as scratch:
        folder = arguments.folder or Path(scratch)
        path = folder / "large.onnx"
        if not path.exists():
            make(folder, round(arguments.gigabytes * 1e9 / (4 * WIDTH * WIDTH)))
        size = (folder / LOCATION).stat().st_size
        found = {}
        for scheme in arguments.schemes:
            command = [sys.executable, __file__, "--one", str(path), scheme]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found[scheme] = json.loads(done.stdout.splitlines()[-1])
            found[scheme]["ratio"] = round(found[scheme]["peak_bytes"] / size, 2)
    print(json.dumps({"model_bytes": size, "schemes": found}, indent=1))


def make(folder: Path, layers: int) -> None:
    """Writes the model; the weights keep the size of the values."""
    from onnx import TensorProto, helper

    from compress.model.onnx_beside import point

    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    nodes, weights, value = [], [], "x"
    with (folder / LOCATION).open("wb") as file:
        for number in range(layers):
            name, output = f"w{number}", f"y{number}"
            tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[WIDTH, WIDTH])
            point(tensor, LOCATION, file.tell(), 4 * WIDTH * WIDTH)
            file.write(random.standard_normal((WIDTH, WIDTH), np.float32) * np.float32(WIDTH**-0.5))
            weights.append(tensor)
            nodes.append(helper.make_node("MatMul", [value, name], [output], name=f"product{number}"))
            value = output
    shape = ["rows", WIDTH]
    graph = helper.make_graph(
        nodes,
        "large",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, shape)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    (folder / "large.onnx").write_bytes(model.SerializeToString())


def measure(path: Path, name: str) -> dict[str, Any]:
    """Opens, quantizes and writes the model in this process, then runs both files in workers."""
    from compress.hosts.calls import run_outputs
    from compress.hosts.local import LocalHost
    from compress.model.core import TensorInfo
    from compress.model.onnx_file import OnnxFile
    from compress.model.source import load_model
    from compress.recipe import BUILTIN_SCHEMES, ModelConfig
    from compress.runtimes.onnxruntime import OnnxRuntime
    from compress.target import Target

    start = time.perf_counter()
    model = load_model(ModelConfig(source=path.name), [TensorInfo("x", (WIDTH,), "float32")], path.parent)
    assert isinstance(model, OnnxFile)
    opened = time.perf_counter() - start
    engine, target = OnnxRuntime(), Target.model_validate({"schema": 1, "runtime": "onnxruntime"})
    start = time.perf_counter()
    made = engine.quantize(engine.take(model), BUILTIN_SCHEMES[name], None, target)
    seconds = time.perf_counter() - start
    rows = {"x": np.random.default_rng(1).standard_normal((4, WIDTH)).astype(np.float32)}
    with tempfile.TemporaryDirectory(prefix="edge-compress-") as folder:
        (Path(folder) / "made.onnx").write_bytes(made.data)
        for item in made.beside:
            item.lay(Path(folder))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        answers = [
            next(iter(run_outputs(LocalHost(), engine.name, file, rows, threads=1, batch=4, timeout_s=300).values()))
            for file in (path, Path(folder) / "made.onnx")
        ]
    noise = float(((answers[0] - answers[1]) ** 2).sum() / (answers[0] ** 2).sum())
    return {
        "open_s": round(opened, 1),
        "quantize_s": round(seconds, 1),
        "bytes": made.size_bytes,
        "peak_bytes": peak,
        "sqnr_db": round(-10 * np.log10(noise), 1),
    }


if __name__ == "__main__":
    main()

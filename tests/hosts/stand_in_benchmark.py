#!/usr/bin/env -S python3 -I -S
"""A stand-in for `benchmark_model` and `onnxruntime_perf_test`: their options and what they print; no model is run.

It checks that its rows are there, as the real ones do, and says the times in `times.json` beside it: `ms` by the bytes
of the artifact, or `other`. With `break` in that file it goes wrong that way. What it was called with stands in
`asked.jsonl`.
"""

import json
import os
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
SAID = json.loads((HERE / "times.json").read_text())
BREAK = SAID.get("break", "")


def call_ms(artifact):
    return SAID["ms"].get(str(Path(artifact).stat().st_size), SAID["ms"]["other"])


def benchmark_model(arguments):
    if arguments == ["--help"]:
        print("usage: benchmark_model\n\t--graph=  string  graph file name", file=sys.stderr)
        return 1 if BREAK == "help" else 0
    flags = dict(argument.removeprefix("--").split("=", 1) for argument in arguments)
    names, shapes = flags["input_layer"].split(","), flags["input_layer_shape"].split(":")
    for name, shape, value in zip(names, shapes, flags["input_layer_value_files"].split(","), strict=True):
        escaped, _, file = value.rpartition(":")
        assert escaped.replace("::", ":") == name, value
        size = 4
        for length in shape.split(","):
            size *= int(length)
        if Path(file).stat().st_size != size:
            print(f"ERROR: The size of {file} is wrong. It should be {size} bytes.", file=sys.stderr)
            return 1
    note(flags)
    us = 1000 * call_ms(flags["graph"])
    lines = [
        f"INFO: Graph: [{flags['graph']}]",
        "INFO: Initialized session in 1.5ms.",
        f"INFO: count=20 first={us:g} curr={us:g} min={us:g} max={us:g} avg={us:g} std=0",
        "",
        f"INFO: count=50 first={us:g} curr={us:g} min={us:g} max={3 * us:g} avg={1.1 * us:g} std=3 p5={us:g}"
        f" median={us:g} p95={us:g}",
        "",
        f"INFO: Inference timings in us: Init: 1500, First inference: {2 * us:g}, Warmup (avg): {us:g},"
        f" Inference (avg): {1.1 * us:g}",
        "INFO: Memory footprint delta from the start of the tool (MB): init=1.25 overall=2.5",
    ]
    kept = [line for line in lines if not (BREAK and BREAK in line)]
    print("\n".join(kept), file=sys.stderr)
    return 0


def onnxruntime_perf_test(arguments):
    *options, model, result = arguments
    flags = dict(zip(options[::2], options[1::2], strict=True))
    rows = [path.read_bytes().hex() for path in sorted((Path(model).parent / "test_data_set_0").glob("*.pb"))]
    if not rows:
        print("there is no test data for model run")
        return 1
    note(flags | {"rows": rows})
    ms = call_ms(model)
    times = [3 * ms, *[ms] * 99] if BREAK != "rows" else []
    with open(result, "w") as file:
        for number, each in enumerate(times):
            file.write(f"run,{each / 1000:.9f},9000000,50,{number}\n")
    print(f"Session creation time cost: 0.0025 s\nFirst inference time cost: {round(2 * ms)} ms")
    print("Total inference requests: 100\nAvg CPU usage: 50 %")
    if BREAK != "Peak":
        print(f"Peak working set size: {SAID.get('peak', 9_000_000)} bytes")
    return 0


def note(flags):
    with (HERE / "asked.jsonl").open("a") as file:
        file.write(json.dumps(flags) + "\n")


if __name__ == "__main__":
    if BREAK == "hang":
        time.sleep(600)
    if BREAK == "crash":
        os.abort()
    sys.exit(
        {"benchmark_model": benchmark_model, "onnxruntime_perf_test": onnxruntime_perf_test}[Path(sys.argv[0]).name](
            sys.argv[1:]
        )
    )

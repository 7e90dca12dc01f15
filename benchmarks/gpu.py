"""What a GPU makes of the reference models: each runtime and scheme beside torch on the same GPU, and the tests for it.

    pip install -e '.[test,tensorrt]'           # and onnxruntime-gpu instead of onnxruntime, for its rows
    python benchmarks/gpu.py --write benchmarks/gpu.md

Weights are random: times are those of the architecture, and what stands beside them is how close the answers are to
the float32 graph on the CPU, not a quality. `--targets torch-cpu onnxruntime-cpu` tries the script without a GPU.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from compress.bench.conductor import BenchItem
from compress.bench.environment import environment
from compress.calibrate import Ranges, calibrate
from compress.errors import CompressError
from compress.hosts import open_host
from compress.hosts.calls import ask, run_outputs
from compress.model.core import Model, TensorInfo
from compress.model.factory import export_module
from compress.passes.base import Context, run_pass
from compress.recipe import BUILTIN_SCHEMES, Recipe
from compress.report.markdown_text import table
from compress.store.cache import Cache
from compress.target import Target, load_target
from compress.workflow.engine import built
from compress.workflow.plan import Plan, runtime
from compress.workflow.progress import Silent
from compress.workflow.timing import time_files
from compress.zoo import ZOO

ROOT = Path(__file__).resolve().parent.parent
TARGETS = ("torch-cuda", "torch-compile-cuda", "onnxruntime-cuda", "onnxruntime-tensorrt", "tensorrt")
SCHEMES = ("float32", "float16", "int8-static")
HEADINGS = ("model", "batch", "target", "scheme", "median ms", "against its float32", "SNR dB", "file MB")
PARITY_ROWS = 64


@dataclass(frozen=True)
class Case:
    """A model of the zoo and how rows for it are drawn."""

    build: Callable[[], nn.Module]
    inputs: tuple[TensorInfo, ...]

    def rows(self, count: int) -> dict[str, Any]:
        """Normal floats, ids that every table has, and masks that leave nothing out."""
        random = np.random.default_rng(0)
        made = {}
        for item in self.inputs:
            shape = (count, *item.shape)
            if item.dtype == "float32":
                made[item.name] = random.standard_normal(shape).astype(np.float32)
            else:
                made[item.name] = random.integers(1, 2 if "mask" in item.name else 1000, shape).astype(item.dtype)
        return made


CASES = {
    "mobilenet_v2": Case(lambda: ZOO.load("mobilenet_v2")(), (TensorInfo("pixels", (3, 224, 224), "float32"),)),
    "compact_bert": Case(
        lambda: ZOO.load("compact_bert")(),
        (TensorInfo("input_ids", (128,), "int64"), TensorInfo("attention_mask", (128,), "int64")),
    ),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", nargs="+", default=TARGETS, help="profiles, or files ending in .toml")
    parser.add_argument("--models", nargs="+", choices=CASES, default=[*CASES])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 32])
    parser.add_argument("--pairs", type=int, default=7, help="worker processes a file (7)")
    parser.add_argument("--skip-tests", action="store_true", help="do not run `pytest -m gpu` first")
    parser.add_argument("--cache", type=Path, default=ROOT / "benchmarks/.cache/gpu", help="finished engines")
    parser.add_argument("--write", type=Path, help="write the table here")
    given = parser.parse_args()
    processors, problems = _processors([load_target(name, Path()) for name in given.targets])
    for name, problem in problems.items():
        print(f"{name} is left out: {problem}", file=sys.stderr)
    if not processors:
        print("nothing can be measured here, so nothing is written.", file=sys.stderr)
        return 2
    tested = "not run" if given.skip_tests else _tests()
    rows = []
    for name in given.models:
        for row in _model(name, given, list(processors)):
            rows.append(row)
            print(" | ".join(row), flush=True)
    text = _page(rows, processors, problems, tested)
    if given.write:
        given.write.write_text(text, encoding="utf-8")
    else:
        print(text)
    return 0


def _processors(targets: list[Target]) -> tuple[dict[str, str], dict[str, str]]:
    """Target -> what computes there; and target -> why it cannot be measured."""
    found, problems = {}, {}
    for target in targets:
        try:
            answer = ask(open_host(target), {"action": "empty", "runtime": target.runtime}, 300)
            found[target.name] = f"{answer['processor'] or 'CPU'}, {target.runtime} {answer['version']}"
        except CompressError as error:
            problems[target.name] = f"{error.message}: {error.hint}"
    return found, problems


def _tests() -> str:
    """The last line of the tests for GPUs."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-rs", "--timeout=1800", "tests"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    print(said, file=sys.stderr)
    return next((line for line in reversed(said.splitlines()) if line.strip()), "no answer")


def _model(name: str, given: argparse.Namespace, targets: list[str]) -> Iterator[tuple[str, ...]]:
    case = CASES[name]
    torch.manual_seed(0)
    exported = export_module(case.build().eval(), list(case.inputs), (), name)
    model = run_pass("fold_batch_norm", exported, None, Context(), allow_no_change=True).model
    rows = case.rows(max(PARITY_ROWS, *given.batches))
    ranges = calibrate(model, [{key: array[:PARITY_ROWS] for key, array in rows.items()}])
    wanted = model.run({key: array[:PARITY_ROWS] for key, array in rows.items()})
    for batch in given.batches:
        for target in targets:
            yield from _target(name, load_target(target, Path()), model, ranges, rows, wanted, batch, given)


def _target(
    name: str,
    target: Target,
    model: Model,
    ranges: Ranges,
    rows: Mapping[str, Any],
    wanted: Mapping[str, Any],
    batch: int,
    given: argparse.Namespace,
) -> Iterator[tuple[str, ...]]:
    recipe = Recipe.model_validate(
        {
            "schema": 1,
            "model": {"source": "zoo.py:model"},
            "data": {"source": "none"},
            "targets": [target.name],
            "measure": {"batch": batch, "pairs": given.pairs, "max_pairs": given.pairs, "timeout_s": 900},
        }
    )
    plan = Plan(recipe, ROOT, "benchmarks/gpu.py", (target,), recipe.quant_schemes())
    engine, cache, host = runtime(target.runtime), Cache(given.cache), open_host(target)
    lowered = engine.lower(model)
    items, sizes, snr = [], {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for scheme in (BUILTIN_SCHEMES[each] for each in SCHEMES):
            head = (name, str(batch), target.name, scheme.name)
            if scheme.dtype != "float32" and (scheme.dtype, scheme.activations) not in engine.schemes:
                continue
            try:
                made = lowered if scheme.dtype == "float32" else engine.quantize(lowered, scheme, ranges, target)
                ready = built(made, scheme.name, target, plan, cache, Silent())
                path = Path(folder) / f"{scheme.name}{ready.suffix}"
                path.write_bytes(ready.data)
                given_rows = {key: array[:PARITY_ROWS] for key, array in rows.items()}
                got = run_outputs(host, target.runtime, path, given_rows, threads=1, batch=batch, timeout_s=900)
            except CompressError as error:
                yield (*head, f"error: {error.message.splitlines()[0]}", "", "", "")
                continue
            snr[scheme.name] = min(_snr_db(wanted[key], got[key]) for key in wanted)
            sizes[scheme.name] = len(ready.data) / 1e6
            items.append(BenchItem(scheme.name, target.runtime, path, ready.arithmetic))
        results = time_files(host, items, rows, recipe, target.threads, Silent()) if items else {}
    for scheme_name, result in results.items():
        head = (name, str(batch), target.name, scheme_name)
        if result.latency is None:
            yield (*head, f"error: {result.error.splitlines()[0]}", "", "", "")
            continue
        ratio = result.latency.comparison
        against = f"{1 / ratio.ratio:.2f}x, {ratio.verdict}" if ratio is not None else ""
        yield (
            *head,
            f"{result.latency.median_ms:.3f}",
            against,
            f"{snr[scheme_name]:.0f}",
            f"{sizes[scheme_name]:.1f}",
        )


def _snr_db(wanted: Any, got: Any) -> float:
    error = np.sum((wanted.astype(np.float64) - got.astype(np.float64)) ** 2)
    return float(10 * np.log10(np.sum(wanted.astype(np.float64) ** 2) / max(float(error), 1e-30)))


def _page(rows: list[tuple[str, ...]], processors: Mapping[str, str], problems: Mapping[str, str], tested: str) -> str:
    machine = environment(()).machine
    there = "\n".join(f"- `{name}`: {what}" for name, what in processors.items())
    out = "\n".join(f"- `{name}`: not measured: {why}" for name, why in problems.items())
    return f"""# Reference models on a GPU

```
python benchmarks/gpu.py --write benchmarks/gpu.md
```

{there}
{out}

Host: {machine["cpu"]}, {machine["cores"]} cores, Linux {machine["kernel"]}. Tests for GPUs (`pytest -m gpu`): {tested}

Random weights. A time is the median of whole calls, rows copied to the GPU and answers back, in worker processes
of their own; the schemes of one target were measured interleaved, and the ratio is that of pairs. SNR is the worst
output against the float32 graph on the CPU over {PARITY_ROWS} rows.

{table(HEADINGS, rows)}
"""


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())

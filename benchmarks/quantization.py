"""int8 files of this project beside those of other tools: latency, quality, size, and what making them cost.

    python benchmarks/quantization.py --envs ~/peers --install       # everything: hours, and gigabytes of packages
    python benchmarks/quantization.py --tools edge-compress,onnxruntime --cases credit
    python benchmarks/quantization.py --quick                        # few rows and pairs, to try it; writes no table

Same weights, same calibration rows, same test rows; all files of a case run in the same ONNX Runtime with one thread,
each in turns with the float32 file within a process, by processor time. A tool that does not install or fails stands in
the table with its reason. Figures are kept in quantization.json, by case and by whether the processor has a dot product
of 8-bit numbers, so that a case, or a tool in it, can be measured again alone; quantization.md is written from them.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from quantization_cases import SOURCES, Case
from quantization_peers import PEERS, RUNTIME, PeerError, install, quantize
from quantization_table import render

from compress.bench import ratio_interval, run_outputs
from compress.bench.duels import Fighter, Ring, in_turns
from compress.bench.environment import environment
from compress.bench.race import Sample
from compress.errors import CompressError, WorkerError
from compress.evaluate.parity import parity
from compress.evaluate.tasks import compare_task
from compress.evidence import Metric
from compress.hosts.local import LocalHost
from compress.processors import adds_in_16_bits
from compress.runtimes.onnxruntime import OnnxRuntime
from compress.store.atomic import write_atomic
from compress.worker.arrays import write_arrays

HERE = Path(__file__).resolve().parent
DATA, TABLE = HERE / "quantization.json", HERE / "quantization.md"
FLOAT = "float32"
CALIBRATION_ROWS = 256
TIMEOUT_S = 1800.0


def main() -> int:
    """Measures the cases that are asked for; returns the exit code."""
    options = _options()
    if options.install:
        for name in options.tools:
            _try_install(name, options.envs)
    kept: dict[str, Any] = json.loads(DATA.read_text()) if DATA.exists() else {}
    for name in options.cases:
        print(f"{name}: preparing", flush=True)
        try:
            kept[_key(name)] = _merged(kept.get(_key(name), {}), _case(name, options))
        except (OSError, CompressError) as error:
            print(f"{name}: skipped: {error}", file=sys.stderr)
            continue
        if not options.quick:
            write_atomic(DATA, json.dumps(kept, indent=1, sort_keys=True).encode() + b"\n")
            write_atomic(TABLE, render(kept).encode())
    print(render({_key(name): kept[_key(name)] for name in options.cases if _key(name) in kept}))
    return 0


def _key(name: str) -> str:
    """A case on such a processor: integers are another story where pairs of products are added in 16 bits."""
    return f"{name}, {'without' if adds_in_16_bits('native') else 'with'} dot products"


def _merged(before: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Returns what was found with the tools that were measured before on the same rows and processor."""
    same = all(before.get(key) == found[key] for key in ("rows", "cpu"))
    return {**found, "tools": {**before["tools"], **found["tools"]}} if same else found


def _try_install(name: str, envs: Path) -> None:
    try:
        envs.mkdir(parents=True, exist_ok=True)
        install(name, envs)
    except PeerError as error:
        (envs / f"{name}.failed").write_text(str(error))
        print(f"{name}: {error}", file=sys.stderr)


def _case(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Everything of one case."""
    source = SOURCES[name]
    scale = 10 if options.quick else 1
    case = source.load(CALIBRATION_ROWS // scale, source.rows // scale)
    with tempfile.TemporaryDirectory(prefix="edge-compress-") as scratch:
        folder = Path(scratch)
        (folder / "float.onnx").write_bytes(OnnxRuntime().lower(case.model).data)
        write_arrays(folder / "calibration.npz", case.calibration)
        reduce = adds_in_16_bits("native")
        asked = {"name": name, "transformer": source.transformer, "reduce": reduce}
        (folder / "case.json").write_text(json.dumps(asked))
        files = {FLOAT: folder / "float.onnx"}
        made: dict[str, dict[str, Any]] = {FLOAT: {"bytes": files[FLOAT].stat().st_size}}
        for tool in options.tools:
            for setting in PEERS[tool].settings(source.transformer):
                if reduce and setting.endswith(" native"):
                    continue  # the same file as that for any processor
                label = f"{tool}, {setting}"
                out = folder / f"{tool}.{setting.replace(' ', '-')}.onnx"
                print(f"{name}: {label}", flush=True)
                try:
                    figures = json.loads(quantize(tool, setting, folder, out, options.envs, options.limit_s))
                    # Some write weights into a file beside it.
                    size = sum(path.stat().st_size for path in folder.glob(f"{out.name}*"))
                    made[label] = {**figures, "bytes": size}
                    files[label] = out
                except PeerError as error:
                    made[label] = {"error": _reason(tool, error, options.envs)}
        _add_quality(case, files, made)
        _add_latency(case, files, made, folder, options)
    machine = environment(("onnxruntime", "onnx", "numpy")).machine
    return {
        "title": source.title,
        "rows": {"calibration": _rows(case.calibration), "test": _rows(case.test)},
        "labelled": case.labels is not None,
        "cpu": f"{machine['cpu']} ({', '.join(machine['features'])}), {machine['cores']} cores",
        "tools": made,
    }


def _reason(tool: str, error: PeerError, envs: Path) -> str:
    failed = envs / f"{tool}.failed"
    return failed.read_text() if failed.exists() and not (envs / tool).exists() else str(error)


def _rows(arrays: Any) -> int:
    return len(next(iter(arrays.values())))


def _add_quality(case: Case, files: dict[str, Path], made: dict[str, dict[str, Any]]) -> None:
    """Scores every file on the test rows; one that fails, or whose answers are no numbers, gets that as its error."""
    baseline: Any = None
    for label, path in list(files.items()):
        try:
            answers = run_outputs(LocalHost(), RUNTIME, path, case.test, threads=1, batch=32, timeout_s=TIMEOUT_S)
            scores = next(iter(answers.values())) if case.output not in answers else answers[case.output]
            baseline = scores if baseline is None else baseline
            labels = case.labels if case.labels is not None else baseline.argmax(axis=-1)
            metric = _primary(case, labels, baseline, scores)
            found = parity({case.output: baseline}, {case.output: scores}, name=FLOAT, decisions={})[0]
        except CompressError as error:
            made[label]["error"] = error.message
            del files[label]
            continue
        interval = metric.interval
        made[label] |= {
            "metric": metric.name,
            "quality": metric.value,
            "difference": metric.difference,
            "interval": [interval.low, interval.high] if interval else None,
            "sqnr_db": found.sqnr_db,
        }


def _primary(case: Case, labels: Any, baseline: Any, scores: Any) -> Metric:
    found = compare_task(
        case.task, labels, baseline, scores, task="", link=case.link, cutoff=0.5, resamples=1000, seed=0, where="scores"
    )
    return next(item for item in found if item.primary)


def _add_latency(
    case: Case, files: dict[str, Path], made: dict[str, dict[str, Any]], folder: Path, options: argparse.Namespace
) -> None:
    """Times every file against the float32 one, in turns within a process, in rounds over all files; one row a call."""
    rows = folder / "row.npz"
    write_arrays(rows, {name: array[:1] for name, array in case.test.items()})
    ring = Ring(RUNTIME, rows, 1, TIMEOUT_S)
    duels = {
        label: in_turns(LocalHost(), Fighter(files[FLOAT], 1), Fighter(path, 1), ring)
        for label, path in files.items()
        if label != FLOAT
    }
    samples: dict[str, list[Sample]] = {label: [] for label in duels}
    for number in range(5 if options.quick else options.pairs):
        for label, take in duels.items():
            if "error" not in made[label]:
                try:
                    samples[label].append(take(number % 2 == 1))
                except WorkerError as error:
                    made[label]["error"] = error.message
    timed = {label: found for label, found in samples.items() if "error" not in made[label]}
    for label, found in timed.items():
        logs = [sample.log_ratio for sample in found]
        interval = ratio_interval(np.ones(len(logs)).tolist(), np.exp(logs).tolist())
        made[label]["ratio"] = [float(np.exp(np.median(logs))), interval.low, interval.high]
        made[label]["ms"] = float(np.median([sample.candidate_ms for sample in found]))
    every = [sample.baseline_ms for found in timed.values() for sample in found]
    made[FLOAT]["ms"] = float(np.median(every)) if every else float("nan")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--envs", type=Path, default=HERE / ".peers", help="where the tools' environments are")
    parser.add_argument("--install", action="store_true", help="make the environments that are missing")
    parser.add_argument("--tools", default=",".join(PEERS), help=f"of: {', '.join(PEERS)}")
    parser.add_argument("--cases", default=",".join(SOURCES), help=f"of: {', '.join(SOURCES)}")
    parser.add_argument("--pairs", type=int, default=11, help="processes a file")
    parser.add_argument("--limit-s", type=float, default=TIMEOUT_S, help="a tool that takes longer stands with that")
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows and few pairs; writes no table")
    options = parser.parse_args()
    for key, known in (("tools", PEERS), ("cases", SOURCES)):
        names = [name.strip() for name in getattr(options, key).split(",") if name.strip()]
        unknown = [name for name in names if name not in known]
        if unknown or not names:
            parser.error(f"--{key}: unknown: {', '.join(unknown) or 'nothing is named'}")
        setattr(options, key, names)
    options.envs = options.envs.expanduser()
    return options


if __name__ == "__main__":
    sys.exit(main())

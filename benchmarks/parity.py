"""The parity matrix of the example models: the same files and the same test rows on this and on emulated processors.

    edge-compress doctor --setup emulated
    python examples/assets.py fashion_mnist
    python benchmarks/parity.py --rows 100 --write benchmarks/parity.md

Every file is made as in the example's recipe, once for any processor (`cpu = "any"`: 7-bit weights in ONNX Runtime) and
once for ones with a dot product (8 bits). No times are taken. What a run finds is added to the rows that are recorded
beside the page, so that a part can be asked alone.
"""

from __future__ import annotations

import argparse
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from parity_table import NOT_THERE, Row, page, record

from compress.bench.environment import environment
from compress.errors import CompressError
from compress.evaluate.parity import parity
from compress.evidence import Parity
from compress.hosts import Host, open_host
from compress.hosts.calls import run_outputs
from compress.hosts.emulation import RUNTIMES
from compress.hosts.local import LocalHost
from compress.processors import PROCESSORS, emulated, this_architecture
from compress.recipe import load_recipe
from compress.report.places import difference
from compress.store.cache import Cache, key
from compress.target import Target
from compress.workflow.arrays import keep_arrays, kept_arrays
from compress.workflow.build import Built, Models, build_models, build_target, open_model
from compress.workflow.certify import spread
from compress.workflow.holdout import Holdout, only_label, take_holdout
from compress.workflow.plan import load_rows, make_plan, versions
from compress.workflow.progress import Silent

ROOT = Path(__file__).resolve().parent.parent
MODELS = {"credit": "examples/credit_default/recipe.toml", "fashion": "examples/fashion_items/recipe.toml"}
SCHEMES = ("float32", "int8-static", "int8-dynamic")
ASKED = ("haswell", "cortex-a76", "cortex-a53")
# Runtime -> the package that runs it.
PACKAGES = {"onnxruntime": "onnxruntime", "litert": "ai-edge-litert", "executorch": "executorch"}
TARGETS = ("onnxruntime-cpu", "litert-cpu", "executorch-cpu")
TIMEOUT_S = 3600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200, help="test rows a file is asked (200)")
    parser.add_argument("--processors", nargs="+", default=ASKED, choices=[item.name for item in emulated()])
    parser.add_argument("--model", choices=MODELS, action="append", help="only this model")
    parser.add_argument("--target", action="append", choices=TARGETS, help="only this target")
    parser.add_argument("--scheme", choices=SCHEMES, action="append", help="only this scheme")
    parser.add_argument("--cache", type=Path, default=ROOT / "benchmarks/.cache/parity", help="finished steps")
    parser.add_argument("--write", type=Path, help="add the rows to this page and to the .json beside it")
    given = parser.parse_args()
    machine, emulator = _machine()
    rows = []
    for name in given.model or MODELS:
        for runtime, file, bits, here, *there in _model(name, given, Cache(given.cache)):
            found = dict(zip(given.processors, there, strict=True))
            rows.append(Row(machine, given.rows, emulator, runtime, name, file, bits, here, found))
            print(" | ".join((name, file, bits, here, *there)), flush=True)
            if given.write:
                given.write.write_text(page(record(given.write.with_suffix(".json"), rows)), encoding="utf-8")
    if not given.write:
        print(page(rows))


def _model(name: str, given: argparse.Namespace, cache: Cache) -> Iterator[tuple[str, ...]]:
    """Yields runtime, file, weights, the cell of this machine and those of the processors."""
    path = ROOT / MODELS[name]
    changes = {"schemes": given.scheme or SCHEMES, "targets": given.target or TARGETS, "explain": None}
    recipe = load_recipe(path).model_copy(update={key: value and tuple(value) for key, value in changes.items()})
    plan = make_plan(recipe, path.parent, str(path))
    dataset, labels = load_rows(plan)
    models = build_models(open_model(plan, dataset, Silent()), plan, (), None, Silent())
    holdout = take_holdout(models, labels, plan)
    for generic in plan.targets:
        made: dict[str, str] = {}
        for cpu in ("any", "cascade-lake"):
            target = generic.model_copy(update={"cpu": cpu})
            for item in build_target(models, target, plan, only_label(labels), cache, Silent()):
                if item.lowered is None:
                    raise CompressError(f"{name}: {target.name}: {item.scheme}: {item.error}")
                if item.sha in made.values():
                    continue
                made[f"{item.scheme} {cpu}"] = item.sha
                bits = "float" if item.precision == "float" else "8 bits"
                if target.runtime == "onnxruntime" and item.precision == "int8" and cpu == "any":
                    bits = "7 bits"
                cells = _cells(item, target, models, holdout, given, cache)
                package = PACKAGES[target.runtime]
                runtime = f"{package} {_packages(target.runtime)[package]}"
                yield (runtime, f"{target.runtime} {item.scheme}", bits, *cells)


def _cells(
    item: Built,
    target: Target,
    models: Models,
    holdout: Holdout,
    given: argparse.Namespace,
    cache: Cache,
) -> Iterator[str]:
    chosen = spread(holdout.parity_rows, given.rows)
    inputs = {name: np.ascontiguousarray(array[chosen]) for name, array in holdout.inputs.items()}
    decisions = {question.output: question.decision for question in holdout.questions}
    rows = hashlib.sha256(chosen.tobytes() + holdout.fingerprint.encode()).hexdigest()

    def ask(host: Host) -> dict[str, np.ndarray]:
        packages = _packages(target.runtime)
        step = key("answers", artifact=item.sha, machine=host.machine, rows=rows, versions=packages)
        kept = kept_arrays(cache, step)
        if kept is None:
            path = cache.path(item.sha)
            kept = run_outputs(host, target.runtime, path, inputs, threads=1, batch=1, timeout_s=TIMEOUT_S)
            keep_arrays(cache, step, kept)
        return kept

    try:
        here = ask(LocalHost())
    except CompressError as error:
        yield f"error: {_told(error)}"
        yield from (NOT_THERE for _ in given.processors)
        return
    yield _cell(parity(models.compressed.run(inputs), here, name="graph", decisions=decisions))
    for cpu in given.processors:
        if PROCESSORS[cpu].architecture != this_architecture() and target.runtime not in RUNTIMES:
            yield NOT_THERE
            continue
        place = _place(target.runtime, cpu)
        try:
            yield _cell(parity(here, ask(open_host(place)), name="local", decisions=decisions, place=cpu))
        except CompressError as error:
            yield f"error: {_told(error)}"


def _place(runtime: str, cpu: str) -> Target:
    return Target.model_validate({"schema": 1, "name": cpu, "runtime": runtime, "host": "emulated", "cpu": cpu})


def _told(error: CompressError) -> str:
    """The first line, without the place of the file that it may begin with."""
    first = error.message.splitlines()[0]
    _, found, rest = first.partition(f"{os.sep}objects{os.sep}")
    return rest.partition(": ")[2] if found else first


def _cell(found: tuple[Parity, ...]) -> str:
    return "; ".join(difference(item) if item.flips is None else f"{difference(item)}, {item.flips}" for item in found)


def _packages(runtime: str) -> dict[str, str]:
    """What a file's answers hang on: the runtime, not this program."""
    return {name: version for name, version in versions(runtime).items() if name != "edge-compress"}


def _machine() -> tuple[str, str]:
    """This processor with its instructions, and what emulates the others."""
    machine, emulator = environment(()).machine, open_host(_place("litert", "haswell")).machine
    return f"{machine['cpu']}: {', '.join(machine['features'])}", emulator[emulator.index("(") + 1 : -1]


if __name__ == "__main__":
    os.chdir(ROOT)
    main()

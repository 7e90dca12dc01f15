"""The parity matrix of the example models: the same files and the same test rows on this and on emulated processors.

    edge-compress doctor --setup emulated
    python examples/assets.py fashion_mnist
    python benchmarks/parity.py --write benchmarks/parity.md

Every file is made as in the example's recipe, once for any processor (`cpu = "any"`: 7-bit weights in ONNX Runtime) and
once for ones with a dot product (8 bits). No times are taken.
"""

from __future__ import annotations

import argparse
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from compress.bench.environment import environment
from compress.errors import CompressError
from compress.evaluate.parity import parity
from compress.evidence import Parity
from compress.hosts import Host, open_host
from compress.hosts.calls import run_outputs
from compress.hosts.local import LocalHost
from compress.processors import emulated
from compress.recipe import load_recipe
from compress.report.markdown_text import table
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
PROCESSORS = ("haswell", "cortex-a76", "cortex-a53")
HEADINGS = ("model", "file", "weights", "here, against the graph")
TIMEOUT_S = 3600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200, help="test rows a file is asked (200)")
    parser.add_argument("--processors", nargs="+", default=PROCESSORS, choices=[item.name for item in emulated()])
    parser.add_argument("--model", choices=MODELS, action="append", help="only this model")
    parser.add_argument("--target", action="append", help="only this target of the recipe")
    parser.add_argument("--cache", type=Path, default=ROOT / "benchmarks/.cache/parity", help="finished steps")
    parser.add_argument("--write", type=Path, help="write the table here")
    given = parser.parse_args()
    rows = []
    for name in given.model or MODELS:
        for row in _model(name, given.rows, given.processors, given.target, Cache(given.cache)):
            rows.append(row)
            print(" | ".join(row), flush=True)
    text = _page(rows, given.rows, given.processors)
    if given.write:
        given.write.write_text(text, encoding="utf-8")
    else:
        print(text)


def _model(
    name: str, count: int, processors: Sequence[str], targets: Sequence[str] | None, cache: Cache
) -> Iterator[tuple[str, ...]]:
    path = ROOT / MODELS[name]
    recipe = load_recipe(path).model_copy(update={"schemes": SCHEMES, "explain": None})
    recipe = recipe.model_copy(update={"targets": tuple(targets or recipe.targets)})
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
                cells = _cells(item, target, models, holdout, count, processors, cache)
                yield (name, f"{target.runtime} {item.scheme}", bits, *cells)


def _cells(
    item: Built,
    target: Target,
    models: Models,
    holdout: Holdout,
    count: int,
    processors: Sequence[str],
    cache: Cache,
) -> Iterator[str]:
    chosen = spread(holdout.parity_rows, count)
    inputs = {name: np.ascontiguousarray(array[chosen]) for name, array in holdout.inputs.items()}
    decisions = {question.output: question.decision for question in holdout.questions}
    rows = hashlib.sha256(chosen.tobytes() + holdout.fingerprint.encode()).hexdigest()

    def ask(host: Host) -> dict[str, np.ndarray]:
        # What a file answers hangs on the runtime, not on this program.
        packages = {name: version for name, version in versions(target.runtime).items() if name != "edge-compress"}
        step = key("answers", artifact=item.sha, machine=host.machine, rows=rows, versions=packages)
        kept = kept_arrays(cache, step)
        if kept is None:
            path = cache.path(item.sha)
            kept = run_outputs(host, target.runtime, path, inputs, threads=1, batch=1, timeout_s=TIMEOUT_S)
            keep_arrays(cache, step, kept)
        return kept

    here = ask(LocalHost())
    yield _cell(parity(models.compressed.run(inputs), here, name="graph", decisions=decisions))
    for cpu in processors:
        place = _place(target.runtime, cpu)
        try:
            yield _cell(parity(here, ask(open_host(place)), name="local", decisions=decisions, place=cpu))
        except CompressError as error:
            yield f"error: {error.message.splitlines()[0]}"


def _place(runtime: str, cpu: str) -> Target:
    return Target.model_validate({"schema": 1, "name": cpu, "runtime": runtime, "host": "emulated", "cpu": cpu})


def _cell(found: tuple[Parity, ...]) -> str:
    return "; ".join(difference(item) if item.flips is None else f"{difference(item)}, {item.flips}" for item in found)


def _page(rows: list[tuple[str, ...]], count: int, processors: Sequence[str]) -> str:
    machine = environment(()).machine
    runtimes = {
        name: version for key in ("onnxruntime", "litert", "executorch") for name, version in versions(key).items()
    }
    packages = ", ".join(f"{name} {runtimes[name]}" for name in ("onnxruntime", "ai-edge-litert", "executorch"))
    chosen = "" if tuple(processors) == PROCESSORS else f" --processors {' '.join(processors)}"
    emulator = open_host(_place("litert", "haswell")).machine
    return f"""# The same files on other processors

```
python benchmarks/parity.py --rows {count}{chosen} --write benchmarks/parity.md
```

Each cell is the largest difference of an output, its share of the output's range, and the number of {count} test
rows that are decided otherwise. "Here" ({machine["cpu"]}: {", ".join(machine["features"])}) is compared
with the graph that the file was made from; every other column is the same file on the same rows, one a call, compared
with its answers here. Processors are emulated ({emulator[emulator.index("(") + 1 : -1]}); {packages}.
A file that is the same for any processor and for those with a dot product stands once.

{table((*HEADINGS, *processors), rows)}
"""


if __name__ == "__main__":
    os.chdir(ROOT)
    main()

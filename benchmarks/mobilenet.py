"""Writes ImageNet's MobileNetV2 (224x224) for one target, one file a scheme, to be timed beside each other.

    python benchmarks/mobilenet.py --target executorch-cpu --out out-mobilenet
    edge-compress bench out-mobilenet/float32.pte out-mobilenet/int8-static.pte

The case is that of `quantization.py`: ImageNet's weights, ranges from enlarged pictures of Fashion-MNIST.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from quantization_cases import SOURCES

from compress.calibrate import calibrate
from compress.errors import CompressError
from compress.recipe import BUILTIN_SCHEMES
from compress.store.atomic import write_atomic
from compress.target import load_target
from compress.workflow.plan import runtime

BATCH = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="executorch-cpu", help="a profile, or a file ending in .toml")
    parser.add_argument("--schemes", nargs="+", default=["float32", "int8-static", "int8-dynamic"])
    parser.add_argument("--calibration", type=int, default=64, help="rows that ranges are found on (64)")
    parser.add_argument("--out", type=Path, required=True, help="folder for the files")
    given = parser.parse_args()
    target = load_target(given.target, Path())
    engine = runtime(target.runtime)
    case = SOURCES["imagenet"].load(given.calibration, 1)
    (rows,) = case.calibration.values()
    name = next(iter(case.calibration))
    ranges = calibrate(case.model, ({name: rows[at : at + BATCH]} for at in range(0, len(rows), BATCH)))
    lowered = engine.lower(case.model)
    given.out.mkdir(parents=True, exist_ok=True)
    for scheme in (BUILTIN_SCHEMES[each] for each in given.schemes):
        try:
            made = lowered if scheme.dtype == "float32" else engine.quantize(lowered, scheme, ranges, target)
        except CompressError as error:
            print(f"{scheme.name}: {error.message}")
            continue
        path = given.out / f"{scheme.name}{made.suffix}"
        write_atomic(path, made.data)
        print(path, *made.notes, sep="\n  ", flush=True)


if __name__ == "__main__":
    main()

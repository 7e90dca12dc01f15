"""Runs an example whole: fetches what it needs, trains where no checkpoint lies there, compresses and measures.

    python examples/run.py message_intent
    python examples/run.py --all
    python examples/run.py credit_default --everywhere

`--everywhere` takes every runtime that a processor runs instead of the recipe's targets, and sets up the one that needs
an environment of its own. It ends with the worst exit code of its runs: 0 pass, 1 gate failed, 3 inconclusive.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Every runtime that runs on this machine's processor, one thread each.
EVERYWHERE = (
    "onnxruntime-cpu",
    "onnxruntime-mobile",
    "litert-cpu",
    "tflite-runtime-cpu",
    "executorch-cpu",
    "torch-cpu",
    "torch-compile-cpu",
)


@dataclass(frozen=True)
class Example:
    """What an example needs before it runs.

    Attributes:
        assets: What `assets.py` fetches.
        made: What training leaves behind, relative to the example's folder; empty where it is committed.
        recipes: Recipe -> output folder, relative to the example's folder.
    """

    assets: tuple[str, ...]
    made: str
    recipes: dict[str, str]


EXAMPLES = {
    "credit_default": Example((), "", {"recipe.toml": "out"}),
    "credit_multitask": Example((), "", {"recipe-hard.toml": "out/hard", "recipe-soft.toml": "out/soft"}),
    "message_intent": Example(("minilm", "banking77"), "model/model.safetensors", {"recipe.toml": "out"}),
    "fashion_items": Example(("fashion_mnist",), "", {"recipe.toml": "out"}),
}


def main() -> int:
    """Runs what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(EXAMPLES)}")
    parser.add_argument("--all", action="store_true", help="all of them")
    parser.add_argument("--everywhere", action="store_true", help=f"for {', '.join(EVERYWHERE)}")
    options = parser.parse_args()
    names = list(EXAMPLES) if options.all else options.names
    unknown = [name for name in names if name not in EXAMPLES]
    if unknown or not names:
        parser.error(f"there is no example {unknown[0]!r}" if unknown else "name an example, or give --all")
    if options.everywhere:
        step(sys.executable, "-m", "compress", "doctor", "--setup", "tflite-runtime")
    targets = EVERYWHERE if options.everywhere else ()
    return max(run(name, EXAMPLES[name], targets) for name in names)


def run(name: str, example: Example, targets: tuple[str, ...] = ()) -> int:
    """Carries out the steps of one example and returns the worst exit code of its runs.

    With `targets` they take the place of the recipe's, and what they give lies in a folder beside the usual one.
    """
    folder = HERE / name
    if example.assets:
        step(sys.executable, HERE / "assets.py", *example.assets)
    if example.made and not (folder / example.made).is_file():
        step(sys.executable, folder / "train.py", "--threads", "2")
    codes = []
    for recipe, out in example.recipes.items():
        chosen = [part for target in targets for part in ("--target", target)]
        place = folder / (f"{out}-everywhere" if targets else out)
        command = [sys.executable, "-m", "compress", "run", str(folder / recipe), *chosen, "--out", str(place)]
        print("$ edge-compress run", f"{folder.name}/{recipe}", *chosen, flush=True)
        codes.append(subprocess.run(command, check=False).returncode)
    return max(codes)


def step(*command: object) -> None:
    """Runs a command that must succeed."""
    print("$", *(part.name if isinstance(part, Path) else part for part in command[1:]), flush=True)
    subprocess.run([str(part) for part in command], check=True)


if __name__ == "__main__":
    sys.exit(main())

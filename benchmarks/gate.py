"""Can the latency check be trusted? Records worker processes under load, and judges every rule on the same ones.

    python benchmarks/gate.py all                    # records what is missing, runs live checks, writes gate.md
    python benchmarks/gate.py record --minutes 20    # goes on where it stopped
    python benchmarks/gate.py judge                  # the table, from what is recorded; seconds

`record` must have the machine for itself: it makes the load of each condition by itself.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from gate_models import rows, write_models
from gate_rules import PEERS, ours
from scipy import stats

from compress.bench.duels import Fighter, Ring, in_turns
from compress.bench.environment import environment
from compress.bench.sequential import ALPHA
from compress.hosts.calls import ask
from compress.hosts.local import LocalHost
from compress.store.atomic import write_atomic
from compress.worker.arrays import write_arrays

HERE = Path(__file__).parent
DATA, TABLE = HERE / "gate_data", HERE / "gate.md"
CONDITIONS = ("quiet", "one hog", "two hogs", "a hog that comes and goes")
# Variant -> (baseline, candidate, threads of each, duels recorded). The first is the A/A pair.
DUELS = {
    "equal": ("base", "equal", (1, 1), 240),
    "plus2": ("base", "plus2", (1, 1), 80),
    "plus3": ("base", "plus3", (1, 1), 80),
    "plus5": ("base", "plus5", (1, 1), 80),
    "plus10": ("base", "plus10", (1, 1), 80),
    "two threads to one": ("base", "equal", (2, 1), 40),
    "int8 with a fallback": ("int8", "fallback", (1, 1), 40),
}
SINGLES = {"base": 120, "equal": 80, "plus2": 60, "plus3": 60, "plus5": 60, "plus10": 60}
VALUES = 10
CHECKS = 300
BUDGET_S = 60.0
HOG = "while True: sum(range(10000))"
FLICKER = """
import random, time
while True:
    end = time.monotonic() + random.uniform(0.5, 4)
    while time.monotonic() < end: sum(range(10000))
    time.sleep(random.uniform(0.5, 4))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("all", "record", "live", "judge"))
    parser.add_argument("--minutes", type=float, default=150, help="of recording")
    parser.add_argument("--condition", choices=CONDITIONS, action="append", help="only these")
    parser.add_argument("--scale", type=float, default=1, help="share of the processes; below 1 only to try it")
    parser.add_argument(
        "--live", type=int, default=40, help="live checks of equal models, under each condition in turn"
    )
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--table", type=Path, default=TABLE)
    given = parser.parse_args()
    # Unwinds the stack, so that no hog outlives a benchmark that was ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    end = time.monotonic() + 60 * given.minutes
    conditions = given.condition or CONDITIONS
    if given.what in ("all", "record"):
        for condition in conditions:
            record(condition, given.data, end, given.scale)
    if given.what in ("all", "live"):
        live(given.live, given.data, end if given.what == "live" else math.inf, conditions)
    if given.what in ("all", "judge"):
        text = table(given.data)
        write_atomic(given.table, text.encode())
        print(text)
    return 0


def record(condition: str, folder: Path, end: float, scale: float) -> None:
    """Records the processes that are missing, in random order, and saves every half minute."""
    kept = read(folder, condition)
    wanted = [("duel", name) for name, (*_, count) in DUELS.items() for _ in range(round(count * scale))]
    wanted += [("single", name) for name, count in SINGLES.items() for _ in range(round(count * scale))]
    done = Counter((kind, name) for kind in ("duel", "single") for name, found in kept[kind].items() for _ in found)
    missing = list((Counter(wanted) - done).elements())
    np.random.default_rng(len(missing)).shuffle(missing)
    print(f"{condition}: {sum(done.values())} recorded, {len(missing)} missing", flush=True)
    with tempfile.TemporaryDirectory(prefix="edge-compress-") as scratch, load(condition):
        site = Site(Path(scratch))
        saved = time.monotonic()
        try:
            for kind, name in missing:
                if time.monotonic() >= end:
                    print("the time is spent; the same command goes on")
                    return
                found = site.duel(name) if kind == "duel" else site.single(name)
                kept[kind].setdefault(str(name), []).append(found)
                kept.setdefault("load_average", []).append(round(os.getloadavg()[0], 2))
                if time.monotonic() - saved > 30:
                    write(folder, condition, kept)
                    saved = time.monotonic()
        finally:
            write(folder, condition, kept)


class Site:
    """The models, their row, and how one process is taken."""

    def __init__(self, folder: Path) -> None:
        self.models = write_models(folder)
        self.inputs = folder / "rows.npz"
        write_arrays(self.inputs, rows())
        self.host = LocalHost()
        self.coin = np.random.default_rng()

    def duel(self, name: str) -> list[float]:
        """(log ratio, log load ratio, seconds) of one process."""
        base, new, threads, _ = DUELS[name]
        ring = Ring("onnxruntime", self.inputs, 1, 120)
        start = time.monotonic()
        sides = (Fighter(self.models[base], threads[0]), Fighter(self.models[new], threads[1]))
        sample = in_turns(self.host, *sides, ring)(bool(self.coin.integers(2)))
        seconds = time.monotonic() - start
        return [round(sample.log_ratio, 5), round(sample.load_log_ratio or 0.0, 4), round(seconds, 2)]

    def single(self, name: str) -> list[float]:
        """Per-call milliseconds of evenly spaced samples of one process that has the machine's attention alone."""
        job = {
            "action": "latency",
            "runtime": "onnxruntime",
            "artifact": str(self.models[name]),
            "inputs": str(self.inputs),
            "seconds": 0.3,
            "warmup_s": 0.1,
        }
        samples = ask(self.host, job, 120)["samples_ms"]
        places = np.linspace(0, len(samples) - 1, VALUES).astype(int)
        return [round(samples[place], 4) for place in places]


@contextlib.contextmanager
def load(condition: str) -> Iterator[None]:
    """Runs the hogs of a condition, and ends them however it ends."""
    programs = {"quiet": (), "one hog": (HOG,), "two hogs": (HOG, HOG), CONDITIONS[3]: (FLICKER,)}[condition]
    hogs = [subprocess.Popen([sys.executable, "-I", "-c", program]) for program in programs]
    try:
        yield
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()


def live(count: int, folder: Path, end: float, conditions: tuple[str, ...]) -> None:
    """Whole checks of equal models, from the command's own entry, under each condition in turn."""
    from compress.workflow.baseline import Baselines
    from compress.workflow.check import CheckOptions, check
    from compress.workflow.progress import Silent
    from compress.workflow.save_baseline import save

    path = folder / "live.json"
    kept: list[list[Any]] = json.loads(path.read_text()) if path.exists() else []
    with tempfile.TemporaryDirectory(prefix="edge-compress-") as scratch:
        models = write_models(Path(scratch) / "models")
        for number in range(len(kept), count):
            if time.monotonic() >= end:
                return
            condition = conditions[number % len(conditions)]
            project = Path(scratch) / str(number)
            project.mkdir()
            (project / "model.onnx").write_bytes(models["base"].read_bytes())
            baselines = Baselines(project, project / "store")
            with load(condition):
                save(baselines, "main", [project / "model.onnx"], (), Silent())
                (project / "model.onnx").write_bytes(models["equal"].read_bytes())
                result = check(baselines, CheckOptions(budget_s=BUDGET_S, seed=number), Silent())
            row = result.rows[0]
            kept.append([condition, row.verdict, [rule.name for rule in row.broken], row.pairs, result.seconds])
            print(f"live check {number + 1} of {count}: {condition}: {row.verdict} {kept[-1][2]}", flush=True)
            write_atomic(path, json.dumps(kept).encode() + b"\n")


def table(folder: Path) -> str:
    """Every rule on the recorded processes of every condition, as Markdown."""
    lines: list[str] = []
    accused: list[int] = []
    for condition in CONDITIONS:
        kept = read(folder, condition)
        count = sum(len(found) for kind in ("duel", "single") for found in kept[kind].values())
        if count:
            found, wrong = _condition(kept)
            accused.append(wrong)
            lines += [f"## {condition[0].upper()}{condition[1:]}: {count} worker processes", "", *found, ""]
    head = ["# Can the latency check be trusted?", "", "Written by `python benchmarks/gate.py judge`.", ""]
    if accused:
        every = CHECKS * len(accused)
        head += [
            f"Equal models under {len(accused)} conditions: {sum(accused)} of {every} resampled checks said SLOWER, "
            f"{_share(sum(accused), every)}. By construction it is at most {ALPHA / 2:.1%} of checks.",
            "",
        ]
    return "\n".join([*head, *lines, *_live_lines(folder)])


def _condition(kept: dict[str, Any]) -> tuple[list[str], int]:
    """The table of a condition, and how many checks of equal models said SLOWER."""
    random = np.random.default_rng(0)
    duels, singles = kept["duel"], kept["single"]
    sizes = {name: math.exp(median(log for log, *_ in found)) for name, found in duels.items() if found}
    machine = kept["machine"]
    load = kept.get("load_average")
    lines = [
        f"{machine.get('cpu')}, {machine.get('cores')} cores. {CHECKS} checks resampled for each cell; brackets: exact "
        "95 % interval, as if they did not overlap."
        + (f" Load average while recording: median {median(load):.1f}, highest {max(load):.1f}." if load else ""),
        "",
    ]
    names = [name for name in DUELS if duels.get(name)]
    titles = [f"{name} (is {sizes[name]:.3f}x)" for name in names]
    lines += ["| said SLOWER | " + " | ".join(titles) + " |", "|---" * (len(names) + 1) + "|"]
    verdicts = {name: _ours(duels[name], random) for name in names}
    cells = [_share(sum(v == "SLOWER" for v, *_ in verdicts[name])) for name in names]
    lines.append("| **edge-compress check, tolerance 2 %** | " + " | ".join(cells) + " |")
    for title, (processes, rule) in PEERS.items():
        cells = []
        for name in names:
            usable = name in SINGLES and len(singles.get(name, ())) > processes and len(singles["base"]) > processes
            cells.append(_share(_peer(singles["base"], singles[name], processes, rule, random)) if usable else "-")
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    unknown = [_share(sum(v == "UNKNOWN" for v, *_ in verdicts[name])) for name in names]
    wrong = [_share(sum(v in ("SAME", "FASTER") for v, *_ in verdicts[name])) for name in names]
    faster = [_share(sum(v == "FASTER" for v, *_ in verdicts[name])) for name in names]
    spent = [f"{median(s for *_, s in verdicts[name]):.0f} s" for name in names]
    for title, cells in (("UNKNOWN", unknown), ("SAME or FASTER", wrong), ("FASTER", faster), ("timing", spent)):
        lines.append(f"| edge-compress check: {title} | " + " | ".join(cells) + " |")
    return lines, sum(verdict == "SLOWER" for verdict, *_ in verdicts.get("equal", ()))


def _ours(found: list[list[float]], random: np.random.Generator) -> list[tuple[str, int, float]]:
    """Checks that begin at random places of the recording and go on in its order."""
    starts = random.integers(0, len(found), CHECKS)
    return [ours([*found[start:], *found[:start]], BUDGET_S) for start in starts]


def _peer(
    base: list[list[float]],
    new: list[list[float]],
    processes: int,
    rule: Callable[[list[list[float]], list[list[float]]], bool],
    random: np.random.Generator,
) -> int:
    """A stored baseline and a later candidate: runs of processes from different places of the recording."""
    said = 0
    for _ in range(CHECKS):
        one, two = (int(random.integers(0, len(side) - processes)) for side in (base, new))
        said += rule(base[one : one + processes], new[two : two + processes])
    return said


def _live_lines(folder: Path) -> list[str]:
    path = folder / "live.json"
    if not path.exists():
        return []
    kept = json.loads(path.read_text())
    accused = sum(verdict == "SLOWER" or bool(broken) for _, verdict, broken, *_ in kept)
    told = _told(Counter(item[1] for item in kept))
    by_condition = {
        condition: Counter(item[1] for item in kept if item[0] == condition)
        for condition in CONDITIONS
        if any(item[0] == condition for item in kept)
    }
    seconds = median(item[4] for item in kept)
    return [
        "## Live checks of equal models",
        "",
        f"{len(kept)} whole checks: {told}; accused: {_share(accused, len(kept))}; median {seconds:.0f} s each.",
        "",
        "| condition | checks | verdicts |",
        "|---|---|---|",
        *(f"| {condition} | {sum(found.values())} | {_told(found)} |" for condition, found in by_condition.items()),
        "",
    ]


def _told(found: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(found.items()))


def _share(count: int, of: int = CHECKS) -> str:
    low, high = stats.binomtest(count, of).proportion_ci(method="exact")
    return f"{count / of:.1%} [{low:.1%}, {high:.1%}]"


def read(folder: Path, condition: str) -> dict[str, Any]:
    """What was recorded under a condition."""
    path = _path(folder, condition)
    if path.exists():
        found: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()))
        return found
    machine = environment(("onnxruntime", "numpy"))
    kept = {"cpu": machine.machine["cpu"], "cores": machine.machine["allowed_cores"], **machine.packages}
    return {"schema": 1, "machine": kept, "duel": {}, "single": {}}


def write(folder: Path, condition: str, kept: dict[str, Any]) -> None:
    """Writes a recording, the same bytes for the same content."""
    text = json.dumps(kept, separators=(",", ":"), sort_keys=True)
    write_atomic(_path(folder, condition), gzip.compress(text.encode(), mtime=0))


def _path(folder: Path, condition: str) -> Path:
    return folder / f"{condition.replace(' ', '-')}.json.gz"


if __name__ == "__main__":
    sys.exit(main())

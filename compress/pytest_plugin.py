"""The pytest plugin: `latency_gate`, so that a test suite can assert a latency budget or no regression.

Loaded into every pytest run of whoever installed the package, so it imports nothing of it before a test asks.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from compress.bench.duels import Fighter, Ring
    from compress.bench.race import Sample
    from compress.bench.sequential import Judgement
    from compress.hosts import Host


class LatencyGate:
    """Asserts about the latency of a model file; a failed or undecided gate fails the test."""

    def __call__(
        self,
        artifact: str | Path,
        *,
        budget_ms: float | None = None,
        baseline: str | Path | None = None,
        tolerance: float = 0.02,
        target: str | None = None,
        batch: int = 1,
        budget_s: float = 30.0,
    ) -> Judgement:
        """Measures a file against a budget, or in turns with another file, until that is told.

        Args:
            artifact: An `.onnx` or `.tflite` file.
            budget_ms: The median of a call must be shown to be at most this, by the wall clock.
            baseline: The file must be shown to be no slower than this one by more than `tolerance`.
            tolerance: As a share.
            target: Whose threads count; the generic profile of the file's runtime if None.
            batch: Synthetic rows a call.
            budget_s: Seconds until an undecided gate fails.

        Returns:
            The ratio to the budget or the baseline, its 99 % interval and the number of processes.

        Raises:
            ValueError: If not exactly one of `budget_ms` and `baseline` is given.
        """
        __tracebackhide__ = True
        if (budget_ms is None) == (baseline is None):
            raise ValueError("latency_gate needs either budget_ms or baseline")
        paths = [Path(artifact)] if baseline is None else [Path(baseline), Path(artifact)]
        allowed = 0.0 if baseline is None else tolerance
        found, error = _measure(paths, budget_ms, allowed, target, batch, budget_s)
        against = f"the budget of {budget_ms:g} ms" if budget_ms is not None else f"{baseline}"
        if error:
            pytest.fail(f"{artifact}: not measured: {error}", pytrace=False)
        shown = f"[{found.interval.low:.3f}, {found.interval.high:.3f}]" if found.interval else "[no interval]"
        text = f"{artifact}: {found.ratio:.3f}x {shown} of {against} over {found.pairs} processes: {found.verdict}"
        if found.verdict == "SLOWER":
            pytest.fail(f"{text} (allowed is {1 + allowed:g}x)", pytrace=False)
        if found.verdict == "UNKNOWN":
            pytest.fail(f"{text}; undecided is no pass: raise budget_s, or free the machine", pytrace=False)
        return found


@pytest.fixture(scope="session")
def latency_gate() -> LatencyGate:
    """Asserts a latency budget (`budget_ms=`) or no regression against a file (`baseline=`)."""
    return LatencyGate()


def _measure(
    paths: list[Path], budget_ms: float | None, tolerance: float, target: str | None, batch: int, budget_s: float
) -> tuple[Judgement, str]:
    import tempfile

    from compress.bench.duels import Fighter, Ring, in_turns
    from compress.bench.race import Row, race
    from compress.bench.sequential import ALPHA, judge_row
    from compress.hosts import timing_host
    from compress.target import load_target
    from compress.worker.arrays import write_arrays
    from compress.workflow.figures import TIMEOUT_S, Subject, rows_for
    from compress.workflow.files import open_files
    from compress.workflow.shipped import generic_target

    files = open_files(paths)
    place = load_target(target, Path()) if target else generic_target(files[-1].runtime)
    host = timing_host(place)
    with tempfile.TemporaryDirectory(prefix="edge-compress-") as folder:
        rows = Path(folder) / "rows.npz"
        first = files[0]
        write_arrays(rows, rows_for(host, Subject(first.path, first.runtime, first.precision, place.threads, batch)))
        ring = Ring(first.runtime, rows, batch, TIMEOUT_S)
        fighters = [Fighter(file.path, place.threads) for file in files]
        take: Callable[[bool], Sample]
        take = (
            in_turns(host, fighters[0], fighters[-1], ring)
            if budget_ms is None
            else _against_budget(host, fighters[0], ring, budget_ms)
        )
        row = Row(first.name, tolerance, take)
        race([row], alpha=ALPHA, budget_s=budget_s, seed=0)
    return judge_row(row.logs, tolerance, ALPHA), row.error


def _against_budget(host: Host, fighter: Fighter, ring: Ring, budget_ms: float) -> Callable[[bool], Sample]:
    import math

    from compress.bench.duels import median_ms
    from compress.bench.race import Sample

    def take(_: bool) -> Sample:
        found = median_ms(host, fighter, ring)
        return Sample(math.log(found / budget_ms), budget_ms, found, "wall")

    return take

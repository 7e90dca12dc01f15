from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress.bench.duels import Fighter, Ring, apart, in_turns
from compress.bench.race import MAX_PAIRS, Row, Sample, race
from compress.errors import WorkerError


class Clock:
    """Seconds that pass only when a sample is taken."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def sampler(clock: Clock, ratio: float, sd: float = 0.0, seed: int = 0) -> Callable[[bool], Sample]:
    random = np.random.default_rng(seed)

    def take(flip: bool) -> Sample:
        clock.now += 1
        return Sample(math.log(ratio) + random.normal(0, sd), 1.0, ratio, "wall")

    return take


def test_decided_rows_stop_and_the_others_use_their_time() -> None:
    clock = Clock()
    rows = [Row("clear", 0.02, sampler(clock, 1.5)), Row("close", 0.02, sampler(clock, 1.02, sd=0.02))]
    race(rows, alpha=0.01, budget_s=60, seed=0, clock=clock)
    assert len(rows[0].samples) == 12
    assert len(rows[1].samples) == 48
    assert clock.now == 60


def test_every_row_gets_a_sample_however_short_the_time() -> None:
    clock = Clock()
    rows = [Row(str(k), 0.02, sampler(clock, 1.0)) for k in range(3)]
    race(rows, alpha=0.01, budget_s=0, seed=0, clock=clock)
    assert [len(row.samples) for row in rows] == [1, 1, 1]


def test_a_row_that_fails_ends_alone() -> None:
    clock = Clock()

    def crash(flip: bool) -> Sample:
        raise WorkerError("the worker was killed by SIGSEGV")

    rows = [Row("broken", 0.02, crash), Row("good", 0.02, sampler(clock, 1.0))]
    race(rows, alpha=0.01, budget_s=60, seed=0, clock=clock)
    assert "SIGSEGV" in rows[0].error
    assert len(rows[1].samples) == 12


def test_who_goes_first_is_a_fair_coin_that_the_seed_repeats() -> None:
    def flips(seed: int) -> list[bool]:
        seen: list[bool] = []
        clock = Clock()

        def take(flip: bool) -> Sample:
            seen.append(flip)
            clock.now += 1
            return Sample(math.log(1.02) + (0.1 if len(seen) % 2 else -0.1), 1.0, 1.0, "wall")

        race([Row("a", 0.02, take)], alpha=0.01, budget_s=100, seed=seed, clock=clock)
        return seen

    assert flips(1) == flips(1) != flips(2)
    assert 30 <= sum(flips(1)) <= 70


def test_a_row_ends_at_a_stated_number_of_pairs() -> None:
    clock = Clock()
    samples = iter(range(10**6))
    row = Row("even", 0.02, lambda flip: Sample(0.5 if next(samples) % 2 else -0.5, 1.0, 1.0, "wall"))
    race([row], alpha=0.01, budget_s=1e9, seed=0, clock=clock)
    assert len(row.samples) == MAX_PAIRS


def test_no_rows_are_no_race() -> None:
    race([], alpha=0.01, budget_s=1, seed=0)


def test_setting_the_time_of_day_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    clock = Clock()
    jumps = iter(range(10**6))
    monkeypatch.setattr(time, "time", lambda: (-1e9) ** (next(jumps) % 2))
    monkeypatch.setattr(time, "time_ns", lambda: -(10**18))
    row = Row("a", 0.02, sampler(clock, 1.0))
    race([row], alpha=0.01, budget_s=30, seed=0)
    assert len(row.samples) == 11


class DuelHost:
    """Answers duels with given times per call."""

    def __init__(self, **answer: Any) -> None:
        self.answer = answer
        self.jobs: list[dict[str, Any]] = []

    def run(self, job: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        self.jobs.append(dict(job))
        return {"schema": 1, **self.answer}


DUEL = {
    "artifact_wall_ms": [2.0, 2.0, 40.0],
    "rival_wall_ms": [2.2, 40.0, 40.0],
    "artifact_cpu_ms": [1.0, 1.0, 1.0],
    "rival_cpu_ms": [1.1, 1.1, 1.1],
    "artifact_waits": 0.0,
    "rival_waits": 0.0,
    "artifact_load_ms": 10.0,
    "rival_load_ms": 20.0,
}
RING = Ring("fake", Path("in.npz"), 1, 5)
FIGHTERS = (Fighter(Path("a"), 1), Fighter(Path("b"), 1))


def test_processor_time_judges_where_nobody_waits() -> None:
    sample = in_turns(DuelHost(**DUEL), *FIGHTERS, RING)(True)
    assert sample.clock == "processor"
    assert sample.load_log_ratio == pytest.approx(math.log(2))
    assert math.exp(sample.log_ratio) == pytest.approx(1.1)
    assert (sample.baseline_ms, sample.candidate_ms) == (2.0, 40.0)
    assert sample.judged_ms == (1.0, 1.1)


@pytest.mark.parametrize("change", [{"rival_waits": 1.0}, {"artifact_waits": 0.2}])
def test_the_wall_clock_judges_where_a_side_waits(change: dict[str, float]) -> None:
    sample = in_turns(DuelHost(**DUEL | change), *FIGHTERS, RING)(False)
    assert (sample.clock, sample.judged_ms) == ("wall", (2.0, 40.0))


def test_a_side_may_have_rows_of_its_own() -> None:
    host = DuelHost(**DUEL)
    in_turns(host, Fighter(Path("a"), 1, Path("a.npz")), Fighter(Path("b"), 1, Path("b.npz")), RING)(False)
    in_turns(host, *FIGHTERS, RING)(False)
    assert [(job["inputs"], job.get("rival_inputs")) for job in host.jobs] == [("a.npz", "b.npz"), ("in.npz", None)]


def test_the_wall_clock_judges_several_threads() -> None:
    host = DuelHost(**DUEL)
    assert in_turns(host, FIGHTERS[0], Fighter(Path("b"), 2), RING)(False).clock == "wall"
    assert (host.jobs[0]["threads"], host.jobs[0]["rival_threads"], host.jobs[0]["flip"]) == (1, 2, False)


def test_two_interpreters_are_measured_apart_in_the_order_of_the_coin() -> None:
    order: list[str] = []

    class Side(DuelHost):
        def run(self, job: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
            order.append(self.answer["name"])
            return super().run(job, timeout_s)

    one, two = (Side(name=name, **_itself(ms)) for name, ms in (("one", 1.0), ("two", 2.0)))
    sample = apart((one, two), *FIGHTERS, RING)(True)
    assert order == ["two", "one"]
    assert sample.load_log_ratio == pytest.approx(math.log(4))
    assert math.exp(sample.log_ratio) == pytest.approx(2)
    assert (sample.clock, sample.baseline_ms, sample.candidate_ms) == ("processor", 3.0, 6.0)
    two.answer["rival_waits"] = 1.0
    assert apart((one, two), *FIGHTERS, RING)(False).clock == "wall"


_CLOCKS = (("cpu_ms", 1.0), ("wall_ms", 3.0))


def _itself(ms: float) -> dict[str, Any]:
    times = {f"{side}_{clock}": [factor * ms] * 3 for side in ("artifact", "rival") for clock, factor in _CLOCKS}
    loads = {f"{side}_load_ms": 4 * ms * ms for side in ("artifact", "rival")}
    return {**times, **loads, "artifact_waits": 0.0, "rival_waits": 0.0}

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress.bench.conductor import BenchItem, BenchResult, measure
from compress.errors import CompressError, DataError, WorkerError
from compress.worker.arrays import read_arrays

SETTINGS: dict[str, Any] = {
    "threads": 1,
    "batch": 2,
    "seconds": 0.2,
    "pairs": 9,
    "max_pairs": 18,
    "tolerance": 0.02,
    "seed": 0,
    "timeout_s": 5,
}


class FakeHost:
    """Answers with times drawn around `speeds[artifact]` milliseconds, and fails where it is told to."""

    def __init__(
        self, speeds: Mapping[str, float], sd: float = 0.001, calls: int = 1, samples: int = 80, singles: int = 0
    ) -> None:
        self.speeds = dict(speeds)
        self.jobs: list[dict[str, Any]] = []
        self.rows: set[int] = set()
        self.failures: dict[tuple[str, int], str] = {}
        self._sd, self._calls, self._samples = sd, calls, samples
        self._singles = singles
        self._random = np.random.default_rng(0)

    def run(self, job: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        self.jobs.append(dict(job))
        if job["action"] == "empty":
            if job["runtime"] == "missing":
                raise WorkerError("the runtime cannot be imported", "install it.")
            return {"schema": 1, "peak_rss_bytes": 1000 + self._random.integers(3).item()}
        name = Path(job["artifact"]).name
        self.rows |= {len(array) for array in read_arrays(Path(job["inputs"])).values()}
        count = self.measured()[name]
        if (name, count) in self.failures:
            return {"schema": 1, "error": {"message": self.failures[name, count], "hint": ""}}
        process = self.speeds[name] * np.exp(self._random.normal(0, self._sd))
        return {
            "schema": 1,
            "load_ms": 10.0 * count,
            "first_ms": 2.0,
            "samples_ms": [float(process)] * self._samples,
            "calls_per_sample": self._calls,
            "singles_ms": [float(process)] * self._singles,
            "peak_rss_bytes": 5000 + count,
        }

    def measured(self) -> Counter[str]:
        return Counter(Path(job["artifact"]).name for job in self.jobs if job["action"] == "latency")


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    np.savez(tmp_path / "inputs.npz", x=np.zeros((6, 3), np.float32))
    return tmp_path / "inputs.npz"


Bench = Callable[..., dict[str, BenchResult]]


@pytest.fixture
def bench(inputs: Path) -> Bench:
    def run(host: FakeHost, *names: str, **change: Any) -> dict[str, BenchResult]:
        items = [BenchItem(name, "fake", Path(f"/models/{name}")) for name in names or host.speeds]
        return measure(host, items, inputs, **{**SETTINGS, **change})

    return run


def verdicts(results: Mapping[str, BenchResult]) -> dict[str, str]:
    return {
        name: result.latency.comparison.verdict
        for name, result in results.items()
        if result.latency and result.latency.comparison
    }


def test_clear_cases_are_decided_in_the_first_rounds(bench: Bench) -> None:
    host = FakeHost({"float32": 4.0, "fast": 2.0, "slow": 8.0, "twin": 4.0})
    results = bench(host)
    assert verdicts(results) == {"fast": "FASTER", "slow": "SLOWER", "twin": "SAME"}
    assert set(host.measured().values()) == {9}
    fast = results["fast"].latency
    assert fast is not None
    assert fast.comparison is not None
    assert fast.comparison.baseline == "float32"
    assert fast.comparison.ratio == pytest.approx(0.5, rel=0.01)
    assert (fast.processes, fast.batch, fast.threads, len(fast.samples)) == (9, 2, 1, 9)
    assert fast.median_ms == pytest.approx(2, rel=0.01)
    assert results["float32"].latency is not None
    assert results["float32"].latency.comparison is None


def test_only_the_undecided_go_on_with_the_baseline(bench: Bench) -> None:
    host = FakeHost({"float32": 4.0, "fast": 2.0, "close": 4.08}, sd=0.02)
    results = bench(host)
    assert verdicts(results)["close"] == "UNKNOWN"
    assert host.measured() == {"float32": 18, "fast": 9, "close": 18}
    assert results["fast"].latency is not None
    assert results["fast"].latency.comparison is not None
    assert results["fast"].latency.comparison.pairs == 9


def test_rounds_are_complete_and_shuffled_by_the_seed(bench: Bench) -> None:
    def order(seed: int) -> list[str]:
        host = FakeHost({"float32": 4.0, "fast": 2.0, "slow": 8.0})
        bench(host, seed=seed)
        return [Path(job["artifact"]).name for job in host.jobs if job["action"] == "latency"]

    one = order(seed=1)
    rounds = [one[start : start + 3] for start in range(0, len(one), 3)]
    assert all(set(names) == {"float32", "fast", "slow"} for names in rounds)
    assert len({tuple(names) for names in rounds}) > 1
    assert order(seed=1) == one
    assert order(seed=2) != one


def test_a_drift_of_the_machine_falls_on_both(bench: Bench) -> None:
    host = FakeHost({"float32": 4.0, "twin": 4.0})
    plain = host.run

    def drifting(job: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        answer = plain(job, timeout_s)
        if job["action"] == "latency":
            factor = 1 + 0.5 * (host.measured()["float32"] // 4)
            answer["samples_ms"] = [factor * time for time in answer["samples_ms"]]
        return answer

    host.run = drifting  # type: ignore[method-assign]
    results = bench(host)
    assert results["twin"].latency is not None
    assert results["twin"].latency.comparison is not None
    assert results["twin"].latency.comparison.ratio == pytest.approx(1, abs=0.01)


def test_a_failing_artifact_is_dropped_and_the_others_go_on(bench: Bench) -> None:
    host = FakeHost({"float32": 4.0, "broken": 1.0, "fast": 2.0})
    host.failures["broken", 3] = "it broke"
    results = bench(host)
    assert results["broken"] == BenchResult(error="it broke")
    assert host.measured() == {"float32": 9, "broken": 3, "fast": 9}
    assert verdicts(results) == {"fast": "FASTER"}


def test_without_a_baseline_absolute_figures_remain(bench: Bench) -> None:
    host = FakeHost({"float32": 4.0, "fast": 2.0})
    host.failures["float32", 6] = "killed by SIGABRT"
    results = bench(host)
    assert results["float32"].error == "killed by SIGABRT"
    assert results["fast"].latency is not None
    assert results["fast"].latency.comparison is None
    assert host.measured()["fast"] == 9


def test_a_runtime_that_cannot_start_fails_only_its_artifacts(inputs: Path) -> None:
    host = FakeHost({"float32": 4.0, "other": 2.0})
    items = [BenchItem("float32", "fake", Path("float32")), BenchItem("other", "missing", Path("other"))]
    results = measure(host, items, inputs, **SETTINGS)
    assert "cannot be imported" in results["other"].error
    assert "install it" in results["other"].error
    assert results["float32"].latency is not None
    assert "other" not in host.measured()


def test_memory_is_never_understated(bench: Bench) -> None:
    results = bench(FakeHost({"float32": 4.0}))
    memory = results["float32"].memory
    assert memory is not None
    assert memory.peak_bytes == 5009
    assert 1000 <= memory.empty_bytes <= 1002


def test_an_empty_worker_runs_twice_per_runtime(bench: Bench) -> None:
    host = FakeHost({"float32": 4.0, "fast": 2.0})
    bench(host)
    assert [job["runtime"] for job in host.jobs if job["action"] == "empty"] == ["fake", "fake"]


def test_percentiles_need_enough_single_calls(bench: Bench) -> None:
    def percentiles(**change: Any) -> tuple[bool, bool]:
        latency = bench(FakeHost({"float32": 4.0}, **change))["float32"].latency
        assert latency is not None
        return latency.p90_ms is not None, latency.p99_ms is not None

    assert percentiles(samples=80) == (True, True)
    assert percentiles(samples=10) == (True, False)
    assert percentiles(samples=5) == (False, False)
    assert percentiles(samples=80, calls=20) == (False, False)
    assert percentiles(samples=3, calls=20, singles=30) == (True, False)
    assert percentiles(samples=3, calls=20, singles=80) == (True, True)


def test_load_and_first_answer_are_medians(bench: Bench) -> None:
    latency = bench(FakeHost({"float32": 4.0}))["float32"].latency
    assert latency is not None
    assert (latency.load_ms, latency.first_ms) == (50, 2)


def test_workers_get_only_the_rows_of_one_call(bench: Bench) -> None:
    host = FakeHost({"float32": 4.0})
    bench(host)
    assert host.rows == {2}


@pytest.mark.parametrize("fail", [False, True])
def test_progress_ends_where_it_said(bench: Bench, fail: bool) -> None:
    host = FakeHost({"float32": 4.0, "close": 4.08, "fast": 2.0}, sd=0.02)
    if fail:
        host.failures["fast", 2] = "it broke"
    told: list[tuple[int, int]] = []
    bench(host, progress=lambda done, total: told.append((done, total)))
    assert [done for done, _ in told] == list(range(1, len(told) + 1))
    assert told[0][1] == 27
    assert all(done <= total for done, total in told)
    assert told[-1][0] == told[-1][1] == sum(host.measured().values())


def test_names_must_differ(bench: Bench) -> None:
    with pytest.raises(CompressError, match="different names"):
        bench(FakeHost({"a": 1.0}), "a", "a")


@pytest.mark.parametrize("change", [{"pairs": 4}, {"pairs": 9, "max_pairs": 8}])
def test_numbers_of_pairs_that_prove_nothing_are_refused(bench: Bench, change: dict[str, int]) -> None:
    with pytest.raises(CompressError, match=r"measure\.pairs must be at least 5"):
        bench(FakeHost({"a": 1.0}), **change)


def test_too_few_rows_are_refused_before_any_worker(bench: Bench) -> None:
    host = FakeHost({"a": 1.0})
    with pytest.raises(DataError, match=r"'x' holds 6 rows; measure\.batch is 7"):
        bench(host, batch=7)
    assert not host.jobs


def test_inputs_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.npz"):
        measure(FakeHost({}), [BenchItem("a", "fake", Path("a"))], tmp_path / "none.npz", **SETTINGS)


def test_equal_artifacts_are_rarely_told_apart_even_with_more_rounds(bench: Bench) -> None:
    found: Counter[str] = Counter()
    for seed in range(8):
        host = FakeHost({"float32": 4.0, **{f"twin{number}": 4.0 for number in range(5)}}, sd=0.02, samples=3)
        host._random = np.random.default_rng(seed)
        found.update(verdicts(bench(host, seed=seed)).values())
    assert found["SLOWER"] <= 1
    assert found["FASTER"] <= 4

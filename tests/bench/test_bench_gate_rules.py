"""The rules that `benchmarks/gate.py` compares, on samples with known answers, and its table."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from gate import CONDITIONS, DUELS, SINGLES, VALUES, read, table, write
from gate_rules import PEERS, asv, ours, pyperf, pytest_benchmark


def duels(random: np.random.Generator, ratio: float, sd: float, count: int = 40) -> list[list[float]]:
    return [[float(log), 0.0, 1.0] for log in random.normal(math.log(ratio), sd, count)]


def processes(random: np.random.Generator, ms: float, between: float, count: int) -> list[list[float]]:
    return [list(ms * np.exp(random.normal(0, between) + random.normal(0, 0.005, VALUES))) for _ in range(count)]


@pytest.mark.parametrize(("ratio", "verdict"), [(1.0, "SAME"), (1.08, "SLOWER"), (0.9, "FASTER")])
def test_our_rule_on_clear_cases(ratio: float, verdict: str) -> None:
    found, used, seconds = ours(duels(np.random.default_rng(0), ratio, 0.005), 60)
    assert (found, used, seconds) == (verdict, 12, 12.0)


def test_our_rule_ends_with_the_budget_and_breaks_on_load() -> None:
    assert ours(duels(np.random.default_rng(0), 1.02, 0.05), 5)[:2] == ("UNKNOWN", 5)
    slow_load = [[0.0, math.log(2), 1.0]] * 12
    assert ours(slow_load, 60)[0] == "SLOWER"


def test_the_peers_find_what_is_clear() -> None:
    random = np.random.default_rng(1)
    base, new = (processes(random, ms, 0.0, 20) for ms in (1.0, 1.2))
    for count, rule in PEERS.values():
        assert rule(base[:count], new[:count])
        assert not rule(new[:count], base[:count])


def test_the_peers_take_processes_that_differ_for_a_slowdown() -> None:
    random = np.random.default_rng(2)

    def alarms(rule: Any, count: int) -> float:
        pairs = [[processes(random, 1.0, 0.1, count) for _ in range(2)] for _ in range(100)]
        return sum(rule(base, new) for base, new in pairs) / 100

    assert alarms(lambda base, new: pytest_benchmark(base, new, "mean", 0.02), 1) > 0.25
    assert alarms(lambda base, new: asv(base, new, 1.02), 2) > 0.1
    assert alarms(lambda base, new: pyperf(base, new, 0.02), 20) > 0.05


def test_a_recording_is_read_back_and_tabulated(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    kept = read(tmp_path, "quiet")
    kept["duel"] = {name: duels(random, 1.0 + 0.05 * place, 0.004) for place, name in enumerate(DUELS)}
    kept["single"] = {name: processes(random, 1.0, 0.02, 30) for name in SINGLES}
    write(tmp_path, "quiet", kept)
    assert read(tmp_path, "quiet") == kept
    text = table(tmp_path)
    assert "## Quiet: 460 worker processes" in text
    assert "| **edge-compress check, tolerance 2 %** | 0.0% [0.0%, 1.2%] | 100.0% [98.8%, 100.0%] |" in text
    assert all(title in text for title in PEERS)
    assert "under 1 conditions: 0 of 300 resampled checks said SLOWER, 0.0% [0.0%, 1.2%]" in text
    assert CONDITIONS[1] not in text

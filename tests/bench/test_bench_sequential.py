from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.bench.sequential import ALPHA, e_value, interval_at, judge_family, judge_row, p_value

TOLERANCE = 0.02


def adaptive(random: np.random.Generator, slowdown: float, sd: float, limit: int = 40) -> str:
    """One row, looked at after every pair, as a check does."""
    logs: list[float] = []
    for _ in range(limit):
        logs.append(random.normal(math.log1p(slowdown), sd))
        found = judge_row(logs, TOLERANCE, ALPHA).verdict
        if found != "UNKNOWN":
            return found
    return "UNKNOWN"


def rates(slowdown: float, sd: float, runs: int = 200) -> Counter[str]:
    random = np.random.default_rng(0)
    return Counter(adaptive(random, slowdown, sd) for _ in range(runs))


def test_the_evidence_is_fair_under_a_fair_coin() -> None:
    for count in (1, 2, 5, 11, 30):
        expected = sum(math.comb(count, k) * e_value(k, count) for k in range(count + 1)) / 2**count
        assert expected == pytest.approx(1)


def test_no_outcome_of_the_next_pair_is_expected_to_add_evidence() -> None:
    for count in range(1, 30):
        for k in range(count + 1):
            assert (e_value(k, count + 1) + e_value(k + 1, count + 1)) / 2 == pytest.approx(e_value(k, count))


def test_pairs_that_all_agree_need_eleven_for_a_check_of_one_row() -> None:
    assert e_value(10, 10) < 2 / ALPHA <= e_value(11, 11)
    assert interval_at([0.0] * 10, 1 - ALPHA) is None
    assert interval_at([0.0] * 11, 1 - ALPHA) is not None


def test_a_count_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 3"):
        e_value(4, 3)


def test_looking_after_every_pair_does_not_raise_the_false_alarms() -> None:
    # At the border itself, the worst case of "not slower than the tolerance": half the pairs lie above it.
    random = np.random.default_rng(1)
    crossed = 0
    for _ in range(400):
        above = np.cumsum(random.integers(0, 2, 120))
        crossed += any(e_value(int(k), n) >= 2 / ALPHA for n, k in enumerate(above, start=1))
    assert crossed <= 6  # expected at most 400 * 0.005 = 2


def test_equal_artifacts_are_the_same() -> None:
    assert rates(0, sd=0.005)["SAME"] >= 198
    noisy = rates(0, sd=0.03)
    assert noisy["SLOWER"] == 0
    assert noisy["FASTER"] <= 3


@pytest.mark.parametrize(("slowdown", "sd", "least"), [(0.05, 0.01, 0.95), (0.03, 0.008, 0.6), (0.10, 0.03, 0.95)])
def test_real_slowdowns_are_found(slowdown: float, sd: float, least: float) -> None:
    found = rates(slowdown, sd)
    assert found["SLOWER"] >= least * 200
    assert found["SAME"] + found["FASTER"] <= 2


def test_a_slowdown_lost_in_noise_is_unknown_not_the_same() -> None:
    found = rates(0.05, sd=0.2)
    assert found["UNKNOWN"] >= 180
    assert found["SAME"] <= 2


def test_bursts_of_load_cost_pairs_not_truth() -> None:
    random = np.random.default_rng(2)
    logs = [random.normal(0, 0.005) + (0.5 if random.random() < 0.2 else 0) for _ in range(80)]
    assert judge_row(logs, TOLERANCE, ALPHA).verdict == "SAME"


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=60), st.floats(0.5, 0.999))
def test_the_interval_is_ordered_and_narrows_with_the_level(logs: list[float], level: float) -> None:
    wide, narrow = interval_at(logs, level), interval_at(logs, level / 2)
    if wide is not None:
        assert narrow is not None
        assert wide.low <= narrow.low <= narrow.high <= wide.high


def test_slower_means_that_the_interval_lies_above_the_tolerance() -> None:
    random = np.random.default_rng(3)
    logs = [random.normal(math.log(1.06), 0.004) for _ in range(12)]
    found = judge_row(logs, TOLERANCE, ALPHA)
    assert found.verdict == "SLOWER"
    assert found.interval is not None
    assert found.interval.low > 1.02
    assert found.ratio == pytest.approx(1.06, abs=0.005)
    assert p_value(logs, math.log1p(TOLERANCE)) <= ALPHA / 2


def test_without_pairs_nothing_is_known() -> None:
    assert judge_row([], TOLERANCE, ALPHA).verdict == "UNKNOWN"
    assert p_value([], 0.0) == 1


def test_a_family_of_one_is_a_row() -> None:
    logs = [0.05 + 0.001 * k for k in range(12)]
    assert judge_family([logs], [TOLERANCE], ALPHA)[0] == judge_row(logs, TOLERANCE, ALPHA)


def test_holm_gives_later_rows_what_the_first_leave() -> None:
    clear, twelve = [0.2] * 30, [0.05] * 11
    alone = judge_family([twelve, [0.0] * 30], [TOLERANCE] * 2, ALPHA)
    assert alone[0].verdict == "UNKNOWN"  # 11 pairs reach alpha / 2, not half of that
    beside = judge_family([twelve, clear], [TOLERANCE] * 2, ALPHA)
    assert [item.verdict for item in beside] == ["SLOWER", "SLOWER"]


def test_the_false_alarms_are_those_of_the_whole_check() -> None:
    random = np.random.default_rng(4)
    alarms = 0
    for _ in range(150):
        rows = [list(random.normal(math.log1p(TOLERANCE), 0.01, 30)) for _ in range(6)]
        alarms += any(item.verdict == "SLOWER" for item in judge_family(rows, [TOLERANCE] * 6, ALPHA))
    assert alarms <= 3


def test_every_row_has_its_own_tolerance() -> None:
    logs = [0.05] * 14
    strict, lax = judge_family([logs, logs], [0.02, 0.2], ALPHA)
    assert (strict.verdict, lax.verdict) == ("SLOWER", "SAME")

"""Five rules that say whether a candidate is slower, on the same recorded processes. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

import numpy as np
from scipy import stats

from compress.bench.sequential import ALPHA, judge_family, judge_row

TOLERANCE, LOAD_TOLERANCE = 0.02, 0.25


def ours(duels: Sequence[Sequence[float]], budget_s: float) -> tuple[str, int, float]:
    """`edge-compress check` on one row: sequential, until decided or the budget is spent.

    Args:
        duels: (log ratio, log load ratio, seconds that the process took), in the order in which they are taken.
        budget_s: Of one row.

    Returns:
        The verdict, with `SLOWER` also for a broken rule on load time; the processes used; their seconds.
    """
    logs: list[float] = []
    loads: list[float] = []
    spent = 0.0
    for log, load, seconds in duels:
        if logs and spent >= budget_s:
            break
        logs.append(log)
        loads.append(load)
        spent += seconds
        if judge_row(logs, TOLERANCE, ALPHA / 2).verdict != "UNKNOWN":
            break
    verdict = judge_family([logs], [TOLERANCE], ALPHA / 2)[0].verdict
    if judge_family([loads], [LOAD_TOLERANCE], ALPHA / 2)[0].verdict == "SLOWER":
        verdict = "SLOWER"
    return verdict, len(logs), spent


def pytest_benchmark(base: Sequence[Sequence[float]], new: Sequence[Sequence[float]], field: str, share: float) -> bool:
    """`--benchmark-compare-fail=min:2%` or `mean:2%`: one process each, the statistic of all rounds compared."""
    statistic = min if field == "min" else mean
    return statistic(new[0]) > statistic(base[0]) * (1 + share)


def asv(base: Sequence[Sequence[float]], new: Sequence[Sequence[float]], factor: float) -> bool:
    """`asv compare --factor`: medians differ by the factor and a Mann-Whitney U test has p < 0.002.

    asv's defaults: two processes, ten samples each. See asv/_stats.py and asv/commands/compare.py.
    """
    one, two = (np.concatenate([np.asarray(process) for process in side[:2]]) for side in (base, new))
    if np.median(two) <= np.median(one) * factor:
        return False
    return bool(stats.mannwhitneyu(one, two, alternative="two-sided").pvalue < 0.002)


def pyperf(base: Sequence[Sequence[float]], new: Sequence[Sequence[float]], share: float) -> bool:
    """`pyperf compare_to --min-speed=2`: Student's t over pooled values at 95 %, means further apart than the share.

    pyperf's defaults: 20 processes with 3 values each.
    """
    one, two = (np.concatenate([np.asarray(process[:3]) for process in side[:20]]) for side in (base, new))
    if two.mean() <= one.mean() * (1 + share):
        return False
    return bool(stats.ttest_ind(one, two).pvalue < 0.05)


PEERS = {
    "pytest-benchmark, compare-fail=min:2%": (1, lambda base, new: pytest_benchmark(base, new, "min", 0.02)),
    "pytest-benchmark, compare-fail=mean:2%": (1, lambda base, new: pytest_benchmark(base, new, "mean", 0.02)),
    "asv compare, factor 1.02": (2, lambda base, new: asv(base, new, 1.02)),
    "asv compare, factor 1.1 (its default)": (2, lambda base, new: asv(base, new, 1.1)),
    "pyperf compare_to, min-speed 2 %": (20, lambda base, new: pyperf(base, new, 0.02)),
}
"""Name -> (processes of each side, rule)."""

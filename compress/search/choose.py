"""Which scheme ships on a target: the fastest that is not SLOWER than the baseline and whose verdict is PASS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from compress.evidence import Candidate, Choice, LatencyVerdict, Verdict
from compress.search.wording import ratio, span

Objective = Literal["fastest", "smallest", "best"]


@dataclass(frozen=True)
class _Contestant:
    """A scheme that may ship: its time as a share of the baseline's, with the interval, its bytes, what it loses.

    `loss` is the largest loss of a primary metric of any task; negative where all gain.
    """

    scheme: str
    ratio: float
    low: float
    high: float
    verdict: LatencyVerdict
    size_bytes: int
    is_baseline: bool = False
    loss: float = 0.0

    @property
    def time(self) -> str:
        return f"{ratio(self.ratio)} {span(self.low, self.high, 2)}"


def choose(
    candidates: Sequence[Candidate],
    verdicts: Mapping[str, Verdict],
    objective: Objective,
    *,
    fallback: bool = True,
    timed: bool = True,
) -> Choice:
    """Returns which scheme ships, why, and why each of the others does not.

    1. The baseline is the first candidate, whatever its name. If it could not be measured, nothing was compared
       and nothing ships.
    2. A candidate may ship if its verdict is PASS and its time beside the baseline is FASTER or SAME. With an
       UNKNOWN time it may ship only for its size: its file is smaller than the baseline's, and the estimate of its
       time lies within the tolerance. SLOWER never ships.
    3. The baseline competes too, with ratio 1, if its verdict is PASS: a scheme that gains nothing does not ship.
    4. `fastest`: the lowest ratio; among those whose intervals reach the leader's, the smallest file. A scheme of
       UNKNOWN time is taken only where the baseline would ship otherwise.
    5. `smallest`: the fewest bytes, then the lowest ratio.
    6. `best`: the smallest loss of quality (the largest of its tasks' primary metrics) among those that are FASTER or
       smaller than the baseline, then the fewest bytes; the baseline itself only where none of them is either.
    7. Where no times can be taken (`timed=False`), times decide nothing, and `fastest` is `smallest`.

    Args:
        candidates: All schemes of a target as measured, the baseline first.
        verdicts: Scheme to the gate's verdict.
        objective: `fastest`, `smallest` or `best`.
        fallback: Whether the baseline may ship.
        timed: Whether the host takes times.
    """
    if not candidates:
        return Choice(None, "nothing was measured on this target")
    baseline, others = candidates[0], candidates[1:]
    if not timed and objective == "fastest":
        objective = "smallest"
    barred = {item.scheme: reason for item in candidates if (reason := _barred(item, baseline, verdicts, timed))}
    if baseline.error:
        uncompared = {item.scheme: barred.get(item.scheme, "was compared with nothing") for item in candidates}
        return Choice(None, f"{baseline.scheme} {barred[baseline.scheme]}; nothing was compared with it", uncompared)
    if not fallback and baseline.scheme not in barred:
        barred[baseline.scheme] = "is the original, which is not to ship (gate.fallback = false)"
    contestants = [_contestant(item, is_baseline=item is baseline) for item in candidates if item.scheme not in barred]
    if not contestants:
        return Choice(None, f"nothing ships: {_listed(barred)}", barred)
    winner = _winner(contestants, objective)
    lost = {item.scheme: _lost(item, winner, objective) for item in contestants if item is not winner}
    rejected = {item.scheme: (barred | lost)[item.scheme] for item in candidates if item.scheme in barred | lost}
    if not winner.is_baseline:
        return Choice(winner.scheme, _won(winner, baseline, timed), rejected)
    reason = _listed(rejected) if others else "no other scheme was tried"
    return Choice(winner.scheme, f"{winner.scheme}: {reason}", rejected)


def _barred(item: Candidate, baseline: Candidate, verdicts: Mapping[str, Verdict], timed: bool) -> str:
    """Why a scheme cannot ship, as a predicate; nothing if it can."""
    if item.error:
        return f"could not be measured: {item.error}"
    if item.scheme not in verdicts:
        return "was not judged"
    verdict = verdicts[item.scheme]
    if verdict.status != "PASS":
        return verdict.reason or f"is {verdict.status}"
    if item.artifact is None:
        return "has no file"
    return "" if item is baseline or not timed else _too_slow(item, baseline)


def _too_slow(item: Candidate, baseline: Candidate) -> str:
    comparison = item.latency.comparison if item.latency else None
    if comparison is None:
        return f"was not timed beside {baseline.scheme}"
    interval = span(comparison.interval.low, comparison.interval.high, 2)
    if comparison.verdict == "SLOWER":
        return f"is {ratio(comparison.ratio)} slower {interval}"
    if comparison.verdict != "UNKNOWN":
        return ""
    unsettled = f"may be slower: {ratio(comparison.ratio)} {interval}"
    if comparison.ratio > 1 + comparison.tolerance:
        return unsettled
    if item.artifact and baseline.artifact and item.artifact.size_bytes < baseline.artifact.size_bytes:
        return ""
    return f"{unsettled}, and is not smaller"


def _contestant(item: Candidate, *, is_baseline: bool) -> _Contestant:
    size_bytes = item.artifact.size_bytes if item.artifact else 0
    comparison = item.latency.comparison if item.latency else None
    if is_baseline or comparison is None:
        return _Contestant(item.scheme, 1.0, 1.0, 1.0, "SAME", size_bytes, is_baseline)
    interval = comparison.interval
    return _Contestant(
        item.scheme,
        comparison.ratio,
        interval.low,
        interval.high,
        comparison.verdict,
        size_bytes,
        is_baseline,
        loss(item),
    )


def loss(item: Candidate) -> float:
    """Returns the largest loss of a primary metric of any task; negative where all gain, 0 where none is known."""
    losses = [
        -metric.difference if metric.higher_is_better else metric.difference
        for metric in item.primary
        if metric.difference is not None
    ]
    return max(losses, default=0.0)


def _winner(contestants: Sequence[_Contestant], objective: Objective) -> _Contestant:
    if objective == "smallest":
        return min(contestants, key=_by_size)
    if objective == "best":
        return _best(contestants)
    settled = [item for item in contestants if item.verdict != "UNKNOWN"]
    unsettled = [item for item in contestants if item.verdict == "UNKNOWN"]
    winner = _fastest(settled) if settled else None
    if winner is None or (winner.is_baseline and unsettled):
        return _fastest(unsettled)
    return winner


def _best(contestants: Sequence[_Contestant]) -> _Contestant:
    """The baseline loses nothing and would always win: who gains nothing over it does not compete."""
    baseline = next((item for item in contestants if item.is_baseline), None)
    gaining = [
        item
        for item in contestants
        if not item.is_baseline
        and (baseline is None or item.verdict == "FASTER" or item.size_bytes < baseline.size_bytes)
    ]
    return min(gaining or contestants, key=lambda item: (item.loss, *_by_size(item)))


def _fastest(contestants: Sequence[_Contestant]) -> _Contestant:
    leader = min(contestants, key=lambda item: item.ratio)
    return min((item for item in contestants if _ties(item, leader)), key=_by_size)


def _ties(item: _Contestant, leader: _Contestant) -> bool:
    """Whether the times cannot be told apart; two that are the SAME as the baseline are the same."""
    return item.low <= leader.high or item.verdict == leader.verdict == "SAME" or item is leader


def _by_size(item: _Contestant) -> tuple[int, bool, float]:
    return item.size_bytes, not item.is_baseline, item.ratio


def _lost(item: _Contestant, winner: _Contestant, objective: Objective) -> str:
    """Why a scheme that may ship does not."""
    times = f"{ratio(winner.ratio)} against {ratio(item.ratio)}"
    sizes = f"{winner.size_bytes:,} against {item.size_bytes:,} bytes"
    smaller = winner.size_bytes < item.size_bytes
    if objective == "best" and not item.is_baseline and not winner.is_baseline and winner.loss < item.loss:
        return f"passed, but {winner.scheme} loses less: {winner.loss:z.4f} against {item.loss:z.4f}"
    if objective == "smallest":
        return f"passed, but {winner.scheme} is smaller: {sizes}" if smaller else _no_gain(item, winner, times)
    if item.verdict == "UNKNOWN" and winner.verdict != "UNKNOWN":
        return f"passed, but its time is not settled: {item.time}"
    if smaller and _ties(item, winner):
        return f"passed, but {winner.scheme} is smaller at about the same time: {sizes}, {times}"
    return _no_gain(item, winner, times)


def _no_gain(item: _Contestant, winner: _Contestant, times: str) -> str:
    if winner.ratio < item.ratio:
        return f"passed, but {winner.scheme} is faster: {times}"
    return f"passed, but gains nothing over {winner.scheme}: {times}, {item.size_bytes:,} bytes both"


def _won(winner: _Contestant, baseline: Candidate, timed: bool) -> str:
    if not timed:
        before = baseline.artifact.size_bytes if baseline.artifact else 0
        sizes = f"{winner.scheme} has {winner.size_bytes:,} bytes, {baseline.scheme} {before:,}"
        return f"{sizes}; its verdict is PASS; no times are taken here"
    reason = f"{winner.scheme} takes {winner.time} of the time of {baseline.scheme}"
    if baseline.artifact and baseline.artifact.size_bytes:
        reason += f" in {winner.size_bytes / baseline.artifact.size_bytes:.2f}x of its bytes"
    if winner.verdict == "UNKNOWN":
        reason += "; whether it is faster is not settled, it ships for its size"
    return f"{reason}; its verdict is PASS"


def _listed(reasons: Mapping[str, str]) -> str:
    return ", ".join(f"{scheme} {reason}" for scheme, reason in reasons.items())

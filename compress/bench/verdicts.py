"""What a latency check found: one row a model and target, its verdict, its rules, its causes, and the exit code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from compress.evidence import Environment, Interval, Operators

CheckVerdict = Literal["FASTER", "SAME", "SLOWER", "UNKNOWN", "INCOMPARABLE"]
SCHEMA = 1
LAYOUT = ("Transpose", "TRANSPOSE", "ReorderInput", "ReorderOutput")


@dataclass(frozen=True)
class Figures:
    """Figures of one artifact that hardly depend on the moment.

    `memory_bytes` is the least peak of its processes above the runtime's empty worker, `load_ms` and `first_ms` are
    medians.
    """

    size_bytes: int
    memory_bytes: int
    load_ms: float
    first_ms: float
    median_ms: float
    operators: tuple[Operators, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Operators of the optimised graph by kind."""
        found: dict[str, int] = {}
        for item in self.operators:
            found[item.operator] = found.get(item.operator, 0) + item.count
        return found

    @property
    def accelerated_share(self) -> float:
        """Operators on the accelerated path / all; 0 where there are none."""
        total = sum(item.count for item in self.operators)
        return sum(item.count for item in self.operators if item.accelerated) / total if total else 0.0


@dataclass(frozen=True)
class Rule:
    """A figure with a tolerance of its own. `broken` fails the check."""

    name: str
    baseline: float
    candidate: float
    tolerance: float
    broken: bool
    text: str


@dataclass(frozen=True)
class CheckRow:
    """One model on one target, beside its baseline.

    `causes` says what differs between the two files, as far as it is known. `error` and `hint` say why a row is
    INCOMPARABLE.
    """

    model: str
    target: str
    runtime: str
    verdict: CheckVerdict
    tolerance: float
    ratio: float | None = None
    interval: Interval | None = None
    pairs: int = 0
    baseline_ms: float | None = None
    candidate_ms: float | None = None
    clock: str = ""
    baseline_sha256: str = ""
    candidate_sha256: str = ""
    rules: tuple[Rule, ...] = ()
    causes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    error: str = ""
    hint: str = ""

    @property
    def name(self) -> str:
        """What tables call it."""
        return f"{self.model} on {self.target}"

    @property
    def broken(self) -> tuple[Rule, ...]:
        """The rules that fail the check."""
        return tuple(rule for rule in self.rules if rule.broken)

    @property
    def exit_code(self) -> int:
        """0 good, 1 slower or a broken rule, 3 not known."""
        if self.verdict == "SLOWER" or self.broken:
            return 1
        return 3 if self.verdict in ("UNKNOWN", "INCOMPARABLE") else 0


@dataclass(frozen=True)
class CheckResult:
    """A whole check. `alpha` bounds the chance of a false SLOWER or FASTER in any of its rows."""

    against: str
    rows: tuple[CheckRow, ...]
    alpha: float
    seconds: float
    created: str
    environment: Environment
    schema: int = SCHEMA
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """1 where anything is worse, else 3 where anything is not known or nothing was compared, else 0."""
        codes = {row.exit_code for row in self.rows}
        if 1 in codes:
            return 1
        return 3 if 3 in codes or not codes else 0


def causes(baseline: Figures, candidate: Figures) -> tuple[str, ...]:
    """Returns what differs between two files that time may come from: operators, layout, fallback, bytes."""
    found = []
    before, after = baseline.counts, candidate.counts
    changed = [
        f"{name} {before.get(name, 0)} -> {after.get(name, 0)}"
        for name in sorted({*before, *after})
        if before.get(name, 0) != after.get(name, 0)
    ]
    if changed:
        found.append(f"operators: {', '.join(changed)}")
    layout = [sum(counts.get(name, 0) for name in LAYOUT) for counts in (before, after)]
    if layout[1] > layout[0]:
        found.append(f"layout: {layout[1] - layout[0]} more operators that only move data")
    if candidate.accelerated_share < baseline.accelerated_share:
        slow = [item for item in candidate.operators if not item.accelerated]
        names = ", ".join(sorted({item.operator for item in slow}))
        found.append(
            f"fallback: {baseline.accelerated_share:.0%} -> {candidate.accelerated_share:.0%} of the operators on the"
            f" accelerated path; not {names}"
        )
    if candidate.size_bytes != baseline.size_bytes:
        found.append(f"bytes: {baseline.size_bytes:,} -> {candidate.size_bytes:,}")
    return tuple(found)

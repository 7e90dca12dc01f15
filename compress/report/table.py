"""The one table that a run ends with, as rows of plain strings that every report prints alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from compress.evidence import Candidate, Evidence, Parity, TargetEvidence
from compress.report.numbers import (
    MISSING,
    format_bytes,
    format_decibel,
    format_level,
    format_ms,
    format_ratio,
    format_ratio_interval,
    format_share,
    format_significant,
)
from compress.report.quality import Figure, figures, heading, several_tasks
from compress.report.text import first_line, plain, shorten

COLUMNS = ("target", "scheme", "size", "latency", "memory", "quality", "parity", "accelerated", "ships")
"""The columns, in the order of `Row.cells`; `headings` gives what they are called."""

REASON_LENGTH = 60
"""Longest reason, in characters, that the column `ships` prints; `Row.reason` has all of it."""

Outcome = Literal["ships", "no", "error"]


@dataclass(frozen=True)
class Row:
    """One candidate on one target. Each cell is one line of printable text, `-` where a figure is missing.

    `quality` holds a figure a task; their cell joins them.
    `ships` is `ships`, `no: ` or `error: ` and the reason, shortened; `outcome` is its first word and `reason`
    the whole reason (for an error its first line).
    """

    target: str
    scheme: str
    size: str
    latency: str
    memory: str
    quality: tuple[Figure, ...]
    parity: str
    accelerated: str
    ships: str
    outcome: Outcome
    reason: str

    @property
    def cells(self) -> tuple[str, ...]:
        """The cells in the order of `COLUMNS`."""
        return (
            self.target,
            self.scheme,
            self.size,
            self.latency,
            self.memory,
            "; ".join(figure.text for figure in self.quality) or MISSING,
            self.parity,
            self.accelerated,
            self.ships,
        )


def headings(evidence: Evidence) -> tuple[str, ...]:
    """Returns the headings in the order of `COLUMNS`: the columns, but for quality, which its metric may name."""
    return tuple(heading(evidence) if column == "quality" else column for column in COLUMNS)


def table_rows(evidence: Evidence) -> tuple[Row, ...]:
    """Returns the rows of all targets, each target's baseline first."""
    return tuple(row for target in evidence.targets for row in target_rows(target))


def target_rows(target: TargetEvidence) -> tuple[Row, ...]:
    """Returns one row a candidate; a target without candidates keeps one row, which says why."""
    if target.candidates:
        return tuple(_row(target, candidate) for candidate in target.candidates)
    reason = first_line(target.error) or first_line(target.choice.reason) or "nothing was measured"
    cells = dict.fromkeys(("scheme", "size", "latency", "memory", "parity", "accelerated"), MISSING)
    row = Row(plain(target.target), **cells, quality=(), ships=_ships("error", reason), outcome="error", reason=reason)
    return (row,)


def size_ratio(candidate: Candidate, baseline: Candidate | None) -> float | None:
    """Returns candidate / baseline artifact size, None where one of them is missing or empty."""
    if baseline is None or baseline.artifact is None or candidate.artifact is None:
        return None
    return candidate.artifact.size_bytes / baseline.artifact.size_bytes if baseline.artifact.size_bytes else None


def worst_parity(candidate: Candidate) -> Parity | None:
    """Returns the output that is furthest from its reference: the lowest SQNR, then the largest difference."""
    return min(
        candidate.fidelity,
        key=lambda item: (float("inf") if item.sqnr_db is None else item.sqnr_db, -item.max_abs),
        default=None,
    )


def legend(evidence: Evidence) -> dict[str, str]:
    """Returns what the columns of the table mean, by heading, with the levels of the intervals that they hold."""
    candidates = [candidate for target in evidence.targets for candidate in target.candidates]
    comparisons = [item.latency.comparison for item in candidates if item.latency is not None]
    ratio_levels = {item.interval.level for item in comparisons if item is not None}
    levels = {
        item.interval.level for candidate in candidates for item in candidate.primary if item.interval is not None
    }
    several = "a figure a task, " if any(several_tasks(target) for target in evidence.targets) else ""
    return {
        "scheme": "the first of a target is its baseline",
        "size": "the file that ships (ratio to the baseline)",
        "latency": f"median of a call, ratio to the baseline [{_interval_name(ratio_levels)}]",
        "memory": "peak above the runtime's empty worker",
        heading(evidence): f"{several}value (difference to the baseline [{_interval_name(levels)}])",
        "parity": "SQNR and largest absolute difference of the worst output against its reference",
        "accelerated": "share of operators on the runtime's accelerated path",
    }


def _row(target: TargetEvidence, candidate: Candidate) -> Row:
    outcome, reason = _outcome(target, candidate)
    return Row(
        target=plain(target.target),
        scheme=plain(candidate.scheme),
        size=_size(candidate, target.baseline),
        latency=_latency(candidate, candidate is target.baseline),
        memory=format_bytes(candidate.memory.above_empty_bytes if candidate.memory else None),
        quality=figures(target, candidate),
        parity=_parity(candidate),
        accelerated=_accelerated(candidate),
        ships=_ships(outcome, reason),
        outcome=outcome,
        reason=reason,
    )


def _size(candidate: Candidate, baseline: Candidate | None) -> str:
    if candidate.artifact is None:
        return MISSING
    text = format_bytes(candidate.artifact.size_bytes)
    ratio = size_ratio(candidate, baseline)
    return text if candidate is baseline or ratio is None else f"{text} ({format_ratio(ratio)})"


def _latency(candidate: Candidate, is_baseline: bool) -> str:
    if candidate.latency is None:
        return MISSING
    median = format_ms(candidate.latency.median_ms)
    comparison = candidate.latency.comparison
    if is_baseline:
        return f"{median}  baseline"
    if comparison is None:
        return f"{median}  not compared"
    return (
        f"{median}  {format_ratio(comparison.ratio)} {format_ratio_interval(comparison.interval)} {comparison.verdict}"
    )


def _parity(candidate: Candidate) -> str:
    worst = worst_parity(candidate)
    if worst is None:
        return MISSING
    if worst.max_abs == 0:
        return "equal"
    return f"{format_decibel(worst.sqnr_db)}  max {format_significant(worst.max_abs, 2)}"


def _accelerated(candidate: Candidate) -> str:
    placement = candidate.placement
    if placement is None or placement.total == 0:
        return MISSING
    return f"{format_share(placement.share)} ({placement.accelerated}/{placement.total})"


def _outcome(target: TargetEvidence, candidate: Candidate) -> tuple[Outcome, str]:
    """Whether a candidate ships, and the first reason that is known for the contrary."""
    if candidate.error:
        return "error", first_line(candidate.error) or "failed without a message"
    if candidate.scheme == target.choice.scheme:
        return "ships", plain(target.choice.reason).strip()
    verdict = target.verdicts.get(candidate.scheme)
    known = (target.choice.rejected.get(candidate.scheme, ""), verdict.reason if verdict is not None else "")
    reason = next((plain(text).strip() for text in known if text.strip()), "")
    if reason:
        return "no", reason
    return "no", "another scheme ships" if target.choice.scheme is not None else "nothing ships on this target"


def _ships(outcome: Outcome, reason: str) -> str:
    return outcome if outcome == "ships" else f"{outcome}: {shorten(reason, REASON_LENGTH)}"


def _interval_name(levels: set[float]) -> str:
    """How to call intervals of these levels; a level is named only where all of them share it."""
    return f"{format_level(next(iter(levels)))} interval" if len(levels) == 1 else "interval"

"""One candidate beside its baseline on the terminal: the verdict first, then rules, metrics and the review."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from compress.evidence import Metric, TargetEvidence
from compress.report.numbers import (
    MISSING,
    format_count,
    format_difference,
    format_difference_interval,
    format_value,
    format_value_interval,
)
from compress.report.quality import decimals
from compress.report.review import review_parts
from compress.report.text import plain


def render(evidence: TargetEvidence, console: Console) -> None:
    """Prints the evidence of one candidate, the second of the target, judged beside the first."""
    baseline, candidate = evidence.candidates[0], evidence.candidates[1]
    verdict = evidence.verdicts[candidate.scheme]
    _line(console, f"{verdict.status}: {candidate.scheme} beside {baseline.scheme}", "bold")
    for rule in verdict.rules:
        if rule.status != "PASS":
            _line(console, f"  {rule.status} {rule.rule}: {rule.reason}")
    passed = [rule.rule for rule in verdict.rules if rule.status == "PASS"]
    _line(console, f"  passed: {', '.join(passed) or 'no rule'}")
    if evidence.machine:
        _line(console, f"  on {evidence.machine}")
    if evidence.unanswered:
        _line(console, f"  {evidence.unanswered}")
    for text in (evidence.device.get("after") or {}).get("warnings", ()):
        _line(console, f"  warning: {text}")
    if "not judged" in evidence.settings:
        _line(console, f"  not judged, a score file has none: {evidence.settings['not judged']}")
    _table(
        console,
        "Metrics",
        ("task", "metric", "value", "baseline", "change", "interval", "rows", "note"),
        (_metric(metric) for metric in candidate.metrics),
    )
    for part in review_parts(candidate):
        _table(console, part.title, part.headings, part.rows)
        for note in part.notes:
            _line(console, f"  {note}", "dim")
    for note in dict.fromkeys(note for review in candidate.reviews for note in review.notes):
        _line(console, f"note: {note}", "dim")


def _metric(metric: Metric) -> tuple[str, ...]:
    form = format_difference_interval if metric.difference is not None else format_value_interval
    digits = decimals(metric)
    return (
        metric.task or MISSING,
        metric.name,
        format_value(metric.value, digits),
        format_value(metric.baseline, digits),
        format_difference(metric.difference, digits),
        form(metric.interval, digits),
        format_count(metric.rows),
        metric.note or MISSING,
    )


def _table(console: Console, title: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    # A column in which no row says anything only takes width.
    cells = [tuple(row) for row in rows]
    kept = [index for index in range(len(headings)) if any(row[index] != MISSING for row in cells)]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for index in kept:
        table.add_column(headings[index], overflow="fold")
    for row in cells:
        table.add_row(*(Text(_shown(row[index], console)) for index in kept))
    console.print()
    _line(console, title, "bold")
    console.print(table)


def _line(console: Console, text: str, style: str = "") -> None:
    console.print(Text(_shown(text, console)), style=style or None)


def _shown(text: str, console: Console) -> str:
    return plain(text).encode(console.encoding, "backslashreplace").decode(console.encoding)

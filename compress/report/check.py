"""A latency check in words: the terminal's table, a Markdown summary, JSON, history lines, GitHub annotations."""

from __future__ import annotations

import json
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from compress.bench.verdicts import CheckResult, CheckRow
from compress.evidence import to_json
from compress.report.markdown_text import escape
from compress.report.numbers import MISSING, format_ms, format_ratio_interval
from compress.report.text import first_line, plain, shorten

# GitHub cuts a comment at 65,536 characters.
MARKDOWN_LIMIT = 60_000
_STYLE = {"FASTER": "green", "SAME": "", "SLOWER": "red", "UNKNOWN": "yellow", "INCOMPARABLE": "yellow"}
COLUMNS = ("model", "target", "baseline", "candidate", "ratio", "interval", "pairs", "verdict")


def cells(row: CheckRow) -> tuple[str, ...]:
    """Returns a row's texts in the order of `COLUMNS`."""
    return (
        plain(row.model),
        plain(row.target),
        format_ms(row.baseline_ms),
        format_ms(row.candidate_ms),
        f"{row.ratio:.3f}x" if row.ratio is not None else MISSING,
        format_ratio_interval(row.interval),
        str(row.pairs) if row.pairs else MISSING,
        row.verdict,
    )


def reasons(row: CheckRow) -> list[str]:
    """Returns what is to be said about a row: broken rules, an error with its remedy, causes, notes."""
    said = [f"{rule.name}: {rule.text}; allowed is {_allowed(rule.name, rule.tolerance)}" for rule in row.broken]
    if row.error:
        said.append(f"{first_line(row.error)}{f' ({first_line(row.hint)})' if row.hint else ''}")
    if row.verdict == "UNKNOWN":
        said.append(f"undecided after {row.pairs} processes: raise --budget-s, or free the machine")
    return [plain(text) for text in (*said, *row.causes, *row.notes)]


def summary(result: CheckResult) -> str:
    """Returns one sentence: how many rows, how they ended, and what the verdicts' error rate is."""
    if not result.rows:
        return f"no baseline {plain(result.against)!r}: nothing was measured, which is no pass"
    counts = {row.verdict: 0 for row in result.rows}
    for row in result.rows:
        counts[row.verdict] += 1
    broken = sum(len(row.broken) for row in result.rows)
    rules = f", {broken} rules broken" if broken else ""
    told = ", ".join(f"{count} {name}" for name, count in counts.items())
    return (
        f"{told}{rules} against {plain(result.against)!r} in {result.seconds:.0f} s; a check of equal artifacts"
        f" says SLOWER in at most {result.alpha / 2:.1%} of runs, whatever the number of rows"
    )


def render_check(result: CheckResult, console: Console) -> None:
    """Prints the table, then what is to be said about each row."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for name in COLUMNS:
        named = name in ("model", "target")
        left = named or name == "verdict"
        table.add_column(
            name,
            justify="left" if left else "right",
            no_wrap=not named,
            overflow="fold",
            min_width=9 if named else None,
        )
    for row in result.rows:
        style = "red" if row.exit_code == 1 else _STYLE[row.verdict]
        table.add_row(*(Text(cell) for cell in cells(row)), style=style)
    if result.rows:
        console.print(table)
    for row in result.rows:
        for text in reasons(row):
            console.print(Text(f"{plain(row.name)}: {text}"), soft_wrap=True)
    for warning in result.environment.warnings:
        console.print(Text(f"warning: {warning}"), soft_wrap=True)
    console.print(Text(summary(result)), soft_wrap=True)


def markdown(result: CheckResult) -> str:
    """Returns a summary that fits a pull-request comment."""
    word = {0: "passed", 1: "failed", 3: "undecided"}[result.exit_code]
    lines = [f"### Latency check {word}", "", f"{escape(summary(result))}.", ""]
    if result.rows:
        lines += ["| " + " | ".join(COLUMNS) + " |", "|---|---|---:|---:|---:|---:|---:|---|"]
        lines += ["| " + " | ".join(escape(cell) for cell in cells(row)) + " |" for row in result.rows]
    details = [
        f"- **{escape(row.name)}**: {escape(shorten(text, 400))}" for row in result.rows for text in reasons(row)
    ]
    details += [f"- warning: {escape(shorten(text, 400))}" for text in result.environment.warnings]
    if details:
        lines += ["", *details]
    text = "\n".join(lines) + "\n"
    return text if len(text) <= MARKDOWN_LIMIT else text[: MARKDOWN_LIMIT - 40].rpartition("\n")[0] + "\n\n(cut)\n"


def github_annotations(result: CheckResult) -> list[str]:
    """Returns workflow commands of GitHub Actions: an error a failed row, a warning an undecided one."""
    lines = []
    for row in result.rows:
        if row.exit_code == 0:
            continue
        kind = "error" if row.exit_code == 1 else "warning"
        ratio = f"{row.ratio:.3f}x {format_ratio_interval(row.interval)} " if row.ratio is not None else ""
        text = "; ".join([f"{ratio}{row.verdict}", *reasons(row)])
        lines.append(f"::{kind} title={_property(f'latency of {row.name}')}::{_message(text)}")
    if not result.rows:
        lines.append(f"::error title=latency check::{_message(summary(result))}")
    return lines


def check_json(result: CheckResult) -> str:
    """Returns everything found as JSON."""
    return to_json(result)


def history_lines(result: CheckResult) -> list[str]:
    """Returns one line of JSON a row, to be appended to a history file."""
    return [
        json.dumps(
            {
                "schema": 1,
                "created": result.created,
                "against": result.against,
                "model": row.model,
                "target": row.target,
                "verdict": row.verdict,
                "ratio": row.ratio,
                "interval": [row.interval.low, row.interval.high] if row.interval else None,
                "baseline_ms": row.baseline_ms,
                "candidate_ms": row.candidate_ms,
                "pairs": row.pairs,
                "baseline_sha256": row.baseline_sha256,
                "candidate_sha256": row.candidate_sha256,
                "figures": {rule.name: rule.candidate for rule in row.rules},
                "cpu": result.environment.machine.get("cpu"),
                "packages": dict(result.environment.packages),
            },
            sort_keys=True,
            allow_nan=False,
        )
        for row in result.rows
    ]


def _allowed(name: str, tolerance: float) -> str:
    if name == "operators":
        return f"{tolerance:g} more"
    if name == "accelerated":
        return f"{tolerance:.0%} less"
    if name == "answers":
        return f"{tolerance:g}"
    return f"{tolerance:.0%} more"


def _message(text: Any) -> str:
    return str(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _message(text).replace(":", "%3A").replace(",", "%2C")

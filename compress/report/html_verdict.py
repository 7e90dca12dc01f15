"""The first two sections of the page: may one sign, and the quality behind it."""

from __future__ import annotations

from collections.abc import Iterable

from compress.evidence import Evidence, GateStatus, TargetEvidence
from compress.gate import overall
from compress.report.html_blocks import (
    Block,
    Bullets,
    Cell,
    Fold,
    Heading,
    Plots,
    Section,
    Status,
    Table,
    Text,
    Tone,
    clean,
    cleaned,
    table,
    verdict_cell,
)
from compress.report.html_plots import Change, forest, pareto, reliability, roc
from compress.report.html_words import figures_table, level_of, place, reviews_of, shown_or_folded
from compress.report.numbers import (
    MISSING,
    format_count,
)
from compress.report.quality import name as metric_name
from compress.report.quality import several_tasks
from compress.report.rows import METRIC, metric_row
from compress.report.summary import notes, verdict_line, why_not
from compress.report.table import COLUMNS, headings, legend, target_rows
from compress.review import Review
from compress.search.wording import title

NEXT = "\x1f"
"""Parts the figures of several tasks in one cell."""

_OUTCOMES: dict[str, Tone] = {"ships": "strong", "no": "quiet", "error": "fail"}

_MEANING: dict[GateStatus, str] = {
    "PASS": "On every target a file ships that passed every rule of the gate.",
    "FAIL": "On at least one target a rule failed and nothing ships.",
    "INCONCLUSIVE": "Nothing failed, but on at least one target the rows do not tell whether the margins hold.",
    "INCOMPARABLE": "On at least one target there is nothing to compare, or nothing was measured.",
}


def verdict_section(evidence: Evidence) -> Section:
    """Returns the verdict of the run and of each target, the rules behind it, and one table of all candidates."""
    status, _ = overall(evidence.targets)
    blocks: list[Block] = [Text(_MEANING[status], "lead")]
    blocks += [_target(target) for target in evidence.targets]
    if not evidence.targets:
        blocks.append(Text("Nothing ships: no target was measured."))
    blocks += [
        Heading("All candidates"),
        *(_results(evidence, target) for target in evidence.targets),
        *_legend(evidence),
    ]
    blocks += [Heading("Rules of the gate"), *_rules(evidence)]
    found = notes(evidence)
    if found:
        blocks += [Heading("To know beside it"), Bullets(tuple(clean(note) for note in found))]
    return Section("verdict", "Verdict", tuple(blocks))


def quality_section(evidence: Evidence) -> Section:
    """Returns every metric beside the baseline's, ROC and reliability curves, and quality against time and bytes."""
    blocks: list[Block] = [_trade_offs(evidence)]
    for target in evidence.targets:
        blocks += [Heading(f"{clean(target.target)} ({clean(target.runs_on)})"), *_metrics(target)]
        for candidate, review in reviews_of(target):
            about = place(target, candidate, review)
            blocks += shown_or_folded(
                target, candidate, f"Ranking and calibration: {about}", "", _review(target, candidate.scheme, review)
            )
    blocks = [block for block in blocks if not (isinstance(block, Plots) and not block.plots)]
    return Section("quality", "Quality", tuple(blocks) or (Text("Not measured."),))


def _target(target: TargetEvidence) -> Status:
    chosen = target.choice.scheme
    verdict = target.verdicts.get(chosen) if chosen is not None else None
    status, _ = overall([target])
    items = [f"Not {row.scheme}: {row.reason}" for row in why_not(target)]
    shipped = next((row for row in target_rows(target) if row.outcome == "ships"), None)
    if shipped is not None and shipped.reason and target.candidates and shipped.scheme != target.candidates[0].scheme:
        items.insert(0, f"Why: {shipped.reason}")
    if verdict is not None and verdict.reason:
        items.insert(0, f"Rules that did not pass: {verdict.reason}")
    said = verdict_line(target)
    return Status(
        status, clean(target.target), clean(said[:1].upper() + said[1:]), tuple(clean(item) for item in items)
    )


def _results(evidence: Evidence, target: TargetEvidence) -> Table:
    rows = [
        (
            clean(row.scheme),
            Cell(row.outcome, _OUTCOMES[row.outcome]),
            clean(row.size),
            _broken(row.latency, "  "),
            _broken(NEXT.join(figure.text for figure in row.quality) or MISSING, " ("),
            clean(row.memory),
            _broken(row.parity, "  "),
            _broken(row.accelerated, " ("),
        )
        for row in target_rows(target)
    ]
    names = dict(zip(COLUMNS, headings(evidence), strict=True))
    shown = ("scheme", "ships", "size", "latency", "quality", "memory", "parity", "accelerated")
    caption = f"{clean(target.target)} ({clean(target.runs_on)})"
    return table(caption, [names[name] for name in shown], rows)


def _broken(text: str, mark: str) -> Cell:
    """A cell with a line for the figure and one for what qualifies it; `NEXT` parts several figures."""
    lines = []
    for part in text.split(NEXT):
        head, found, tail = part.partition(mark)
        lines += [clean(head), clean(found.strip() + tail)] if found else [clean(part)]
    return Cell("\n".join(lines))


def _legend(evidence: Evidence) -> list[Block]:
    items = tuple(f"{clean(column)}: {clean(meaning)}" for column, meaning in legend(evidence).items())
    return [Fold("What the columns mean", (Bullets(items),))]


def _rules(evidence: Evidence) -> list[Block]:
    blocks: list[Block] = []
    for target in evidence.targets:
        # What ships first and in full; of the others how many rules passed, unless nothing ships.
        chosen = target.choice.scheme
        for scheme, verdict in sorted(target.verdicts.items(), key=lambda item: item[0] != chosen):
            about = f"{clean(scheme)} on {clean(target.target)}"
            if not verdict.rules:
                blocks.append(Text(f"{about}: {verdict.status}, no rule was applied"))
                continue
            rows = [(clean(rule.rule), verdict_cell(rule.status), clean(rule.reason)) for rule in verdict.rules]
            inside = table(f"Rules on {about}", ("rule", "status", "reason"), rows)
            passed = sum(rule.status == "PASS" for rule in verdict.rules)
            said = f"{about}: {verdict.status}, {passed} of {len(rows)} rules passed"
            blocks.append(inside if scheme == chosen else Fold(said, (inside,), is_open=chosen is None))
    return blocks or [Text("No rule was applied.")]


def _trade_offs(evidence: Evidence) -> Plots:
    found = [
        pareto(target, task)
        for target in evidence.targets
        for task in dict.fromkeys(metric.task for item in target.candidates for metric in item.primary)
    ]
    return Plots(tuple(plot for plot in found if plot is not None))


def _metrics(target: TargetEvidence) -> list[Block]:
    several = several_tasks(target)
    # The baseline's figures stand beside every other's.
    shown = [item for item in target.candidates if item is not target.baseline] or target.candidates
    rows = cleaned(
        (candidate.scheme, *((metric.task or MISSING,) if several else ()), *metric_row(metric, title(metric.name)))
        for candidate in shown
        for metric in candidate.metrics
    )
    if not rows:
        return [Text("Not measured.")]
    names = ("scheme", *(("task",) if several else ()), *METRIC)
    blocks: list[Block] = []
    plot = forest(
        f"Primary metrics on {clean(target.target)}",
        "Difference of each candidate to the baseline with its interval; to the right of zero is better where higher "
        "is better.",
        [
            Change(f"{candidate.scheme} {metric_name(metric, several)}", metric.difference, metric.interval)
            for candidate in shown
            for metric in candidate.primary
            if metric.difference is not None
        ],
    )
    if plot is not None:
        blocks.append(Plots((plot,)))
    blocks.append(table(f"Metrics on {clean(target.target)}", names, rows))
    said = level_of(metric.interval for item in target.candidates for metric in item.metrics)
    return [*blocks, Text(said, "quiet")] if said else blocks


def _review(target: TargetEvidence, scheme: str, review: Review) -> Iterable[Block]:
    baseline = target.baseline.scheme if target.baseline is not None else "baseline"
    plots = (
        roc(review.ranking, scheme, baseline) if review.ranking else None,
        reliability(review.calibration, scheme, baseline) if review.calibration else None,
    )
    drawn = tuple(plot for plot in plots if plot is not None)
    if drawn:
        yield Plots(drawn)
    if review.ranking is not None and review.ranking.figures:
        yield figures_table("How well the scores order the rows", review.ranking.figures)
    if review.ranking is not None and review.ranking.lift:
        rows = [
            (str(item.decile), format_count(item.rows), f"{item.candidate:.2f}", f"{item.baseline:.2f}")
            for item in review.ranking.lift
        ]
        caption = "Lift by decile: rate of positives over the rate of all rows, highest scores first"
        yield Fold("Lift by decile", (table(caption, ("decile", "rows", "candidate", "baseline"), rows),))
    if review.calibration is not None and review.calibration.figures:
        yield figures_table("Calibration", review.calibration.figures)
    if review.folds:
        yield figures_table("Means over the folds", review.folds)
    for item in review.classes:
        said = f"Class {clean(item.name) or item.label}, {format_count(item.rows)} rows"
        yield figures_table(said, item.figures)

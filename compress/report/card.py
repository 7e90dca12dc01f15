"""The model card: one page that goes with the artifacts, for those who use them rather than those who sign for them.

The headings are those of Mitchell et al., Model Cards for Model Reporting, 2019 (arXiv:1810.03993). What a run cannot
know, intended use above all, is asked for in plain words and never made up.
"""

from __future__ import annotations

from collections.abc import Iterator

from compress.evidence import Candidate, Evidence, Metric, TargetEvidence
from compress.gate import overall
from compress.report.html_words import change_cell, figure_name, share_text
from compress.report.limits import limits
from compress.report.markdown_text import bullets, escape, table
from compress.report.numbers import (
    MISSING,
    format_bytes,
    format_count,
    format_difference,
    format_difference_interval,
    format_ms,
    format_share,
    format_value,
    format_value_interval,
)
from compress.report.quality import decimals, several_tasks
from compress.report.quality import name as metric_name
from compress.report.summary import verdict_line
from compress.review import Review, Segment


def render_card(evidence: Evidence) -> str:
    """Returns the model card as Markdown; every string from a file is escaped."""
    status, _ = overall(evidence.targets)
    parts = [
        f"# Model card: {escape(evidence.name)}",
        f"Gate: **{status}**. {escape(_origin(evidence))}",
        "## Model details",
        *_details(evidence),
        "## Intended use",
        "Not known to the run that wrote this card. Before the model is used, its owner states: which decisions it "
        "serves, for which customers and products, who may use it, and for what it must not be used.",
        "## Factors",
        _factors(evidence),
        "## Metrics",
        *_metrics(evidence),
        "## Evaluation and training data",
        _data(evidence),
        "## Quantitative analyses",
        *_analyses(evidence),
        "## Ethical considerations",
        _ethics(evidence),
        "## Caveats and recommendations",
        bullets(limits(evidence)),
    ]
    return "\n\n".join(parts) + "\n"


def _origin(evidence: Evidence) -> str:
    return f"Measured {evidence.created} by edge-compress {evidence.version}, recipe {evidence.recipe_digest}."


def _details(evidence: Evidence) -> Iterator[str]:
    model = evidence.compressed
    facts = [
        f"inputs: {', '.join(model.inputs)}",
        f"outputs: {', '.join(model.outputs)}",
        f"parameters: {format_count(model.parameters)} (original {format_count(evidence.model.parameters)})",
        f"multiply-adds: {format_count(model.macs)} (original {format_count(evidence.model.macs)})",
        f"digest: {model.digest} (original {evidence.model.digest})",
        *(f"step {index}: {step.kind}" for index, step in enumerate(evidence.steps, start=1)),
    ]
    yield bullets(facts)
    rows = [
        (target.target, item.scheme, item.artifact.file, format_bytes(item.artifact.size_bytes), item.artifact.sha256)
        for target, item in _shipped(evidence)
        if item.artifact is not None
    ]
    yield "\n\n".join(f"**{escape(target.target)}** {escape(verdict_line(target))}" for target in evidence.targets)
    if rows:
        yield table(("target", "scheme", "file", "size", "sha256"), rows)


def _shipped(evidence: Evidence) -> Iterator[tuple[TargetEvidence, Candidate]]:
    for target in evidence.targets:
        yield from ((target, item) for item in target.candidates if item.scheme == target.choice.scheme)


def _reviews(evidence: Evidence) -> list[tuple[str, Review]]:
    return [(target.target, review) for target, item in _shipped(evidence) for review in item.reviews]


def _factors(evidence: Evidence) -> str:
    columns = {segment.column: None for _, review in _reviews(evidence) for segment in review.segments}
    if not columns:
        return "No segments or sensitive columns were looked at."
    return f"Looked at by {escape(', '.join(columns))}; figures are under Quantitative analyses."


def _metrics(evidence: Evidence) -> Iterator[str]:
    rows = []
    for target, item in _shipped(evidence):
        several = several_tasks(target)
        rows += [(target.target, *_metric(metric, several)) for metric in item.primary]
        agreed = (metric for metric in item.metrics if metric.name == "agreement")
        rows += [(target.target, *_metric(metric, several)) for metric in agreed]
    yield "The primary metric of each task of what ships, beside the original in float32, on the test rows."
    headings = ("target", "metric", "value", "original", "difference", "interval", "rows")
    yield table(headings, rows) if rows else "Nothing ships."


def _metric(metric: Metric, several: bool) -> tuple[str, ...]:
    digits = decimals(metric)
    return (
        metric_name(metric, several),
        format_value(metric.value, digits),
        format_value(metric.baseline, digits),
        format_difference(metric.difference, digits),
        (format_difference_interval if metric.difference is not None else format_value_interval)(
            metric.interval, digits
        ),
        format_count(metric.rows),
    )


def _data(evidence: Evidence) -> str:
    data = evidence.data
    rows = []
    for split, count in data.splits.items():
        positives = data.positives.get(split)
        rate = format_share(positives / count) if positives is not None and count else MISSING
        rows.append((split, format_count(count), rate, data.split_fingerprints.get(split, MISSING)))
    text = f"Source: {escape(data.source)}\n\n{table(('split', 'rows', 'positives', 'fingerprint'), rows)}"
    return f"{text}\n\n{bullets(data.notes)}" if data.notes else text


def _analyses(evidence: Evidence) -> Iterator[str]:
    rows = [
        (
            target.target,
            item.scheme,
            format_ms(item.latency.median_ms if item.latency is not None else None),
            item.latency.comparison.verdict if item.latency is not None and item.latency.comparison else MISSING,
            format_bytes(item.memory.above_empty_bytes if item.memory is not None else None),
        )
        for target, item in _shipped(evidence)
    ]
    if rows:
        yield table(("target", "scheme", "latency (median)", "beside the original", "memory"), rows)
    for target, review in _reviews(evidence):
        for decisions in review.decisions:
            said = f"{target}, cut-off {decisions.cutoff:g}: decided otherwise {share_text(decisions.flipped)}"
            yield bullets([said])
        if review.segments:
            yield _segments(target, review)
    if not any(review.segments for _, review in _reviews(evidence)):
        yield "Not measured by segment."


def _segments(target: str, review: Review) -> str:
    figures = (figure for segment in review.segments for figure in segment.figures if figure.difference is not None)
    names = list(dict.fromkeys(figure.name for figure in figures))[:3]
    headings = ("segment", "rows", *(f"{figure_name(name)}, change" for name in names))
    rows = [_segment(segment, names) for segment in review.segments]
    return f"By segment on {escape(target)}:\n\n{table(headings, rows)}"


def _segment(segment: Segment, names: list[str]) -> tuple[str, ...]:
    mark = " (small, not judged)" if segment.small else ""
    changes = (change_cell(segment.figure(name)).text.replace("\n", " ") for name in names)
    return (f"{segment.title}{mark}", format_count(segment.rows), *changes)


def _ethics(evidence: Evidence) -> str:
    reviews = _reviews(evidence)
    worst = [f"{target}: largest loss in {review.worst_segment}" for target, review in reviews if review.worst_segment]
    gaps = [
        f"{target}, {item.column}: {figure_name(figure.name)} {format_value(figure.value)}, "
        f"original {format_value(figure.baseline)}"
        for target, review in reviews
        for item in review.fairness
        for figure in item.figures
    ]
    said = "Compression was compared with the original; whether the original itself treats people fairly is a question "
    said += "of its own, which its owner answers."
    return "\n\n".join([said, *([bullets(worst + gaps)] if worst or gaps else [])])

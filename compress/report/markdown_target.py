"""The part of the Markdown report on one target: every figure of every candidate, and every reason."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from compress.evidence import Candidate, TargetEvidence
from compress.report.devices import DEVICE, device_rows
from compress.report.markdown_text import bullets, details, escape, fence, folded_table, table
from compress.report.numbers import (
    MISSING,
    format_bytes,
    format_count,
    format_level,
    format_share,
)
from compress.report.quality import several_tasks
from compress.report.review import Part, review_parts
from compress.report.rows import (
    COMPARISON,
    MEMORY,
    METRIC,
    TIMES,
    comparison_rows,
    memory_rows,
    metric_row,
    parity_rows,
    time_rows,
)
from compress.report.search_rows import (
    REPAIR,
    repair_rows,
    repair_sentences,
    sensitivity_headings,
    sensitivity_rows,
    sensitivity_title,
)
from compress.report.values import flatten

# Parts whose absence needs no word: no errors, no machine of the target's own, no review beyond the metrics, nothing
# that was to be searched.
_SILENT = ("Errors", "The machine", "Who is treated differently", "Sensitivity", "Repair")


def target_section(target: TargetEvidence) -> str:
    """Returns everything about one target, as Markdown; a part without figures says so."""
    title = f"{target.target} ({target.runs_on})"
    parts = [f"## Target {escape(title)}"]
    if target.settings:
        parts.append(table(("setting", "value"), flatten(target.settings)))
    if target.error:
        parts += ["This target failed:", fence(target.error)]
    if target.unanswered:
        parts.append(escape(f"Note: {target.unanswered}."))
    sections: tuple[tuple[str, Callable[[TargetEvidence], str]], ...] = (
        ("Artifacts", _artifacts),
        ("Quality", _quality),
        ("Gate", _gate),
        ("Who is treated differently", _reviews),
        ("Parity", _parity),
        ("Latency", _latency),
        ("Memory", _memory),
        ("The machine", _device),
        ("Placement", _placement),
        ("Layers", _layers),
        ("Sensitivity", _sensitivity),
        ("Repair", _repair),
        ("Errors", _errors),
    )
    for heading, section in sections:
        body = section(target) or ("" if heading in _SILENT else "Not measured.")
        parts += [f"### {heading}", body] if body else []
    return "\n\n".join(parts)


def _artifacts(target: TargetEvidence) -> str:
    rows = [
        (
            artifact.scheme,
            artifact.file,
            format_bytes(artifact.size_bytes),
            f"{format_count(artifact.size_bytes)} B",
            ", ".join(artifact.inputs),
            ", ".join(artifact.outputs),
            artifact.sha256,
        )
        for artifact in (candidate.artifact for candidate in target.candidates)
        if artifact is not None
    ]
    found = [
        f"Note on {candidate.scheme}: {note}"
        for candidate in target.candidates
        if candidate.artifact is not None
        for note in candidate.artifact.notes
    ]
    if not rows:
        return ""
    text = table(("scheme", "file", "size", "bytes", "inputs", "outputs", "sha256"), rows)
    return f"{text}\n\n{bullets(found)}" if found else text


def _quality(target: TargetEvidence) -> str:
    several = several_tasks(target)
    rows = [
        (candidate.scheme, *((metric.task or MISSING,) if several else ()), *metric_row(metric, metric.name))
        for candidate in target.candidates
        for metric in candidate.metrics
    ]
    if not rows:
        return ""
    headings = ("scheme", *(("task",) if several else ()), *METRIC)
    return "\n\n".join([table(headings, rows), *_methods(target)])


def _methods(target: TargetEvidence) -> list[str]:
    """How the intervals of quality were found, said once a method."""
    found: dict[str, list[str]] = {}
    for candidate in target.candidates:
        for metric in candidate.metrics:
            if metric.interval is not None:
                names = found.setdefault(f"{format_level(metric.interval.level)}, {metric.interval.method}", [])
                if metric.name not in names:
                    names.append(metric.name)
    return [bullets(f"interval of {', '.join(names)}: {method}" for method, names in found.items())] if found else []


def _gate(target: TargetEvidence) -> str:
    rows: list[tuple[str, ...]] = [
        (scheme, verdict.status, rule.rule, rule.status, rule.reason)
        for scheme, verdict in target.verdicts.items()
        for rule in verdict.rules
    ]
    for scheme, verdict in target.verdicts.items():
        if not verdict.rules:
            rows.append((scheme, verdict.status, MISSING, MISSING, "no rule was applied"))
    return table(("scheme", "verdict", "rule", "status", "reason"), rows) if rows else ""


def _reviews(target: TargetEvidence) -> str:
    """What the review of every candidate but the baseline found, each folded away."""
    return "\n\n".join(
        details(candidate.scheme, "\n\n".join(_review_part(part) for part in parts))
        for candidate in target.candidates[1:]
        if (parts := review_parts(candidate))
    )


def _review_part(part: Part) -> str:
    text = f"#### {escape(part.title)}\n\n{table(part.headings, part.rows)}"
    return f"{text}\n\n{bullets(part.notes)}" if part.notes else text


def _parity(target: TargetEvidence) -> str:
    rows = parity_rows(target)
    headings = ("scheme", "output", "reference", "rows", "SQNR", "max abs", "reference range", "same decision")
    return table(headings, rows) if rows else ""


def _latency(target: TargetEvidence) -> str:
    tables = ((TIMES, time_rows(target)), (COMPARISON, comparison_rows(target)))
    return "\n\n".join(table(headings, rows) for headings, rows in tables if rows)


def _memory(target: TargetEvidence) -> str:
    rows = memory_rows(target)
    return table(MEMORY, rows) if rows else ""


def _device(target: TargetEvidence) -> str:
    rows = device_rows(target)
    return folded_table("Before and after times were taken", DEVICE, rows) if rows else ""


def _placement(target: TargetEvidence) -> str:
    return "\n\n".join(_one_placement(candidate) for candidate in target.candidates if candidate.placement is not None)


def _one_placement(candidate: Candidate) -> str:
    placement = candidate.placement
    if placement is None:
        return ""
    share = f"{placement.accelerated} of {placement.total} operators ({format_share(placement.share)})"
    summary = f"Placement of {candidate.scheme}: {share} on {placement.path}"
    rows = [
        (item.operator, format_count(item.count), "yes" if item.accelerated else "no", item.reason or MISSING)
        for item in placement.operators
    ]
    return folded_table(summary, ("operator", "count", "accelerated", "reason"), rows)


def _layers(target: TargetEvidence) -> str:
    return "\n\n".join(_one_layers(candidate) for candidate in target.candidates if candidate.artifact is not None)


def _one_layers(candidate: Candidate) -> str:
    artifact = candidate.artifact
    if artifact is None:
        return ""
    total = len(artifact.layers)
    summary = f"Layers of {candidate.scheme}: {artifact.quantized} of {total} below float32"
    if artifact.quantized == 0 and not any(layer.reason for layer in artifact.layers):
        return escape(summary)
    rows = [(layer.layer, layer.operator, layer.precision, layer.reason or MISSING) for layer in artifact.layers]
    return folded_table(summary, ("layer", "operator", "precision", "reason"), rows)


def _sensitivity(target: TargetEvidence) -> str:
    return "\n\n".join(
        folded_table(sensitivity_title(found), sensitivity_headings(found), sensitivity_rows(found))
        for found in target.sensitivities
    )


def _repair(target: TargetEvidence) -> str:
    return "\n\n".join(
        f"{bullets(repair_sentences(found))}\n\n{table(REPAIR, repair_rows(found))}"
        if found.steps
        else bullets(repair_sentences(found))
        for found in target.repairs
    )


def _errors(target: TargetEvidence) -> str:
    failed: Iterable[Candidate] = (candidate for candidate in target.candidates if candidate.error)
    return "\n\n".join(details(f"Error of {candidate.scheme}", fence(candidate.error)) for candidate in failed)

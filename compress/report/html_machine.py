"""How the artifacts run: distance from the original, time, memory, placement, layers, files."""

from __future__ import annotations

from collections.abc import Callable

from compress.evidence import Candidate, Evidence, Latency, TargetEvidence
from compress.report.html_blocks import (
    Block,
    Bullets,
    Cell,
    Fold,
    Heading,
    Lines,
    Plots,
    Section,
    Text,
    Tone,
    clean,
    table,
)
from compress.report.html_plots import latency_ecdf
from compress.report.limits import missing_percentile
from compress.report.numbers import (
    MISSING,
    format_bytes,
    format_count,
    format_decibel,
    format_level,
    format_ms,
    format_ratio,
    format_ratio_interval,
    format_share,
    format_significant,
    format_value,
)
from compress.report.values import flatten

_SPEED: dict[str, Tone] = {"FASTER": "pass", "SLOWER": "fail", "UNKNOWN": "unsure"}


def parity_section(evidence: Evidence) -> Section:
    """Returns how far each output is from the original's."""
    return _by_target(evidence, "parity", "Parity with the original", _parity)


def latency_section(evidence: Evidence) -> Section:
    """Returns times, comparisons and memory."""
    plots = tuple(plot for target in evidence.targets if (plot := latency_ecdf(target)) is not None)
    section = _by_target(
        evidence, "latency", "Latency and memory", lambda target: [*_latency(target), *_memory(target)]
    )
    return Section(section.key, section.title, ((Plots(plots),) if plots else ()) + section.blocks)


def placement_section(evidence: Evidence) -> Section:
    """Returns which operators run on the fast path, which layers have which precision, and the files with hashes."""
    return _by_target(
        evidence,
        "placement",
        "Placement, layers and files",
        lambda target: [
            *_settings(target),
            *_artifacts(target),
            *_placement(target),
            *_layers(target),
            *_errors(target),
        ],
    )


def _by_target(evidence: Evidence, key: str, title: str, part: Callable[[TargetEvidence], list[Block]]) -> Section:
    blocks: list[Block] = []
    for target in evidence.targets:
        blocks.append(Heading(f"{clean(target.target)} ({clean(target.runtime)})"))
        blocks += part(target) or [Text("Not measured.")]
    return Section(key, title, tuple(blocks) or (Text("Not measured."),))


def _parity(target: TargetEvidence) -> list[Block]:
    rows = [
        (
            clean(candidate.scheme),
            clean(parity.output),
            clean(parity.reference),
            format_count(parity.rows),
            "equal" if parity.sqnr_db is None and parity.max_abs == 0 else format_decibel(parity.sqnr_db),
            format_significant(parity.max_abs, 2),
            format_significant(parity.reference_range, 3),
            format_value(parity.label_agreement),
        )
        for candidate in target.candidates
        for parity in candidate.parity
    ]
    names = ("scheme", "output", "reference", "rows", "SQNR", "largest difference", "reference range", "same decision")
    return [table(f"Parity on {clean(target.target)}", names, rows)] if rows else []


def _latency(target: TargetEvidence) -> list[Block]:
    measured = [(clean(item.scheme), item.latency) for item in target.candidates if item.latency is not None]
    if not measured:
        return []
    names = ("scheme", "median", "p90", "p99", "load", "first answer", "batch", "threads", "processes", "samples")
    blocks: list[Block] = [
        table(f"Times on {clean(target.target)}", names, [(scheme, *_times(latency)) for scheme, latency in measured])
    ]
    compared = [(scheme, *_comparison(latency)) for scheme, latency in measured if latency.comparison is not None]
    if compared:
        headings = ("scheme", "against", "ratio", "interval", "verdict", "tolerance", "pairs")
        blocks.append(table("Time beside the baseline, in interleaved pairs of processes", headings, compared))
    return blocks


def _times(latency: Latency) -> tuple[str, ...]:
    return (
        format_ms(latency.median_ms),
        _percentile(latency, "p90", latency.p90_ms),
        _percentile(latency, "p99", latency.p99_ms),
        format_ms(latency.load_ms),
        format_ms(latency.first_ms),
        str(latency.batch),
        str(latency.threads),
        format_count(latency.processes),
        format_count(sum(len(process) for process in latency.samples)),
    )


def _percentile(latency: Latency, name: str, value: float | None) -> str:
    return f"{MISSING} ({missing_percentile(latency, name)})" if value is None else format_ms(value)


def _comparison(latency: Latency) -> tuple[str | Cell, ...]:
    comparison = latency.comparison
    if comparison is None:
        return (MISSING,) * 6
    level = format_level(comparison.interval.level)
    return (
        clean(comparison.baseline),
        format_ratio(comparison.ratio),
        f"{format_ratio_interval(comparison.interval)} {level}, {clean(comparison.interval.method)}",
        Cell(comparison.verdict, _SPEED.get(comparison.verdict, "")),
        f"{comparison.tolerance * 100:g} %",
        format_count(comparison.pairs),
    )


def _memory(target: TargetEvidence) -> list[Block]:
    rows = [
        (
            clean(candidate.scheme),
            format_bytes(candidate.memory.above_empty_bytes),
            format_bytes(candidate.memory.peak_bytes),
            format_bytes(candidate.memory.empty_bytes),
        )
        for candidate in target.candidates
        if candidate.memory is not None
    ]
    headings = ("scheme", "above the empty worker", "peak", "empty worker")
    return [table(f"Memory on {clean(target.target)}", headings, rows)] if rows else []


def _settings(target: TargetEvidence) -> list[Block]:
    blocks: list[Block] = [Text(f"This target failed: {clean(target.error)}", "fail")] if target.error else []
    if target.settings:
        rows = [(clean(name), clean(value)) for name, value in flatten(target.settings)]
        blocks.append(Fold("Settings of the target", (table("Settings", ("setting", "value"), rows),)))
    return blocks


def _artifacts(target: TargetEvidence) -> list[Block]:
    artifacts = [item.artifact for item in target.candidates if item.artifact is not None]
    if not artifacts:
        return []
    rows = [
        (
            clean(item.scheme),
            clean(item.file),
            f"{format_count(item.size_bytes)} B",
            clean(", ".join(item.inputs)),
            clean(", ".join(item.outputs)),
            clean(item.sha256),
        )
        for item in artifacts
    ]
    headings = ("scheme", "file", "size", "inputs", "outputs", "sha256")
    found = tuple(f"{clean(item.scheme)}: {clean(note)}" for item in artifacts for note in item.notes)
    return [table("Files that were made", headings, rows), *([Bullets(found)] if found else [])]


def _placement(target: TargetEvidence) -> list[Block]:
    return [block for candidate in target.candidates for block in _one_placement(candidate)]


def _one_placement(candidate: Candidate) -> list[Block]:
    placement = candidate.placement
    if placement is None:
        return []
    share = f"{placement.accelerated} of {placement.total} operators ({format_share(placement.share)})"
    rows = [
        (
            clean(item.operator),
            format_count(item.count),
            Cell("yes" if item.accelerated else "no", "" if item.accelerated else "unsure"),
            clean(item.reason) or MISSING,
        )
        for item in placement.operators
    ]
    inside = table(f"Operators of {clean(candidate.scheme)}", ("operator", "count", "accelerated", "reason"), rows)
    return [Fold(f"Placement of {clean(candidate.scheme)}: {share} on {clean(placement.path)}", (inside,))]


def _layers(target: TargetEvidence) -> list[Block]:
    blocks: list[Block] = []
    for candidate in target.candidates:
        artifact = candidate.artifact
        if artifact is None or not artifact.layers:
            continue
        said = f"Layers of {clean(candidate.scheme)}: {artifact.quantized} of {len(artifact.layers)} below float32"
        rows = [
            (clean(item.layer), clean(item.operator), clean(item.precision), clean(item.reason) or MISSING)
            for item in artifact.layers
        ]
        inside = table(f"Layers of {clean(candidate.scheme)}", ("layer", "operator", "precision", "reason"), rows)
        blocks.append(Fold(said, (inside,)))
    return blocks


def _errors(target: TargetEvidence) -> list[Block]:
    return [
        Fold(f"Error of {clean(candidate.scheme)}", (Lines(_lines(candidate.error)),))
        for candidate in target.candidates
        if candidate.error
    ]


def _lines(text: str) -> str:
    return "\n".join(clean(line) for line in text.splitlines()[:40])

"""How the artifacts run: distance from the original, time, memory, placement, layers, files."""

from __future__ import annotations

from collections.abc import Callable

from compress.evidence import Candidate, Evidence, TargetEvidence
from compress.report.devices import DEVICE, device_rows
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
    cleaned,
    table,
)
from compress.report.html_plots import latency_ecdf
from compress.report.numbers import (
    MISSING,
    format_count,
    format_share,
)
from compress.report.places import MEANING, checked_on, matrix
from compress.report.rows import (
    COMPARISON,
    MEMORY,
    TIMES,
    comparison_rows,
    memory_rows,
    parity_rows,
    time_rows,
)
from compress.report.values import flatten

_SPEED: dict[str, Tone] = {"FASTER": "pass", "SLOWER": "fail", "UNKNOWN": "unsure"}


def parity_section(evidence: Evidence) -> Section:
    """Returns how far each output is from the original's, and from itself on other processors."""
    section = _by_target(evidence, "parity", "Parity with the original", _parity)
    titles, rows = matrix(evidence)
    if not rows:
        return section
    others: list[Block] = [
        Heading("The same files on other processors"),
        table("Parity on other processors", titles, cleaned(rows)),
        Text(MEANING, "quiet"),
        Bullets(tuple(clean(text) for text in checked_on(evidence))),
    ]
    return Section(section.key, section.title, (*section.blocks, *others))


def latency_section(evidence: Evidence) -> Section:
    """Returns times, comparisons and memory."""
    plots = tuple(plot for target in evidence.targets if (plot := latency_ecdf(target)) is not None)
    section = _by_target(
        evidence,
        "latency",
        "Latency and memory",
        lambda target: [*_latency(target), *_memory(target), *_device(target)],
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
        blocks.append(Heading(f"{clean(target.target)} ({clean(target.runs_on)})"))
        blocks += part(target) or [Text("Not measured.")]
    return Section(key, title, tuple(blocks) or (Text("Not measured."),))


def _parity(target: TargetEvidence) -> list[Block]:
    rows = cleaned(parity_rows(target))
    names = ("scheme", "output", "reference", "rows", "SQNR", "largest difference", "reference range", "same decision")
    return [table(f"Parity on {clean(target.target)}", names, rows)] if rows else []


def _latency(target: TargetEvidence) -> list[Block]:
    times, compared = cleaned(time_rows(target)), cleaned(comparison_rows(target))
    blocks: list[Block] = [table(f"Times on {clean(target.target)}", TIMES, times)] if times else []
    if compared:
        verdict = COMPARISON.index("verdict")
        rows: list[tuple[str | Cell, ...]] = [
            (*cells[:verdict], Cell(cells[verdict], _SPEED.get(cells[verdict], "")), *cells[verdict + 1 :])
            for cells in compared
        ]
        blocks.append(table("Time beside the baseline, in interleaved pairs of processes", COMPARISON, rows))
    return blocks


def _memory(target: TargetEvidence) -> list[Block]:
    rows = cleaned(memory_rows(target))
    return [table(f"Memory on {clean(target.target)}", MEMORY, rows)] if rows else []


def _device(target: TargetEvidence) -> list[Block]:
    blocks: list[Block] = [Text(f"Note: {clean(target.unanswered)}.", "unsure")] if target.unanswered else []
    if rows := cleaned(device_rows(target)):
        blocks.append(Fold("The machine, before and after times were taken", (table("The machine", DEVICE, rows),)))
    return blocks


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

"""What a reader must know beside the table, as plain sentences: what ships, and what was left undone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from compress.evidence import Candidate, Evidence, StepInfo, TargetEvidence
from compress.report.devices import device_notes
from compress.report.numbers import MISSING, format_ratio, format_ratio_interval, format_share, plural
from compress.report.places import checked_on
from compress.report.quality import caveats, differences
from compress.report.table import Row, size_ratio, target_rows
from compress.report.text import first_line, plain

REASONS = 4
"""How many different reasons a summary names before it only counts the rest."""


def verdict_line(target: TargetEvidence) -> str:
    """Returns what ships on a target: its gain and its price, or why the original or nothing does."""
    scheme = target.choice.scheme
    reason = _reason(target)
    if scheme is None:
        # With its hint: what to do about a whole target that failed is worth a line.
        failed = plain(" ".join(target.error.split()))
        return f"ships: nothing - {failed or reason or 'no reason was recorded'}"
    candidate = next((item for item in target.candidates if item.scheme == scheme), None)
    if candidate is None or candidate is target.baseline:
        name = f"{plain(scheme)} (the baseline)" if candidate is not None else plain(scheme)
        return f"ships: {name} - {reason or 'no reason was recorded'}"
    gains = ", ".join(_gains(target, candidate)) or reason or "no figures were measured"
    return f"ships: {plain(scheme)} - {gains}"


def why_not(target: TargetEvidence) -> tuple[Row, ...]:
    """Returns the rows that do not ship and whose reason the line of the verdict does not already give."""
    line = verdict_line(target)
    return tuple(
        row
        for row in target_rows(target)
        if row.outcome != "ships" and row.scheme != MISSING and f"{row.scheme} {row.reason}" not in line
    )


def notes(evidence: Evidence) -> tuple[str, ...]:
    """Returns one sentence for everything that was left out, skipped or warned of, each said once."""
    found: dict[str, dict[str, list[str]]] = {}
    for target, scheme, note in _located_notes(evidence):
        schemes = found.setdefault(note, {}).setdefault(target, [])
        if scheme and scheme not in schemes:
            schemes.append(scheme)
    return tuple(f"{_places(places)}{note}" for note, places in found.items())


def left_in_float(candidate: Candidate) -> str:
    """Returns how many layers of a quantized artifact stayed in float32 and why; empty where none did."""
    artifact = candidate.artifact
    if artifact is None or artifact.quantized == 0 or artifact.quantized == len(artifact.layers):
        return ""
    left = [layer for layer in artifact.layers if layer.precision == "float32"]
    reasons = count_reasons(layer.reason for layer in left)
    return f"{len(left)} of {plural(len(artifact.layers), 'layer')} left in float32: {reasons}"


def not_accelerated(candidate: Candidate) -> str:
    """Returns how many operators are off the accelerated path and why; empty where none are."""
    placement = candidate.placement
    if placement is None or placement.accelerated == placement.total:
        return ""
    left = placement.total - placement.accelerated
    reasons: dict[str, list[str]] = {}
    for item in placement.operators:
        if not item.accelerated:
            reasons.setdefault(plain(item.reason) or "no reason given", []).extend([item.operator] * item.count)
    said = "; ".join(f"{reason}: {count_reasons(operators)}" for reason, operators in reasons.items())
    return f"{left} of {plural(placement.total, 'operator')} not on {plain(placement.path)}: {said}"


def no_speed_up(evidence: Evidence, candidate: Candidate) -> str:
    """Returns that a model with less arithmetic is not measurably faster; empty where it is, or has no less."""
    comparison = candidate.latency.comparison if candidate.latency is not None else None
    before, after = evidence.model.macs, evidence.compressed.macs
    # Of all candidates only this one differs from the baseline by the passes alone.
    if candidate.scheme != "float32" or comparison is None or comparison.verdict == "FASTER" or not 0 < after < before:
        return ""
    interval = format_ratio_interval(comparison.interval)
    return (
        f"no speed-up of the smaller model was measured: {format_share(after / before)} of the multiply-adds, "
        f"{format_ratio(comparison.ratio)} {interval} the latency ({comparison.verdict})"
    )


def step_summary(step: StepInfo) -> str:
    """Returns what a pass did, in one sentence: how much it changed, how much it skipped and why."""
    text = f"{plain(step.kind)}: {len(step.changed)} changed, {len(step.skipped)} skipped"
    return f"{text}: {count_reasons(reason for _, reason in step.skipped)}" if step.skipped else text


def count_reasons(reasons: Iterable[str]) -> str:
    """Returns reasons with their counts, the most frequent first: `excluded by a pattern (12), no kernel (1)`."""
    counts = Counter(plain(reason).strip() or "no reason given" for reason in reasons)
    named = [f"{reason} ({count})" for reason, count in counts.most_common(REASONS)]
    rest = sum(counts.values()) - sum(count for _, count in counts.most_common(REASONS))
    return ", ".join([*named, f"others ({rest})"] if rest else named)


def _reason(target: TargetEvidence) -> str:
    """The reason of the choice, without the beginning that the line says already."""
    reason = plain(target.choice.reason).strip()
    said = "nothing ships" if target.choice.scheme is None else plain(target.choice.scheme)
    return reason.removeprefix(f"{said}: ")


def _gains(target: TargetEvidence, candidate: Candidate) -> list[str]:
    gains = []
    comparison = candidate.latency.comparison if candidate.latency is not None else None
    if comparison is not None:
        # A ratio that is not FASTER must not read as a gain.
        word = "" if comparison.verdict == "FASTER" else f" ({comparison.verdict})"
        gains.append(f"{format_ratio(comparison.ratio)} the latency{word}")
    ratio = size_ratio(candidate, target.baseline)
    if ratio is not None:
        gains.append(f"{format_ratio(ratio)} the size")
    return gains + differences(target, candidate)


def _places(places: dict[str, list[str]]) -> str:
    """Where a note holds: `host-a int8-static, int8-dynamic; host-b int8-static: `."""
    named = [f"{target} {', '.join(schemes)}".strip() for target, schemes in places.items() if target]
    return f"{'; '.join(named)}: " if named else ""


def _located_notes(evidence: Evidence) -> Iterable[tuple[str, str, str]]:
    """Notes as (target or kind, scheme, text), in the order in which a run comes upon them."""
    for text in evidence.data.notes:
        yield "data", "", plain(text)
    for step in evidence.steps:
        yield "", "", step_summary(step)
    for target in evidence.targets:
        name = plain(target.target)
        if target.error and target.candidates:
            yield name, "", first_line(target.error)
        for candidate in target.candidates:
            for text in (
                *caveats(target, candidate),
                left_in_float(candidate),
                not_accelerated(candidate),
                no_speed_up(evidence, candidate),
            ):
                if text:
                    yield name, plain(candidate.scheme), plain(text)
    for text in checked_on(evidence):
        yield "parity", "", text
    for name, text in device_notes(evidence):
        yield name, "", text
    for text in evidence.environment.warnings:
        yield "warning", "", plain(text)

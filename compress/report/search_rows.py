"""The rows of what a search found: which layers hurt a scheme, and what a repair tried."""

from __future__ import annotations

from compress.evidence import Repair, Sensitivity
from compress.report.numbers import (
    MISSING,
    format_count,
    format_decibel,
    format_ratio,
    format_significant,
    format_value,
)
from compress.report.rows import Row

REPAIR = ("rung", "tried", "verdict", "loss", "SQNR", "kept", "seconds", "why")


def sensitivity_headings(found: Sensitivity) -> Row:
    """Returns the headings of a table of layers."""
    alone = "alone quantized" if found.mode == "alone" else "alone in float"
    return ("layer", "operator", f"SQNR, {alone}", "same decision", "time with it in float", "which costs", "note")


def sensitivity_rows(found: Sensitivity) -> list[Row]:
    """Returns a row a layer, the most harmful first."""
    return [
        (
            item.layer,
            item.operator,
            MISSING if item.error else ("equal" if item.sqnr_db is None else format_decibel(item.sqnr_db)),
            format_value(item.agreement),
            MISSING if item.float_ratio is None else format_ratio(item.float_ratio),
            MISSING if item.float_ms is None else f"{format_significant(item.float_ms, 2)} ms",
            item.error or MISSING,
        )
        for item in found.layers
    ]


def sensitivity_title(found: Sensitivity) -> str:
    """Returns what a table of layers shows, as a sentence."""
    how = "this layer alone quantized" if found.mode == "alone" else "this layer alone in float"
    return (
        f"Layers of {found.scheme}, the most harmful first: the file with {how} beside the float file, "
        f"on {format_count(found.rows)} {found.split} rows"
    )


def repair_rows(found: Repair) -> list[Row]:
    """Returns a row an attempt, in the order in which they were made."""
    return [
        (
            step.rung,
            step.tried,
            step.status or "not tried",
            MISSING if step.loss is None else f"{step.loss:z.4f}",
            MISSING if step.status is None else ("equal" if step.sqnr_db is None else format_decibel(step.sqnr_db)),
            "yes" if step.kept else "no",
            MISSING if step.status is None and not step.seconds else f"{step.seconds:.1f}",
            step.reason or MISSING,
        )
        for step in found.steps
    ]


def repair_sentences(found: Repair) -> list[str]:
    """Returns what came of a repair: the outcome, what was measured on the test rows, which layers are in float."""
    said = [f"{found.scheme}: {found.outcome}. Judged on {format_count(found.rows)} {found.split} rows."]
    if found.candidate:
        said.append(f"The repaired file is the candidate {found.candidate}, measured on the test rows like all others.")
    if found.left_float:
        said.append(f"In float: {', '.join(found.left_float)}.")
    said += [
        f"{step.kind} changed {len(step.changed)} and skipped {len(step.skipped)} places"
        + (f": {'; '.join(sorted({reason for _, reason in step.skipped}))}." if step.skipped else ".")
        for step in found.passes
    ]
    return said

"""Where the artifacts come from: what was done to the model, the rows, the machine; and the limits of the evidence."""

from __future__ import annotations

from compress.evidence import DataInfo, Environment, Evidence, ModelInfo, StepInfo
from compress.report.html_blocks import Block, Bullets, Cell, Fold, Heading, Section, Table, Text, clean, cleaned, table
from compress.report.html_training import training_blocks
from compress.report.limits import limits
from compress.report.numbers import MISSING, format_count, format_share
from compress.report.rows import NOTHING_DONE, model_rows
from compress.report.summary import count_reasons
from compress.report.values import flatten


def model_section(evidence: Evidence) -> Section:
    """Returns what each pass changed and skipped, and the model before and after."""
    if not evidence.model.digest:
        return Section("model", "What was done to the model", (Text(NOTHING_DONE),))
    blocks: list[Block] = []
    if not evidence.steps:
        blocks.append(Text("No pass was applied: every candidate is lowered from the original model."))
    blocks.append(_models("Model", evidence.model, evidence.compressed, ("original", "compressed")))
    for index, step in enumerate(evidence.steps, start=1):
        blocks += [Heading(f"Step {index}: {clean(step.kind)}"), *_step(step)]
    return Section("model", "What was done to the model", tuple(blocks))


def data_section(evidence: Evidence) -> Section:
    """Returns the rows behind the figures, their splits and fingerprints."""
    data = evidence.data
    blocks: list[Block] = [Text(f"Source: {clean(data.source)}"), _splits(data), *_leaks(data)]
    if data.notes:
        blocks.append(Bullets(tuple(clean(note) for note in data.notes)))
    return Section("data", "Data and splits", tuple(blocks))


def environment_section(evidence: Evidence) -> Section:
    """Returns the machine and the packages, warnings first."""
    environment: Environment = evidence.environment
    blocks: list[Block] = []
    if environment.warnings:
        blocks.append(Bullets(tuple(f"Warning: {clean(text)}" for text in environment.warnings)))
    machine = [(clean(name), clean(value)) for name, value in flatten(environment.machine)]
    packages = [(clean(name), clean(version)) for name, version in environment.packages.items()]
    blocks.append(table("Machine", ("fact", "value"), machine))
    blocks.append(Fold(f"Packages: {len(packages)}", (table("Packages", ("package", "version"), packages),)))
    return Section("environment", "Environment", tuple(blocks))


def limits_section(evidence: Evidence) -> Section:
    """Returns what the figures cannot show."""
    return Section("limits", "Limits of this evidence", (Bullets(tuple(clean(text) for text in limits(evidence))),))


def _models(caption: str, before: ModelInfo, after: ModelInfo, names: tuple[str, str]) -> Table:
    return table(caption, ("", *names, "ratio"), cleaned(model_rows(before, after, "multiply-adds")))


def _step(step: StepInfo) -> list[Block]:
    blocks: list[Block] = [_models("Before and after the step", step.before, step.after, ("before", "after"))]
    changed = f"Changed: {len(step.changed)}"
    rows = [(clean(item),) for item in step.changed]
    blocks.append(Fold(changed, (table("Changed", ("changed",), rows),)) if rows else Text(changed))
    if step.skipped:
        said = f"Skipped: {len(step.skipped)} ({clean(count_reasons(reason for _, reason in step.skipped))})"
        skipped = [(clean(where), clean(reason)) for where, reason in step.skipped]
        blocks.append(Fold(said, (table("Skipped", ("skipped", "reason"), skipped),)))
    else:
        blocks.append(Text("Skipped: 0"))
    if step.training is not None:
        blocks += training_blocks(step.training)
    return blocks


def _splits(data: DataInfo) -> Table:
    # Without a label of 0 and 1 no row is positive or negative.
    binary = bool(data.positives)
    rows: list[tuple[str | Cell, ...]] = []
    for split, count in data.splits.items():
        positives = data.positives.get(split)
        rate = format_share(positives / count) if positives is not None and count else MISSING
        counted = (format_count(positives), rate) if binary else ()
        rows.append((clean(split), format_count(count), *counted, clean(data.split_fingerprints.get(split, MISSING))))
    rows.append(("all", format_count(data.rows), *((MISSING, MISSING) if binary else ()), clean(data.fingerprint)))
    return table("Splits", ("split", "rows", *(("positives", "rate") if binary else ()), "fingerprint"), rows)


def _leaks(data: DataInfo) -> list[Block]:
    if data.leaks is None:
        return [Text("Whether rows of one split stand in another was not looked for.")]
    if not data.leaks:
        return [Text("No row of the test split has the inputs of a row of another split.")]
    return [
        Text(
            f"{format_count(leak.rows)} of {format_count(leak.split_rows)} rows of {clean(leak.split)} have the inputs "
            f"of a row of {clean(leak.other)}: what is measured there was seen before.",
            "fail" if leak.rows else "",
        )
        for leak in data.leaks
    ]

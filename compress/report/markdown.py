"""The whole report as one Markdown text, the verdict first."""

from __future__ import annotations

from compress.evidence import DataInfo, Evidence, ModelInfo, StepInfo, TargetEvidence, TrainingInfo
from compress.report.limits import limits
from compress.report.markdown_target import target_section
from compress.report.markdown_text import bullets, details, escape, folded_table, table
from compress.report.numbers import MISSING, format_count, format_share
from compress.report.places import MEANING, matrix
from compress.report.rows import NOTHING_DONE, model_rows
from compress.report.summary import count_reasons, notes, verdict_line, why_not
from compress.report.table import headings, legend, table_rows, target_rows
from compress.report.training import SCORES, cost_sentence, epoch_headings, epoch_rows, score_rows
from compress.report.values import flatten


def render_markdown(evidence: Evidence) -> str:
    """Returns the report: verdict, table, then target by target, the model, the data, the machine, the limits.

    Every string that comes from a file is escaped: it shows as text and can neither break a table nor add markup.
    """
    parts = [
        f"# Compression report: {escape(evidence.name)}",
        _origin(evidence),
        "## Verdict",
        *(_verdict(target) for target in evidence.targets),
        *(() if evidence.targets else ("Nothing ships: no target was measured.",)),
        "## Results",
        table(headings(evidence), [row.cells for row in table_rows(evidence)]),
        bullets(f"{column}: {meaning}" for column, meaning in legend(evidence).items()),
        *_notes(evidence),
        *_places(evidence),
        *(target_section(target) for target in evidence.targets),
        "## What was done to the model",
        _model(evidence),
        *(_step(index, step) for index, step in enumerate(evidence.steps, start=1)),
        "## Data and splits",
        _data(evidence.data),
        "## Environment",
        *_environment(evidence),
        "## Limits of this evidence",
        bullets(limits(evidence)),
    ]
    return "\n\n".join(parts) + "\n"


def _origin(evidence: Evidence) -> str:
    said = f"Measured {evidence.created} by edge-compress {evidence.version}, recipe {evidence.recipe_digest}."
    return escape(said)


def _verdict(target: TargetEvidence) -> str:
    said = f"**{escape(target.target)}** {escape(verdict_line(target))}"
    items = [f"not {row.scheme}: {row.reason}" for row in why_not(target)]
    shipped = next((row for row in target_rows(target) if row.outcome == "ships"), None)
    # The line of the baseline is the reason itself; that of another scheme gives its figures.
    if shipped is not None and shipped.reason and shipped.scheme != target.candidates[0].scheme:
        items.insert(0, f"why: {shipped.reason}")
    return f"{said}\n\n{bullets(items)}" if items else said


def _notes(evidence: Evidence) -> list[str]:
    found = notes(evidence)
    return ["Notes:", bullets(found)] if found else []


def _places(evidence: Evidence) -> list[str]:
    titles, rows = matrix(evidence)
    return ["## Parity on other processors", table(titles, rows), escape(MEANING)] if rows else []


def _model(evidence: Evidence) -> str:
    original, compressed = evidence.model, evidence.compressed
    if not original.digest:
        return NOTHING_DONE
    text = _model_table(original, compressed, ("original", "compressed"))
    if evidence.steps:
        return text
    return f"No pass was applied: every candidate is lowered from the original model.\n\n{text}"


def _step(index: int, step: StepInfo) -> str:
    title = f"### Step {index}: {escape(step.kind)}"
    parts = [title, _model_table(step.before, step.after, ("before", "after"))]
    changed = f"Changed: {len(step.changed)}"
    parts.append(folded_table(changed, ("changed",), [(item,) for item in step.changed]) if step.changed else changed)
    skipped = f"Skipped: {len(step.skipped)}"
    if step.skipped:
        skipped = f"{skipped} ({count_reasons(reason for _, reason in step.skipped)})"
        parts.append(folded_table(skipped, ("skipped", "reason"), step.skipped))
    else:
        parts.append(skipped)
    if step.training is not None:
        parts += _training(step.training)
    return "\n\n".join(parts)


def _training(training: TrainingInfo) -> list[str]:
    parts = [escape(cost_sentence(training))]
    if training.scores:
        parts.append(table(SCORES, score_rows(training)))
    parts.append(folded_table(f"Epochs: {len(training.epochs)}", epoch_headings(training), epoch_rows(training)))
    if training.pairs:
        parts.append(details(f"Pairs, student <- teacher: {len(training.pairs)}", bullets(training.pairs)))
    return parts


def _model_table(before: ModelInfo, after: ModelInfo, names: tuple[str, str]) -> str:
    """What a Model is and costs, before and after."""
    return table(("", *names, "ratio"), model_rows(before, after, "MACs"))


def _data(data: DataInfo) -> str:
    # Without a label of 0 and 1 no row is positive or negative.
    binary = bool(data.positives)
    rows: list[tuple[str, ...]] = []
    for split, count in data.splits.items():
        positives = data.positives.get(split)
        rate = format_share(positives / count) if positives is not None and count else MISSING
        fingerprint = data.split_fingerprints.get(split, MISSING)
        counted = (format_count(positives), rate) if binary else ()
        rows.append((split, format_count(count), *counted, fingerprint))
    rows.append(("all", format_count(data.rows), *((MISSING, MISSING) if binary else ()), data.fingerprint))
    names = ("split", "rows", *(("positives", "rate") if binary else ()), "fingerprint")
    text = f"Source: {escape(data.source)}\n\n" + table(names, rows)
    return f"{text}\n\n{bullets(data.notes)}" if data.notes else text


def _environment(evidence: Evidence) -> list[str]:
    environment = evidence.environment
    parts = [
        folded_table("Machine", ("fact", "value"), flatten(environment.machine)),
        folded_table("Packages", ("package", "version"), list(environment.packages.items())),
    ]
    if environment.warnings:
        parts.append(bullets(f"Warning: {text}" for text in environment.warnings))
    return parts

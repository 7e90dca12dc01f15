"""How a pass trained, as rows and sentences that Markdown and HTML both print."""

from __future__ import annotations

from compress.evidence import TrainingInfo
from compress.report.numbers import MISSING, format_count, format_difference, format_value

SCORES = ("validation rows", "teacher", "before", "after", "after - before")
EPOCHS = ("epoch", "training loss", "validation loss", "figure")


def cost_sentence(training: TrainingInfo) -> str:
    """Returns what training took and why it ended."""
    last = training.epochs[-1].epoch
    kept = (
        f"epoch {training.best_epoch} of {last} was kept" if training.best_epoch else f"none of {last} epochs was kept"
    )
    return (
        f"Trained on {format_count(training.rows)} rows in {format_count(training.steps)} steps, "
        f"{training.seconds:,.0f} s; {kept}; ended: {training.ended}."
    )


def score_rows(training: TrainingInfo) -> list[tuple[str, ...]]:
    """Returns the cells under `SCORES` of each figure of the validation rows."""
    return [
        (
            score.name,
            format_value(score.teacher),
            format_value(score.before),
            format_value(score.after),
            format_difference(score.after - score.before)
            if score.after is not None and score.before is not None
            else MISSING,
        )
        for score in training.scores
    ]


def epoch_rows(training: TrainingInfo) -> list[tuple[str, ...]]:
    """Returns the cells under `EPOCHS` of each look; the figure is `TrainingInfo.metric`."""
    return [
        (
            f"{item.epoch}{' (kept)' if item.epoch == training.best_epoch else ''}",
            format_value(item.train_loss),
            format_value(item.loss),
            format_value(item.metric),
        )
        for item in training.epochs
    ]


def epoch_headings(training: TrainingInfo) -> tuple[str, ...]:
    """Returns `EPOCHS` with the figure's own name."""
    return (*EPOCHS[:-1], training.metric or EPOCHS[-1])

"""How a pass trained: curves of loss and figure over the epochs, what it cost and gave."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from compress.evidence import TrainingInfo
from compress.report import html_svg as svg
from compress.report.html_blocks import Block, Bullets, Fold, Key, Plot, Plots, Text, clean, cleaned, table
from compress.report.numbers import format_value
from compress.report.training import SCORES, cost_sentence, epoch_headings, epoch_rows, score_rows

Points = list[tuple[float, float]]


def training_blocks(training: TrainingInfo) -> list[Block]:
    """Returns what the page says of a pass that trained."""
    blocks: list[Block] = [Text(clean(cost_sentence(training)))]
    if training.scores:
        blocks.append(table("Validation rows, teacher beside student", SCORES, cleaned(score_rows(training))))
    plots = [item for item in (_losses(training), _figure(training)) if item is not None]
    if plots:
        blocks.append(Plots(tuple(plots)))
    rows = cleaned(epoch_rows(training))
    blocks.append(Fold(f"Epochs: {len(rows)}", (table("Epochs", epoch_headings(training), rows),)))
    if training.pairs:
        pairs = tuple(clean(item) for item in training.pairs)
        blocks.append(Fold(f"Pairs, student <- teacher: {len(pairs)}", (Bullets(pairs),)))
    return blocks


def _losses(training: TrainingInfo) -> Plot | None:
    trained = [(item.epoch, item.train_loss) for item in training.epochs]
    judged = [(item.epoch, item.loss) for item in training.epochs]
    return _plot(
        training,
        "Loss",
        "What was minimised on the training rows, and the labelled loss of the validation rows; the two need not be of "
        "one kind.",
        (("base", "training", _known(trained)), ("lead", "validation", _known(judged))),
        "loss",
    )


def _figure(training: TrainingInfo) -> Plot | None:
    found = _known([(item.epoch, item.metric) for item in training.epochs])
    teacher = [item.teacher for item in training.scores if item.teacher is not None and item.name == training.metric]
    lines = [("lead", training.metric, found)]
    if teacher and found:
        lines.insert(0, ("base", "teacher", [(found[0][0], teacher[0]), (found[-1][0], teacher[0])]))
    return _plot(
        training,
        f"{training.metric} of the validation rows",
        "Of the weights that would be kept after each epoch.",
        lines,
        training.metric,
    )


def _plot(
    training: TrainingInfo, title: str, description: str, lines: Sequence[tuple[str, str, Points]], name: str
) -> Plot | None:
    shown = [line for line in lines if line[2]]
    if not shown or len(training.epochs) < 2:
        return None
    last = training.epochs[-1].epoch
    x, y = svg.scales((0.0, float(last)), svg.padded([value for _, _, points in shown for _, value in points], 0.08))
    parts = [svg.axes(x, y, "epoch", clean(name))]
    parts += [svg.curve(((x(across), y(up)) for across, up in points), mark) for mark, _, points in shown]
    lead = [point for mark, _, points in shown if mark == "lead" for point in points]
    kept = next((point for point in lead if point[0] == training.best_epoch), None)
    if kept is not None:
        said = f"epoch {training.best_epoch}, kept: {format_value(kept[1])}"
        parts.append(svg.dot((x(kept[0]), y(kept[1])), 3.6, "full", said))
    keys = tuple(Key(mark, clean(text)) for mark, text, _ in shown)
    return Plot(clean(title), clean(description), Markup("").join(parts), svg.WIDTH, svg.HEIGHT, keys)


def _known(points: Sequence[tuple[int, float | None]]) -> Points:
    return [(float(epoch), value) for epoch, value in points if value is not None]

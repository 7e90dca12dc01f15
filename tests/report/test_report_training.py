"""What the reports say of a pass that trained."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from compress.evidence import EpochInfo, Evidence, ScoreInfo, StepInfo, TrainingInfo, from_json, to_json
from compress.report.html import render_html
from compress.report.html_blocks import Fold, Plots, Table, Text
from compress.report.html_training import training_blocks
from compress.report.markdown import render_markdown
from compress.report.training import cost_sentence, epoch_rows, score_rows

TRAINING = TrainingInfo(
    epochs=(
        EpochInfo(0, None, 0.7, 0.5),
        EpochInfo(1, 0.41, 0.5, 0.75),
        EpochInfo(2, 0.36, 0.48, 0.78),
        EpochInfo(3, 0.33, 0.49, 0.77),
    ),
    best_epoch=2,
    metric="auc",
    scores=(ScoreInfo("auc", 0.5, 0.78, 0.79), ScoreInfo("loss", 0.7, 0.48, None)),
    pairs=("a.0 <- b.1 (hidden 8x16)", "<script>"),
    ended="2 epochs without a better one",
    rows=1800,
    steps=21,
    seconds=64.2,
)
ALONE = replace(TRAINING, epochs=(EpochInfo(0, None, None, None), EpochInfo(1, 0.4, None, None)), best_epoch=1)


def blocks_of(training: TrainingInfo, kind: type) -> list[Any]:
    return [block for block in training_blocks(training) if isinstance(block, kind)]


def test_cost_and_gain_are_said() -> None:
    assert cost_sentence(TRAINING) == (
        "Trained on 1,800 rows in 21 steps, 64 s; epoch 2 of 3 was kept; ended: 2 epochs without a better one."
    )
    assert "none of 3 epochs was kept" in cost_sentence(replace(TRAINING, best_epoch=0))
    assert score_rows(TRAINING) == [
        ("auc", "0.7900", "0.5000", "0.7800", "+0.2800"),
        ("loss", "-", "0.7000", "0.4800", "-0.2200"),
    ]
    assert epoch_rows(TRAINING)[0] == ("0", "-", "0.7000", "0.5000")
    assert epoch_rows(TRAINING)[2][0] == "2 (kept)"


def test_loss_and_figure_are_drawn_with_the_epoch_that_was_kept() -> None:
    (plots,) = blocks_of(TRAINING, Plots)
    losses, figures = plots.plots
    assert (losses.title, figures.title) == ("Loss", "auc of the validation rows")
    assert losses.body.count("<polyline") == 2 and "epoch 2, kept: 0.4800" in losses.body
    assert [key.text for key in losses.keys] == ["training", "validation"]
    # The teacher is a line to reach.
    assert [key.text for key in figures.keys] == ["teacher", "auc"] and "epoch 2, kept: 0.7800" in figures.body


def test_what_was_not_seen_is_not_drawn() -> None:
    (plots,) = blocks_of(ALONE, Plots)
    (losses,) = plots.plots
    assert losses.body.count("<polyline") == 1
    none = replace(TRAINING, epochs=TRAINING.epochs[:1], best_epoch=0)
    assert not blocks_of(none, Plots)


def test_pairs_and_epochs_can_be_unfolded() -> None:
    assert [fold.summary for fold in blocks_of(TRAINING, Fold)] == ["Epochs: 4", "Pairs, student <- teacher: 2"]
    assert len(blocks_of(TRAINING, Text)) == 1 and len(blocks_of(TRAINING, Table)) == 1
    assert [fold.summary for fold in blocks_of(replace(TRAINING, pairs=()), Fold)] == ["Epochs: 4"]


def test_both_reports_hold_it_and_nothing_of_it_is_markup(evidence: Evidence) -> None:
    step = StepInfo("distill", ("weights: 9 tensors",), (), evidence.model, evidence.compressed, TRAINING)
    whole = replace(evidence, steps=(step,))
    assert from_json(Evidence, to_json(whole)) == whole
    page, text = render_html(whole), render_markdown(whole)
    for said in ("Trained on 1,800 rows in 21 steps", "Pairs, student"):
        assert said in page and said in text
    assert "auc of the validation rows" in page and "<script>" not in page and "<script>" not in text
    assert "| auc | 0.7900 | 0.5000 | 0.7800 | +0.2800 |" in text

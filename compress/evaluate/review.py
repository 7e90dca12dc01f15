"""The whole review of one task: decisions, bands, ranking, calibration, segments, fairness, periods, folds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from compress.errors import InternalError
from compress.evaluate.answers import ClassAnswers, NumberAnswers
from compress.evaluate.bands import compare_bands
from compress.evaluate.binary_counts import Costs, count, expected_cost, precision_recall_f1, selection_rate, share
from compress.evaluate.calibration import class_log_losses
from compress.evaluate.class_calibration import compare_class_calibration
from compress.evaluate.classes import compare_classes
from compress.evaluate.fairness import compare_fairness
from compress.evaluate.groups import Groups
from compress.evaluate.periods import compare_folds, compare_periods
from compress.evaluate.ranking import compare_ranking
from compress.evaluate.reliability import compare_calibration
from compress.evaluate.scores import (
    QUANTIZED_SUM_ROUNDING,
    Link,
    TaskKind,
    binary_labels,
    class_labels,
    class_outputs,
    class_probabilities,
    numbers,
    probabilities,
    same_rows,
)
from compress.evaluate.segments import Rows, compare_segments, general_segments, worst_segment
from compress.recipe import EvaluateConfig
from compress.review import Decisions, Figure, Interval, Review, Share

LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class Asked:
    """What the review of a task is told beside the answers.

    Attributes:
        task: Its name; empty for the only one.
        kind: What it is.
        link: What the outputs hold; None for regression.
        cutoff: The probability from which a row counts as positive (binary).
        segments: How the rows fall into groups, a column or named segment each.
        periods: The rows by period of time, if there is a time column.
        class_names: Of a multi-class task, in their order.
    """

    task: str
    kind: TaskKind
    link: Link | None
    cutoff: float
    segments: Sequence[Groups] = ()
    periods: Groups | None = None
    class_names: Sequence[str] = ()


def review_task(
    labels: ArrayLike,
    baseline_outputs: ArrayLike,
    candidate_outputs: ArrayLike,
    asked: Asked,
    config: EvaluateConfig,
    *,
    resamples: int,
    seed: int,
    level: float = LEVEL,
    where: str,
) -> Review:
    """Returns the review of one task from raw outputs of both on the same rows.

    Args:
        labels: 0 and 1 (binary), numbers of classes (multiclass) or numbers (regression), `[rows]`.
        baseline_outputs: Raw outputs of the baseline: `[rows]` or `[rows, 1]`, for multiclass `[rows, classes]`.
        candidate_outputs: The same of the candidate.
        asked: What the task is, and how its rows fall into groups.
        config: What is looked at.
        resamples: Number of bootstrap draws.
        seed: Of everything drawn.
        level: The confidence level.
        where: Names the candidate's output in an error message.

    Raises:
        DataError: If labels or outputs are not what the task says, or their numbers differ.
    """
    found = _review(labels, baseline_outputs, candidate_outputs, asked, config, resamples, seed, level, where)
    return equal(found, level) if np.array_equal(np.asarray(baseline_outputs), np.asarray(candidate_outputs)) else found


def equal(review: Review, level: float) -> Review:
    """Returns the review of a candidate with the baseline's own scores: what it changes is exactly 0, for any row."""
    zero = Interval(0.0, 0.0, level, "equal scores")

    def of(figures: Sequence[Figure]) -> tuple[Figure, ...]:
        return tuple(replace(item, interval=zero) if item.difference is not None else item for item in figures)

    def none(share: Share) -> Share:
        return replace(share, interval=zero) if share.rows else share

    return replace(
        review,
        decisions=tuple(
            replace(
                item,
                flipped=none(item.flipped),
                to_positive=none(item.to_positive),
                to_negative=none(item.to_negative),
                figures=of(item.figures),
            )
            for item in review.decisions
        ),
        classes=tuple(replace(item, figures=of(item.figures)) for item in review.classes),
        calibration=review.calibration and replace(review.calibration, figures=of(review.calibration.figures)),
        segments=tuple(replace(item, figures=of(item.figures)) for item in review.segments),
        fairness=tuple(replace(item, figures=of(item.figures)) for item in review.fairness),
        periods=tuple(replace(item, figures=of(item.figures)) for item in review.periods),
        folds=of(review.folds),
    )


def _review(
    labels: ArrayLike,
    baseline_outputs: ArrayLike,
    candidate_outputs: ArrayLike,
    asked: Asked,
    config: EvaluateConfig,
    resamples: int,
    seed: int,
    level: float,
    where: str,
) -> Review:
    answers = (labels, baseline_outputs, candidate_outputs)
    if asked.kind == "regression":
        return _regression(answers, asked, config, resamples, seed, level, where)
    if asked.link is None:
        raise InternalError(f"{where}: a {asked.kind} task needs a link")
    if asked.kind == "multiclass":
        return _multiclass(answers, asked, asked.link, config, resamples, seed, level, where)
    rows = Rows(
        labels=binary_labels(labels, f"{where}: labels"),
        baseline=probabilities(baseline_outputs, asked.link, f"{where} of the baseline"),
        candidate=probabilities(candidate_outputs, asked.link, where),
        cutoff=asked.cutoff,
        favourable=0 if config.favourable == "negative" else 1,
        level=level,
    )
    return review_binary(rows, asked, config, resamples=resamples, seed=seed)


def review_binary(rows: Rows, asked: Asked, config: EvaluateConfig, *, resamples: int, seed: int) -> Review:
    """Returns the review of a binary task; ranking needs rows of both classes and is None without.

    Raises:
        DataError: If the numbers of labels and scores differ.
    """
    same_rows(rows.labels.size, rows.baseline.size, rows.candidate.size)
    drawn: dict[str, Any] = {"resamples": resamples, "seed": seed, "level": rows.level}
    one_class = bool(rows.labels.all() or not rows.labels.any())
    segments = compare_segments(rows, asked.segments, rows_min=config.segment_rows)
    triple = (rows.labels, rows.baseline, rows.candidate)
    return Review(
        task=asked.task,
        kind="binary",
        rows=rows.labels.size,
        decisions=tuple(
            decisions_at(rows, cutoff, config, resamples=resamples, seed=seed)
            for cutoff in dict.fromkeys((rows.cutoff, *config.cutoffs))
        ),
        bands=compare_bands(rows.baseline, rows.candidate, bands=config.bands, **drawn),
        ranking=None if one_class else compare_ranking(*triple, **drawn),
        calibration=compare_calibration(*triple, bins=config.calibration_bins, **drawn),
        segments=segments,
        fairness=compare_fairness(rows, asked.segments, rows_min=config.segment_rows, resamples=resamples, seed=seed),
        worst_segment=worst_segment(segments),
        periods=() if asked.periods is None else compare_periods(rows, asked.periods),
        folds=compare_folds(rows, config.folds, seed) if config.folds else (),
        notes=(f"ranking is undefined: all {rows.labels.size:,} rows are of one class",) if one_class else (),
    )


def decisions_at(rows: Rows, cutoff: float, config: EvaluateConfig, *, resamples: int, seed: int) -> Decisions:
    """Returns what is decided otherwise at one cut-off; flips carry exact intervals."""
    counts = count(rows.labels, rows.baseline >= cutoff, rows.candidate >= cutoff)
    figures = [
        selection_rate(counts, rows.favourable, rows.level),
        *precision_recall_f1(counts, resamples=resamples, seed=seed, level=rows.level),
    ]
    if config.cost is not None:
        figures.append(expected_cost(counts, Costs(**config.cost.model_dump()), rows.level))
    return Decisions(
        cutoff=cutoff,
        task_cutoff=cutoff == rows.cutoff,
        flipped=share(counts.flipped, counts.rows, rows.level),
        to_positive=share(counts.to_positive, counts.rows, rows.level),
        to_negative=share(counts.to_negative, counts.rows, rows.level),
        figures=tuple(figures),
    )


def _multiclass(
    answers: tuple[ArrayLike, ArrayLike, ArrayLike],
    asked: Asked,
    link: Link,
    config: EvaluateConfig,
    resamples: int,
    seed: int,
    level: float,
    where: str,
) -> Review:
    before, after = class_outputs(answers[1], f"{where} of the baseline"), class_outputs(answers[2], where)
    labels = class_labels(answers[0], before.shape[1], f"{where}: labels")
    same_rows(labels.size, before.shape[0], after.shape[0])
    decided: list[NDArray[np.int64]] = [before.argmax(axis=1), after.argmax(axis=1)]
    chances = (
        class_probabilities(before, link, f"{where} of the baseline"),
        class_probabilities(after, link, where, QUANTIZED_SUM_ROUNDING),
    )
    losses = [class_log_losses(labels, each) for each in chances]
    rows = ClassAnswers(labels, decided[0], decided[1], losses[0], losses[1], level)
    drawn: dict[str, Any] = {"resamples": resamples, "seed": seed, "level": level}
    segments = general_segments(rows, asked.segments, rows_min=config.segment_rows)
    return Review(
        task=asked.task,
        kind="multiclass",
        rows=labels.size,
        calibration=compare_class_calibration(labels, *chances, bins=config.calibration_bins, **drawn),
        classes=compare_classes(labels, decided[0], decided[1], asked.class_names, classes=before.shape[1], **drawn),
        segments=segments,
        worst_segment=worst_segment(segments, "top_1"),
        periods=() if asked.periods is None else compare_periods(rows, asked.periods),
        folds=compare_folds(rows, config.folds, seed) if config.folds else (),
    )


def _regression(
    answers: tuple[ArrayLike, ArrayLike, ArrayLike],
    asked: Asked,
    config: EvaluateConfig,
    resamples: int,
    seed: int,
    level: float,
    where: str,
) -> Review:
    labels = numbers(answers[0], f"{where}: labels")
    before, after = numbers(answers[1], f"{where} of the baseline"), numbers(answers[2], where)
    same_rows(labels.size, before.size, after.size)
    rows = NumberAnswers(labels, before - labels, after - labels, level)
    segments = general_segments(rows, asked.segments, rows_min=config.segment_rows)
    gains = [(item.title, figure.difference) for item in segments if (figure := item.figure("mae")) and not item.small]
    worst = max(gains, key=lambda item: item[1] or 0.0, default=("", 0.0))
    return Review(
        task=asked.task,
        kind="regression",
        rows=labels.size,
        bands=compare_bands(before, after, bands=config.bands, resamples=resamples, seed=seed, level=level),
        segments=segments,
        worst_segment=worst[0] if (worst[1] or 0.0) > 0 else "",
        periods=() if asked.periods is None else compare_periods(rows, asked.periods),
        folds=compare_folds(rows, config.folds, seed) if config.folds else (),
    )

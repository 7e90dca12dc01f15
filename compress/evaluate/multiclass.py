"""Quality of a multi-class task beside its baseline, on the same rows: differences are paired and have intervals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from compress.errors import DataError
from compress.evaluate.calibration import EPSILON, class_log_losses
from compress.evaluate.confusion import macro_f1, recall_changes, weighted_macro_f1
from compress.evaluate.paired import bca_of_mean, centred_percentile, mean_of, replicate
from compress.evaluate.scores import (
    QUANTIZED_SUM_ROUNDING,
    SUM_ROUNDING,
    Link,
    class_labels,
    class_outputs,
    class_probabilities,
    same_rows,
)
from compress.evaluate.shares import tango_interval, unseen_loss, wilson_interval
from compress.evidence import Interval, Metric

Floats = NDArray[np.float64]
Classes = NDArray[np.int64]

PRIMARY = "top_1"
# With fewer rows the bootstrap's intervals are too short; tests/evaluate/test_evaluate_multiclass.py shows by how much.
ROWS_MIN = 50
# A class of fewer rows has no recall of its own, and is drawn together with the other small ones.
CLASS_ROWS_MIN = 10
# Intervals of F1 that rest on fewer rows than this miss rare large changes; they are given, with a note.
CHANGED_ROWS_MIN = 10
_COSTS = ("log_loss", "brier")


@dataclass(frozen=True)
class _Pair:
    """Checked answers to the same rows: probabilities `[rows, classes]`, and the classes decided `[rows]`."""

    labels: Classes
    before: Floats
    after: Floats
    decided_before: Classes
    decided_after: Classes
    identical: bool
    resamples: int
    seed: int
    level: float

    @property
    def rows(self) -> int:
        return int(self.labels.size)

    @property
    def classes(self) -> int:
        return int(self.before.shape[1])

    @property
    def changed(self) -> int:
        """Number of rows that are given another class."""
        return int(np.count_nonzero(self.decided_before != self.decided_after))

    @property
    def right(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Whether the class decided is the label, before and after, `[rows]` each."""
        return self.decided_before == self.labels, self.decided_after == self.labels

    @property
    def turned(self) -> tuple[int, int]:
        """Number of rows that became right, and wrong."""
        was, now = self.right
        return int(np.count_nonzero(now & ~was)), int(np.count_nonzero(was & ~now))

    @property
    def too_few(self) -> str:
        """Why there can be no bootstrap interval, or nothing."""
        if self.identical or self.rows >= ROWS_MIN:
            return ""
        return f"no interval: {self.rows:,} rows, at least {ROWS_MIN} are needed"

    @property
    def zero(self) -> Interval:
        return Interval(0.0, 0.0, self.level, "equal scores")

    @cached_property
    def strata(self) -> Classes:
        """The class of each row; -1 joins the classes of few rows, which would hardly vary when drawn alone."""
        sizes = np.bincount(self.labels, minlength=self.classes)
        large = sizes >= CLASS_ROWS_MIN
        strata = np.where(large[self.labels], self.labels, -1)
        if 0 < np.count_nonzero(strata == -1) < CLASS_ROWS_MIN and large.any():
            strata[strata == np.where(large, sizes, self.rows + 1).argmin()] = -1
        return strata

    @cached_property
    def costs(self) -> tuple[Floats, Floats]:
        """The columns of `_COSTS` before and after, `[rows, 2]` each."""
        return _costs(self.labels, self.before), _costs(self.labels, self.after)


def compare_multiclass(
    labels: ArrayLike,
    baseline_outputs: ArrayLike,
    candidate_outputs: ArrayLike,
    *,
    link: Link,
    resamples: int,
    seed: int,
    level: float = 0.95,
    where: str = "output",
) -> tuple[Metric, ...]:
    """Returns `top_1, macro_f1, log_loss, brier, agreement, worst_class_recall` of a candidate; `top_1` is primary.

    1. A row's class is that of its largest output; of equal ones the first.
    2. `top_1` carries Tango's score interval of paired shares, which holds where few rows changed.
    3. `log_loss` (nats) and `brier` (the sum over classes, 0 to 2) carry that of a paired bootstrap stratified by
       label, BCa; `macro_f1`, over the classes that occur, its percentiles centred on the estimate. Classes of fewer
       than 10 rows are drawn together. With fewer than 50 rows there is a difference and no such interval.
    4. `agreement` is the share of rows of the same class in both, with the Wilson interval of the share itself.
    5. `worst_class_recall` is the recall of the class that loses most. Its interval holds for all classes together
       (Bonferroni), so that the choice of the worst does not deceive. Classes of fewer than 10 rows are left out.
    6. Equal outputs give differences and intervals of exactly 0.

    Args:
        labels: Numbers of classes, 0 to classes - 1, `[rows]`.
        baseline_outputs: Raw outputs of the baseline, `[rows, classes]`.
        candidate_outputs: The same of the candidate, for the same rows in the same order.
        link: What the outputs hold.
        resamples: Number of bootstrap draws.
        seed: Seed of the draws; equal seeds give equal intervals.
        level: Level of every interval.
        where: Names the output in an error message.

    Raises:
        DataError: If there are no rows, shapes differ, a label is no class, an output is not finite, or probabilities
            are none.
    """
    before, after = (class_outputs(outputs, where) for outputs in (baseline_outputs, candidate_outputs))
    if before.shape[1] != after.shape[1]:
        raise DataError(
            f"{where}: {after.shape[1]} classes, and {before.shape[1]} in the baseline",
            "compare the same output of both.",
        )
    true = class_labels(labels, before.shape[1], f"{where}: labels")
    same_rows(true.size, before.shape[0], after.shape[0])
    pair = _Pair(
        labels=true,
        before=class_probabilities(before, link, f"{where} of the baseline"),
        after=class_probabilities(after, link, where, QUANTIZED_SUM_ROUNDING),
        decided_before=before.argmax(axis=1),
        decided_after=after.argmax(axis=1),
        identical=bool(np.array_equal(before, after)),
        resamples=resamples,
        seed=seed,
        level=level,
    )
    replicates = _replicates(pair)
    found = (
        _top_1(pair),
        _macro_f1(pair, replicates),
        *_means_over_rows(pair, replicates),
        _agreement(pair),
        _worst_class(pair),
    )
    scaled = _scaled(after, link)
    return tuple(
        replace(
            metric,
            primary=metric.name == PRIMARY,
            note="; ".join(note for note in (metric.note, scaled if metric.name in _COSTS else "") if note),
        )
        for metric in found
    )


def _scaled(outputs: Floats, link: Link) -> str:
    """What must be said of probabilities that a quantized softmax did not make add up to 1, or nothing."""
    away = float(np.abs(outputs.sum(axis=1) - 1).max()) if link == "probability" else 0.0
    return f"rows add up to 1 within {away:.2g} only; they were scaled" if away > SUM_ROUNDING else ""


def _costs(labels: Classes, probability: Floats) -> Floats:
    """Log-loss (nats, probabilities of 2.2e-16 at least) and Brier score (the sum over classes) of every row."""
    of_label = probability[np.arange(labels.size), labels]
    # The sum of squares of p - 1 at the label and of p elsewhere.
    brier = np.square(probability).sum(axis=1) - np.square(of_label) + np.square(1 - of_label)
    return np.stack([class_log_losses(labels, probability), brier], axis=1)


def _replicates(pair: _Pair) -> Floats | None:
    """Bootstrap differences of the columns of `_COSTS` and of macro F1, `[resamples, 3]`, from the same draws."""
    if pair.identical or pair.too_few:
        return None
    before, after = (
        weighted_macro_f1(pair.labels, decided, pair.classes) for decided in (pair.decided_before, pair.decided_after)
    )
    of_rows = mean_of(pair.costs[1] - pair.costs[0])
    return replicate(
        pair.strata,
        [of_rows, lambda weights: (after(weights) - before(weights))[:, None]],
        resamples=pair.resamples,
        seed=pair.seed,
    )


def _top_1(pair: _Pair) -> Metric:
    was, now = pair.right
    gained, lost = pair.turned
    interval = pair.zero if pair.identical else tango_interval(gained, lost, pair.rows, pair.level)
    difference = (gained - lost) / pair.rows
    return Metric("top_1", float(now.mean()), float(was.mean()), difference, interval, True, pair.rows)


def _macro_f1(pair: _Pair, replicates: Floats | None) -> Metric:
    before, after = (
        macro_f1(pair.labels, decided, pair.classes) for decided in (pair.decided_before, pair.decided_after)
    )
    difference = after - before
    interval = pair.zero if pair.identical else None
    note = pair.too_few
    if replicates is not None:
        interval = centred_percentile(difference, replicates[:, -1], pair.level)
        if pair.changed < CHANGED_ROWS_MIN:
            rests = f"the interval rests on {pair.changed} rows whose class changed"
            note = f"{rests}; a rare large change may have been missed"
    return Metric("macro_f1", after, before, difference, interval, True, pair.rows, note)


def _means_over_rows(pair: _Pair, replicates: Floats | None) -> Iterator[Metric]:
    before, after = pair.costs
    # A row's Brier score is at most 2. Its log-loss is that of the least likely class that the candidate gives.
    largest = {"brier": 2.0, "log_loss": float(-np.log(max(pair.after.min(), EPSILON)))}
    for column, name in enumerate(_COSTS):
        shifts = after[:, column] - before[:, column]
        interval = pair.zero if pair.identical else None
        if replicates is not None:
            interval = bca_of_mean(pair.strata, shifts, replicates[:, column], pair.level)
        yield Metric(
            name=name,
            value=float(after[:, column].mean()),
            baseline=float(before[:, column].mean()),
            difference=float(shifts.mean()),
            interval=interval,
            higher_is_better=False,
            rows=pair.rows,
            note=pair.too_few,
            unseen=None if pair.identical else unseen_loss(pair.rows, largest[name]),
        )


def _agreement(pair: _Pair) -> Metric:
    same = pair.rows - pair.changed
    gained, lost = pair.turned
    return Metric(
        name="agreement",
        value=same / pair.rows,
        baseline=None,
        difference=None,
        interval=wilson_interval(same, pair.rows, pair.level),
        higher_is_better=True,
        rows=pair.rows,
        note=f"{pair.changed:,} rows changed their class: {gained:,} became right, {lost:,} wrong",
    )


def _worst_class(pair: _Pair) -> Metric:
    changes = recall_changes(pair.labels, pair.decided_before, pair.decided_after, pair.classes)
    judged = [change for change in changes if change.rows >= CLASS_ROWS_MIN]
    small = len(changes) - len(judged)
    left_out = f"; {small:,} of {len(changes):,} left out with fewer than {CLASS_ROWS_MIN} rows" if small else ""
    if not judged:
        note = f"undefined: no class has {CLASS_ROWS_MIN} rows"
        return Metric("worst_class_recall", None, None, None, None, True, pair.rows, note)
    worst = min(judged, key=lambda change: (change.difference, change.right_after / change.rows))
    each = 1 - (1 - pair.level) / len(judged)
    found = tango_interval(worst.gained, worst.lost, worst.rows, each)
    together = Interval(found.low, found.high, pair.level, f"{found.method}, Bonferroni over {len(judged)} classes")
    said = f"loses most of {len(judged)} classes" if worst.difference < 0 else "no class loses recall"
    return Metric(
        name="worst_class_recall",
        value=worst.right_after / worst.rows,
        baseline=worst.right_before / worst.rows,
        difference=worst.difference,
        interval=pair.zero if pair.identical else together,
        higher_is_better=True,
        rows=worst.rows,
        note=f"class {worst.label}: {said}{left_out}",
    )

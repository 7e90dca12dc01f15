"""Quality of a binary task beside its baseline on the same rows: every difference is paired and has an interval."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from compress.evaluate.calibration import EPSILON, brier_scores, log_losses
from compress.evaluate.cells import BY_CELLS, ROWS_MAX, gather
from compress.evaluate.decisions import decide, flips, hits
from compress.evaluate.discrimination import (
    INFORMATIVE_ROWS_MIN,
    PairedAuc,
    delong_paired,
    drawn_ks,
    ks,
    ks_informative_rows,
)
from compress.evaluate.paired import (
    CENTRED,
    bca_of_mean,
    centred_percentile,
    ks_difference,
    mean_of,
    normal_of_mean,
    replicate,
    widened,
)
from compress.evaluate.scores import binary_labels, probabilities, same_rows
from compress.evaluate.shares import tango_interval, unseen_loss, wilson_interval
from compress.evidence import Interval, Metric

Floats = NDArray[np.float64]

# With fewer rows of a class the intervals are too short; tests/evaluate/test_evaluate_quality.py shows by how much.
CLASS_ROWS_MIN = 10
PRIMARY = "auc"
# Metrics that are means over rows, and whether more of them is better.
_MEANS = ("log_loss", "brier")
_CERTAIN = (
    "no interval: a probability of 0 or 1 costs without bound where it is wrong, and rows too rare to be seen may be"
)


@dataclass(frozen=True)
class _Pair:
    """Checked scores of the same rows, and how sure to be of what is said about them."""

    labels: NDArray[np.bool_]
    baseline: Floats
    candidate: Floats
    cutoff: float
    resamples: int
    seed: int
    level: float

    @property
    def rows(self) -> int:
        return self.labels.size

    @property
    def class_sizes(self) -> tuple[int, int]:
        positives = int(np.count_nonzero(self.labels))
        return positives, self.rows - positives

    @property
    def one_class(self) -> str:
        """Why ranking metrics are undefined, or nothing."""
        positives, negatives = self.class_sizes
        if positives and negatives:
            return ""
        return f"undefined: all {self.rows:,} rows are {'positive' if positives else 'negative'}"

    @property
    def too_few(self) -> str:
        """Why there can be no interval, or nothing."""
        positives, negatives = self.class_sizes
        if min(size for size in (positives, negatives) if size) >= CLASS_ROWS_MIN:
            return ""
        return (
            f"no interval: {positives:,} positive and {negatives:,} negative rows, "
            f"at least {CLASS_ROWS_MIN} of a class are needed"
        )

    @property
    def many(self) -> bool:
        """Whether there are so many rows that resamples are of cells, and means are normal."""
        return self.rows > ROWS_MAX

    @property
    def identical(self) -> bool:
        return bool(np.array_equal(self.baseline, self.candidate))

    @property
    def has_certainties(self) -> bool:
        """Whether a probability is 0 or 1, so that one row on the wrong side costs without bound."""
        return any(
            bool((np.minimum(scores, 1 - scores) <= EPSILON).any()) for scores in (self.baseline, self.candidate)
        )

    def unseen(self, rows: int, largest: float = 1.0) -> float | None:
        """What rare rows could hide, see `unseen_loss`; None of equal scores, where nothing can."""
        return None if self.identical else unseen_loss(rows, largest)


def compare(
    labels: ArrayLike,
    baseline_probability: ArrayLike,
    candidate_probability: ArrayLike,
    *,
    cutoff: float,
    resamples: int,
    seed: int,
    level: float = 0.95,
) -> tuple[Metric, ...]:
    """Returns `auc, gini, ks, log_loss, brier, accuracy, agreement` of a candidate; `auc` is primary.

    AUC and Gini carry DeLong's interval; KS, log-loss and Brier that of a paired bootstrap stratified by label, KS
    wider where few rows changed sides; accuracy Tango's of paired shares; agreement the Wilson interval of the share.
    Equal scores give differences and intervals of exactly 0.
    Beyond 20,000 rows the means carry a normal interval, and KS that of a bootstrap over cells (see `cells`).
    With one class only, AUC, Gini and KS are None with a note; with fewer than 10 rows of a class there is a
    difference and no interval. Nor has the log-loss one where a probability is exactly 0 or 1.

    Args:
        labels: 0 and 1, `[rows]`.
        baseline_probability: Probability of the positive class by the baseline, `[rows]`.
        candidate_probability: The same by the candidate, for the same rows in the same order.
        cutoff: The probability from which a row counts as positive.
        resamples: Number of bootstrap draws.
        seed: Seed of the draws; equal seeds give equal intervals.
        level: Level of every interval.

    Raises:
        DataError: If there are no rows, lengths differ, a label is not 0 or 1, or a probability is not one.
    """
    pair = _Pair(
        labels=binary_labels(labels, "labels"),
        baseline=probabilities(baseline_probability, "probability", "baseline scores"),
        candidate=probabilities(candidate_probability, "probability", "candidate scores"),
        cutoff=cutoff,
        resamples=resamples,
        seed=seed,
        level=level,
    )
    same_rows(pair.labels.size, pair.baseline.size, pair.candidate.size)
    before, after = _per_row(pair, pair.baseline), _per_row(pair, pair.candidate)
    of_means, of_ks = _replicates(pair, after - before)
    if pair.many and not pair.identical and not pair.too_few and not pair.one_class:
        of_ks = _ks_of_cells(pair)
    if pair.one_class:
        ranking = tuple(_undefined(pair, name) for name in ("auc", "gini", "ks"))
    else:
        ranking = (*_auc_and_gini(pair), _ks(pair, of_ks))
    means = _means_over_rows(pair, before, after, of_means)
    found = (*ranking, *means, _accuracy(pair), _agreement(pair))
    return tuple(replace(metric, primary=metric.name == PRIMARY) for metric in found)


def _per_row(pair: _Pair, probability: Floats) -> Floats:
    """The columns of `_MEANS`, `[rows, 2]`."""
    return np.stack([log_losses(pair.labels, probability), brier_scores(pair.labels, probability)], axis=1)


def _replicates(pair: _Pair, shifts: Floats) -> tuple[Floats | None, Floats | None]:
    """Bootstrap differences, of the means `[resamples, 2]` and of KS `[resamples]`, from the same draws."""
    if pair.identical or pair.too_few or pair.many:
        return None, None
    statistics = [mean_of(shifts)]
    if not pair.one_class:
        statistics.append(ks_difference(pair.labels, pair.baseline, pair.candidate))
    found = replicate(pair.labels, statistics, resamples=pair.resamples, seed=pair.seed)
    means = shifts.shape[1]
    return found[:, :means], None if pair.one_class else found[:, means]


def _ks_of_cells(pair: _Pair) -> Floats:
    """Bootstrap differences of KS from cells, `[resamples]`."""
    cells = gather(pair.labels, pair.baseline, pair.candidate, ROWS_MAX)
    before, after = (drawn_ks(cells.labels, scores) for scores in (cells.baseline, cells.candidate))
    draws = cells.draws(pair.resamples, pair.seed)
    return np.concatenate([after(weights) - before(weights) for weights in draws])


def _undefined(pair: _Pair, name: str) -> Metric:
    return Metric(name, None, None, None, None, higher_is_better=True, rows=pair.rows, note=pair.one_class)


def _auc_and_gini(pair: _Pair) -> tuple[Metric, Metric]:
    found = delong_paired(pair.labels, pair.baseline, pair.candidate)
    interval = None if pair.too_few else found.interval(pair.level)
    if pair.identical:
        interval = _zero(pair)
    note = _note(pair) or _rests_on_few(found)
    doubled = interval and Interval(2 * interval.low, 2 * interval.high, interval.level, interval.method)
    # One row of the smaller class that falls from the top to the bottom costs 1 / its size.
    unseen = [pair.unseen(min(pair.class_sizes), largest) for largest in (1.0, 2.0)]
    area = Metric("auc", found.auc_b, found.auc_a, found.difference, interval, True, pair.rows, note)
    gini = Metric(
        "gini", 2 * found.auc_b - 1, 2 * found.auc_a - 1, 2 * found.difference, doubled, True, pair.rows, note
    )
    return replace(area, unseen=unseen[0]), replace(gini, unseen=unseen[1])


def _rests_on_few(found: PairedAuc) -> str:
    if not 0 < found.informative_rows < INFORMATIVE_ROWS_MIN:
        return ""
    return (
        f"the interval rests on about {found.informative_rows:.0f} rows of a class whose rank moved; "
        "a rare large change may have been missed"
    )


def _ks(pair: _Pair, replicates: Floats | None) -> Metric:
    before, after = ks(pair.labels, pair.baseline), ks(pair.labels, pair.candidate)
    difference = after - before
    interval = _zero(pair) if pair.identical else None
    if replicates is not None:
        method = BY_CELLS if pair.many else CENTRED
        informative = ks_informative_rows(pair.labels, pair.baseline, pair.candidate)
        interval = widened(centred_percentile(difference, replicates, pair.level, method), difference, informative)
    unseen = pair.unseen(min(pair.class_sizes))
    return Metric("ks", after, before, difference, interval, True, pair.rows, _note(pair), unseen=unseen)


def _means_over_rows(pair: _Pair, before: Floats, after: Floats, replicates: Floats | None) -> Iterator[Metric]:
    # A row's Brier score is at most 1. Its log-loss is that of the least likely label that the candidate gives.
    surest = np.minimum(pair.candidate, 1 - pair.candidate).min()
    largest = {"brier": 1.0, "log_loss": float(-np.log(max(surest, EPSILON)))}
    for column, name in enumerate(_MEANS):
        shifts = after[:, column] - before[:, column]
        interval = None
        if pair.identical:
            interval = _zero(pair)
        elif pair.many and not pair.too_few:
            interval = normal_of_mean(shifts, pair.level)
        elif replicates is not None:
            interval = bca_of_mean(pair.labels, shifts, replicates[:, column], pair.level)
        note = _note(pair)
        if name == "log_loss" and not pair.identical and not note and pair.has_certainties:
            # Of samples that hold no such row on the wrong side, half of the intervals did not cover.
            interval, note = None, _CERTAIN
        yield Metric(
            name=name,
            value=float(after[:, column].mean()),
            baseline=float(before[:, column].mean()),
            difference=float(shifts.mean()),
            interval=interval,
            higher_is_better=False,
            rows=pair.rows,
            note=note,
            unseen=pair.unseen(pair.rows, largest[name]),
        )


def _accuracy(pair: _Pair) -> Metric:
    was, now = (hits(pair.labels, scores, pair.cutoff) for scores in (pair.baseline, pair.candidate))
    gained, lost = int(np.count_nonzero(now > was)), int(np.count_nonzero(now < was))
    interval = _zero(pair) if pair.identical else tango_interval(gained, lost, pair.rows, pair.level)
    difference = (gained - lost) / pair.rows
    return Metric("accuracy", float(now.mean()), float(was.mean()), difference, interval, True, pair.rows)


def _agreement(pair: _Pair) -> Metric:
    moved = flips(decide(pair.baseline, pair.cutoff), decide(pair.candidate, pair.cutoff))
    return Metric(
        name="agreement",
        value=moved.agreement,
        baseline=None,
        difference=None,
        interval=wilson_interval(moved.agreeing, moved.rows, pair.level),
        higher_is_better=True,
        rows=pair.rows,
        note=f"{moved.to_positive:,} decisions became positive, {moved.to_negative:,} negative",
    )


def _zero(pair: _Pair) -> Interval:
    return Interval(0.0, 0.0, pair.level, "equal scores")


def _note(pair: _Pair) -> str:
    return "" if pair.identical else pair.too_few

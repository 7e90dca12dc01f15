"""Rows of a multi-class or regression task answered by both models, and the figures of any part of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from compress.evaluate.binary_counts import count, rate_of_label
from compress.evaluate.discrimination import effective_rows
from compress.evaluate.means import MEAN_ROWS_MIN, mean_figure
from compress.evaluate.shares import exact_interval
from compress.review import Figure, Interval

Classes = NDArray[np.int64]
Floats = NDArray[np.float64]


class Answers(Protocol):
    """Checked rows of a task with both models' answers. Segments, periods and folds are parts of them."""

    @property
    def level(self) -> float:
        """The confidence level of every interval."""

    @property
    def strata(self) -> NDArray[np.generic]:
        """Rows are dealt to folds within each of these, `[rows]`."""

    @property
    def positives(self) -> int | None:
        """Number of positive rows, of a binary task."""

    @property
    def folds_max(self) -> int:
        """Into how many folds the rows can be dealt so that the main figure is defined in each."""

    def of(self, members: NDArray[np.int64]) -> Self:
        """Returns some of the rows."""

    def figures(self) -> tuple[Figure, ...]:
        """Returns the figures of these rows, the main one first."""

    def main(self) -> tuple[str, float, float]:
        """Returns the name of the main figure, and its value by baseline and candidate."""


@dataclass(frozen=True, eq=False)
class ClassAnswers:
    """Rows of a multi-class task: labels and decided classes `[rows]`, log-losses `[rows]` by both, nats."""

    labels: Classes
    before: Classes
    after: Classes
    losses_before: Floats
    losses_after: Floats
    level: float

    @property
    def strata(self) -> NDArray[np.generic]:
        """The labels."""
        return self.labels

    @property
    def positives(self) -> int | None:
        """None: there are several classes."""
        return None

    @property
    def folds_max(self) -> int:
        """A fold needs a row."""
        return self.labels.size

    def of(self, members: NDArray[np.int64]) -> ClassAnswers:
        """Returns some of the rows."""
        return replace(
            self,
            labels=self.labels[members],
            before=self.before[members],
            after=self.after[members],
            losses_before=self.losses_before[members],
            losses_after=self.losses_after[members],
        )

    def figures(self) -> tuple[Figure, ...]:
        """Returns `top_1`, with Tango's interval, `agreement` with the exact one, and `log_loss`."""
        # A right answer is the "decision" here, whatever the label: counts of label 1 hold every row.
        every = np.ones(self.labels.size, dtype=np.bool_)
        counts = count(every, self.before == self.labels, self.after == self.labels)
        agreeing, rows = int(np.count_nonzero(self.before == self.after)), self.labels.size
        return (
            rate_of_label(counts, 1, 1, "top_1", self.level),
            Figure("agreement", agreeing / rows, interval=exact_interval(agreeing, rows, self.level)),
            mean_figure("log_loss", self.losses_before, self.losses_after, self.level),
        )

    def main(self) -> tuple[str, float, float]:
        """Returns the top-1 accuracy."""
        return "top_1", float((self.before == self.labels).mean()), float((self.after == self.labels).mean())


@dataclass(frozen=True, eq=False)
class NumberAnswers:
    """Rows of a regression task: labels, and prediction minus label by both, `[rows]` each, in the labels' unit."""

    labels: Floats
    before: Floats
    after: Floats
    level: float

    @property
    def strata(self) -> NDArray[np.generic]:
        """One: numbers have no classes."""
        return np.zeros(self.labels.size, dtype=np.int64)

    @property
    def positives(self) -> int | None:
        """None: a number is neither."""
        return None

    @property
    def folds_max(self) -> int:
        """R² needs two rows."""
        return self.labels.size // 2

    def of(self, members: NDArray[np.int64]) -> NumberAnswers:
        """Returns some of the rows."""
        return replace(self, labels=self.labels[members], before=self.before[members], after=self.after[members])

    def figures(self) -> tuple[Figure, ...]:
        """Returns `mae`, `mean_error` and `r2`."""
        return (
            mean_figure("mae", np.abs(self.before), np.abs(self.after), self.level),
            mean_figure("mean_error", self.before, self.after, self.level),
            self._r2(),
        )

    def main(self) -> tuple[str, float, float]:
        """Returns R²; NaN where all labels are equal."""
        spread = np.square(self.labels - self.labels.mean()).mean()
        of = [
            float(1 - np.square(errors).mean() / spread) if spread else np.nan for errors in (self.before, self.after)
        ]
        return "r2", of[0], of[1]

    def _r2(self) -> Figure:
        _, before, after = self.main()
        if not np.isfinite([before, after]).all():
            return Figure("r2", None, note="undefined: the labels of all rows are equal")
        difference, rows = after - before, self.labels.size
        if rows < MEAN_ROWS_MIN:
            note = f"no interval: {rows:,} rows, at least {MEAN_ROWS_MIN} are needed"
            return Figure("r2", after, before, difference, note=note)
        # What each row adds, to first order (the delta method); the labels' variance is an estimate, too.
        away = np.square(self.labels - self.labels.mean())
        moved = np.square(self.before) - np.square(self.after)
        adds = (moved - moved.mean() * away / away.mean()) / away.mean()
        freedom = max(1.0, effective_rows(adds) - 1)
        half = float(stdtrit(freedom, (1 + self.level) / 2) * adds.std(ddof=1) / np.sqrt(rows))
        interval = Interval(difference - half, difference + half, self.level, "paired normal, delta method")
        return Figure("r2", after, before, difference, interval)

"""Pairs collected where they are still needed: rows take turns until each is decided or the time is spent."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from compress.bench.sequential import judge_row
from compress.errors import WorkerError

# A row that is far from decided stops here, so that a long budget does not fill a disk.
MAX_PAIRS = 400


@dataclass(frozen=True)
class Sample:
    """What one process said: the logarithm of candidate / baseline time, its medians, and which clock judged it.

    `load_log_ratio` is the logarithm of the ratio of the times to open the two files. `judged_ms` are the medians of
    baseline and candidate on the clock that judged.
    """

    log_ratio: float
    baseline_ms: float
    candidate_ms: float
    clock: str
    load_log_ratio: float | None = None
    judged_ms: tuple[float, float] | None = None


@dataclass
class Row:
    """One comparison: how a sample is taken, and the samples so far.

    Attributes:
        name: For progress.
        tolerance: The slowdown that does not matter, as a share.
        take: Takes a sample; with True the candidate goes first.
        samples: In the order in which they were taken.
        error: Why there are no more.
    """

    name: str
    tolerance: float
    take: Callable[[bool], Sample]
    samples: list[Sample] = field(default_factory=list)
    error: str = ""

    @property
    def logs(self) -> list[float]:
        """The logarithms of candidate / baseline time."""
        return [sample.log_ratio for sample in self.samples]


def race(
    rows: Sequence[Row],
    *,
    alpha: float,
    budget_s: float,
    seed: int,
    clock: Callable[[], float] = time.monotonic,
    told: Callable[[int, int], None] | None = None,
) -> None:
    """Samples every row until it is decided, it failed, or the time is spent. `row.samples` holds what was found.

    1. Rows take turns, so that a neighbour that comes and goes meets all of them. Who goes first is a fair coin.
    2. A row is decided when it is not UNKNOWN at its share of `alpha`, which looking after each sample does not use up.
    3. Time that one row does not need is left to the others. The clock is monotonic: setting the time changes nothing.
    4. The budget is checked before a sample, and every row gets its first turn: it may be exceeded by a sample.

    Args:
        rows: What to compare.
        alpha: Of all rows together; see `compress.bench.sequential`.
        budget_s: Seconds for all rows together.
        seed: Of the coin.
        clock: Seconds, never going back.
        told: Called after each sample with the rows that are done, and all.
    """
    if not rows:
        return
    coin, end, share = np.random.default_rng(seed), clock() + budget_s, alpha / len(rows)
    open_rows = list(rows)
    while open_rows:
        for row in open_rows:
            if row.samples and clock() >= end:
                return
            try:
                row.samples.append(row.take(bool(coin.integers(2))))
            except WorkerError as error:
                row.error = str(error)
        open_rows = [row for row in open_rows if not _done(row, share)]
        if told is not None:
            told(len(rows) - len(open_rows), len(rows))


def _done(row: Row, share: float) -> bool:
    if row.error or len(row.samples) >= MAX_PAIRS:
        return True
    return judge_row(row.logs, row.tolerance, share).verdict != "UNKNOWN"

"""What changes for the person scored: what each row's outputs decide, their agreement, and flips in each direction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from compress.errors import InternalError
from compress.evaluate.scores import Link, TaskKind, class_outputs, probabilities


@dataclass(frozen=True)
class Decision:
    """How an output decides: at the cut-off (`binary`), for its largest number (`multiclass`), or not (`regression`).

    `link` and `cutoff` are read for `binary` only: what the output holds, and the probability from which a row counts
    as positive.
    """

    kind: TaskKind
    link: Link | None = None
    cutoff: float = 0.5


@dataclass(frozen=True)
class Flips:
    """Rows whose decision differs from the baseline's: positive only now, and negative only now."""

    rows: int
    to_positive: int
    to_negative: int

    @property
    def agreeing(self) -> int:
        """Number of rows with the same decision."""
        return self.rows - self.to_positive - self.to_negative

    @property
    def agreement(self) -> float:
        """Share of rows with the same decision."""
        return self.agreeing / self.rows


def decide(probability: NDArray[np.float64], cutoff: float) -> NDArray[np.bool_]:
    """Returns True where a row counts as positive: its probability is the cut-off or more."""
    positive: NDArray[np.bool_] = probability >= cutoff
    return positive


def hits(labels: NDArray[np.bool_], probability: NDArray[np.float64], cutoff: float) -> NDArray[np.float64]:
    """Returns 1 for every row decided as its label says and 0 for the others; the mean is the accuracy."""
    right: NDArray[np.bool_] = decide(probability, cutoff) == labels
    return right.astype(np.float64)


def accuracy(labels: NDArray[np.bool_], probability: NDArray[np.float64], cutoff: float) -> float:
    """Returns the share of rows that are decided as their label says."""
    return float(hits(labels, probability, cutoff).mean())


def flips(baseline: NDArray[np.bool_], candidate: NDArray[np.bool_]) -> Flips:
    """Counts the decisions that differ, shape `[rows]` each."""
    return Flips(
        rows=baseline.size,
        to_positive=int(np.count_nonzero(candidate & ~baseline)),
        to_negative=int(np.count_nonzero(baseline & ~candidate)),
    )


def decide_rows(outputs: ArrayLike, decision: Decision, where: str) -> NDArray[np.int64] | None:
    """Returns the class that every row is given, `[rows]`; None where the task decides nothing.

    Args:
        outputs: `[rows]` or `[rows, 1]` for a binary task, `[rows, classes]` for a multi-class one. Of equal numbers
            the first class is taken.
        decision: How they decide.
        where: Names the output in an error message.

    Raises:
        DataError: If the shape is another, a number is not finite, or a probability lies outside [0, 1].
        InternalError: If a binary decision has no link.
    """
    if decision.kind == "regression":
        return None
    if decision.kind == "multiclass":
        largest: NDArray[np.int64] = class_outputs(outputs, where).argmax(axis=1)
        return largest
    if decision.link is None:
        raise InternalError(f"{where}: a binary decision needs a link")
    return decide(probabilities(outputs, decision.link, where), decision.cutoff).astype(np.int64)

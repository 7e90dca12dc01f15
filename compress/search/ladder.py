"""The repair ladder: from what costs nothing at run time to what costs speed, until the policy holds.

Pure: what is tried is built and judged by the caller.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from compress.errors import CompressError, StoreError
from compress.evidence import GateStatus, RepairStep
from compress.recipe import CalibrationMethod

_ORDER: tuple[GateStatus, ...] = ("PASS", "INCONCLUSIVE", "INCOMPARABLE", "FAIL")


@dataclass(frozen=True)
class Trial:
    """One way to make a scheme's file: the calibration method, passes before lowering, layers left in float."""

    method: CalibrationMethod | None = None
    passes: tuple[tuple[str, tuple[tuple[str, Any], ...]], ...] = ()
    floats: tuple[str, ...] = ()

    def with_pass(self, kind: str, **options: Any) -> Trial:
        """Returns the trial with one more pass behind the others."""
        return replace(self, passes=(*self.passes, (kind, tuple(sorted(options.items())))))


@dataclass(frozen=True)
class Score:
    """How a trial did on rows that are not test rows.

    `seconds` is what it took when it was made, which may have been in an earlier run.
    `loss` is the largest loss of a task's primary metric; `noise` the power of the worst output's error over its own.
    """

    status: GateStatus
    loss: float
    noise: float
    reason: str = ""
    seconds: float = 0.0

    def better_than(self, other: Score) -> bool:
        """Whether it is nearer to the policy: a better status, else a smaller error.

        The error decides between equals, not the loss: on some hundred rows a loss is mostly luck, the error is not.
        """
        mine, others = (_ORDER.index(item.status) for item in (self, other))
        return mine < others or (mine == others and self.noise < other.noise)


Attempt = Callable[[Trial], Score]


@dataclass
class Ladder:
    """Goes up rung by rung.

    1. It stops at the first trial that passes, and where the budget is spent: between two trials, never within one.
    2. A rung builds on the best trial so far; what does not make it better is not kept.
    3. What cannot be built is a step with its reason, not an error.
    """

    attempt: Attempt
    best: Trial
    score: Score
    budget_s: float
    clock: Callable[[], float] = time.monotonic
    steps: list[RepairStep] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._started = self.clock()

    @property
    def done(self) -> bool:
        """Whether the policy holds."""
        return self.score.status == "PASS"

    @property
    def spent(self) -> bool:
        """Whether the budget is spent."""
        return self.clock() - self._started >= self.budget_s

    def try_each(self, rung: str, trials: Iterable[tuple[str, Callable[[Trial], Trial]]]) -> None:
        """Tries changes to the best trial one after the other; each that makes it better is kept."""
        for said, change in trials:
            if self.done:
                return
            if self.spent:
                self.skip(rung, said, "the budget of time is spent")
                continue
            self._step(rung, said, change(self.best))

    def fewest(self, rung: str, order: Sequence[str], most: int) -> None:
        """Leaves as few layers in float as the best verdict within reach needs: 1, 2, 4 ... of the order, then halved.

        A longer prefix is taken to do no worse than a shorter one. What does not better the verdict is not kept,
        however much smaller its error is: layers in float cost time.

        Args:
            rung: Its name.
            order: Layers, the first to go back to float first.
            most: No more layers than this.
        """
        base, start = self.best, self.score.status
        reached: dict[int, GateStatus] = {0: start}

        def reach(count: int) -> GateStatus:
            trial = replace(base, floats=(*base.floats, *order[:count]))
            score = self._step(rung, _said(order, count), trial, lambda score: self._fewer(score, trial, start))
            reached[count] = "FAIL" if score is None else score.status
            return reached[count]

        for count in _doubling(min(most, len(order))):
            if self.spent:
                self.skip(rung, _said(order, count), "the budget of time is spent")
                break
            if reach(count) == "PASS":
                break
        wanted = min(reached.values(), key=_ORDER.index)
        least = min(count for count, status in reached.items() if status == wanted)
        while not self.spent:
            failed = max((count for count in reached if count < least), default=least)
            if least - failed <= 1:
                break
            middle = (failed + least) // 2
            if _ORDER.index(reach(middle)) <= _ORDER.index(wanted):
                least = middle

    def skip(self, rung: str, said: str, reason: str) -> None:
        """Notes a step that was not taken."""
        self.steps.append(RepairStep(rung, said, None, None, None, False, reason, 0.0))

    def _fewer(self, score: Score, trial: Trial, start: GateStatus) -> bool:
        """Whether a better verdict was reached, or the same better one with fewer layers in float."""
        mine, best = _ORDER.index(score.status), _ORDER.index(self.score.status)
        fewer = len(trial.floats) < len(self.best.floats)
        return mine < best or (mine == best < _ORDER.index(start) and fewer)

    def _step(self, rung: str, said: str, trial: Trial, keep: Callable[[Score], bool] | None = None) -> Score | None:
        started = self.clock()
        try:
            score = self.attempt(trial)
        except StoreError:
            raise
        except CompressError as error:
            seconds = self.clock() - started
            self.steps.append(RepairStep(rung, said, None, None, None, False, error.message, seconds))
            return None
        kept = keep(score) if keep else score.better_than(self.score)
        if kept:
            self.best, self.score = trial, score
        sqnr = decibels(score.noise)
        self.steps.append(RepairStep(rung, said, score.status, score.loss, sqnr, kept, score.reason, score.seconds))
        return score


def decibels(noise: float) -> float | None:
    """Returns a power ratio as SQNR in dB; None where there is no error."""
    return -10 * math.log10(noise) if noise > 0 else None


def _doubling(limit: int) -> Iterator[int]:
    count = 1
    while count < limit:
        yield count
        count *= 2
    if limit:
        yield limit


def _said(order: Sequence[str], count: int) -> str:
    named = ", ".join(order[: min(count, 3)])
    return f"{count} layer{'s' if count > 1 else ''} back to float: {named}{', ...' if count > 3 else ''}"

"""The repair ladder: from what costs nothing at run time to what costs speed, until the policy holds.

Pure: what is tried is built and judged by the caller.
"""

from __future__ import annotations

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
        """Leaves as few layers in float as the policy needs: 1, 2, 4 ... of the order, then between the last two.

        A longer prefix is taken to do no worse than a shorter one.

        Args:
            rung: Its name.
            order: Layers, the first to go back to float first.
            most: No more layers than this.
        """
        base, failed, limit = self.best, 0, min(most, len(order))
        for count in _doubling(limit):
            if self.spent:
                self.skip(rung, _said(order, count), "the budget of time is spent")
                return
            if self._passes(rung, order, count, base):
                break
            failed = count
        else:
            return
        least = len(self.best.floats) - len(base.floats)
        while least - failed > 1 and not self.spent:
            middle = (failed + least) // 2
            if self._passes(rung, order, middle, base):
                least = middle
            else:
                failed = middle

    def skip(self, rung: str, said: str, reason: str) -> None:
        """Notes a step that was not taken."""
        self.steps.append(RepairStep(rung, said, None, None, None, False, reason, 0.0))

    def _passes(self, rung: str, order: Sequence[str], count: int, base: Trial) -> bool:
        trial = replace(base, floats=(*base.floats, *order[:count]))
        score = self._step(rung, _said(order, count), trial, keep_if_passing=True)
        return score is not None and score.status == "PASS"

    def _step(self, rung: str, said: str, trial: Trial, *, keep_if_passing: bool = False) -> Score | None:
        started = self.clock()
        try:
            score = self.attempt(trial)
        except StoreError:
            raise
        except CompressError as error:
            seconds = self.clock() - started
            self.steps.append(RepairStep(rung, said, None, None, None, False, error.message, seconds))
            return None
        kept = score.better_than(self.score) or (keep_if_passing and score.status == "PASS")
        if kept:
            self.best, self.score = trial, score
        sqnr = decibels(score.noise)
        self.steps.append(RepairStep(rung, said, score.status, score.loss, sqnr, kept, score.reason, score.seconds))
        return score


def decibels(noise: float) -> float | None:
    """Returns a power ratio as SQNR in dB; None where there is no error."""
    import math

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

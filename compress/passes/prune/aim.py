"""A goal of time, met on the target: cut, measure the whole model, correct the budget, again until it is near."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from compress.passes.base import Timing
from compress.passes.prune.allocate import Dealt

# Within this a goal counts as met; the search ends where it is this near.
TOLERANCE = 0.05
NEAR = 0.02
TRIES = 6


@dataclass(frozen=True)
class Shot:
    """One cut that was measured.

    Attributes:
        budget: The share of the original's predicted time that was allowed.
        widths: The widths that keep to it.
        timing: The whole model, cut so, beside the original.
        met: False where every group is at its least.
    """

    budget: float
    widths: Mapping[str, int]
    timing: Timing
    met: bool


def aim(
    goal: float, plan: Callable[[float], Dealt], measure: Callable[[Mapping[str, int]], Timing], tries: int = TRIES
) -> list[Shot]:
    """Returns the cuts that were measured on the way to a goal; `nearest` picks one.

    The prediction is right about which widths are dear, and wrong by some factor about the whole. So the budget is
    corrected by what was measured: between the nearest cut that is too slow and the nearest that is too fast along the
    straight line between them (regula falsi); as long as one side is missing, by the factor that is missing.

    Args:
        goal: The share of the original's time that is wanted.
        plan: Gives the widths for a share of the original's predicted time.
        measure: Times the model with these widths beside the original.
        tries: How many cuts are measured at most.
    """
    shots: list[Shot] = []
    budget = goal
    while len(shots) < tries:
        dealt = plan(budget)
        known = next((shot for shot in shots if shot.widths == dealt.widths), None)
        if known is not None:
            # The widths that may be had leave nothing between what was tried.
            break
        shots.append(Shot(budget, dealt.widths, measure(dealt.widths), dealt.met))
        ratio = shots[-1].timing.ratio
        if abs(ratio / goal - 1) <= NEAR or (not dealt.met and ratio > goal):
            break
        budget = _corrected(shots, goal)
    return shots


def _corrected(shots: list[Shot], goal: float) -> float:
    # The original itself is known: all of its time, at a budget of all of it.
    slow = [(shot.budget, shot.timing.ratio) for shot in shots if shot.timing.ratio > goal]
    fast = [(shot.budget, shot.timing.ratio) for shot in shots if shot.timing.ratio <= goal]
    above = min([*slow, (1.0, 1.0)], key=lambda pair: pair[1])
    if not fast:
        budget, ratio = above
        return budget * goal / ratio
    below = max(fast, key=lambda pair: pair[1])
    if above[1] == below[1]:
        return (above[0] + below[0]) / 2
    return below[0] + (goal - below[1]) * (above[0] - below[0]) / (above[1] - below[1])


def nearest(shots: list[Shot], goal: float) -> Shot:
    """Returns the cut that is nearest to a goal; one that is within `TOLERANCE` of it or faster goes first."""
    return min(shots, key=lambda shot: (shot.timing.ratio > goal * (1 + TOLERANCE), abs(shot.timing.ratio / goal - 1)))

"""The search for a goal of time, on targets whose behaviour is known."""

from __future__ import annotations

import pytest

from compress.passes.base import Timing
from compress.passes.prune.aim import NEAR, TOLERANCE, aim, nearest
from compress.passes.prune.allocate import Dealt


def timing(ratio):
    return Timing(10.0, 10 * ratio, ratio, ratio, ratio, 7)


def searched(goal, truth, least=0.0, grain=1000, tries=6):
    """Widths are a number up to `grain`; the target takes `truth` of the share that they are."""

    def plan(budget):
        width = max(round(least * grain), int(budget * grain))
        return Dealt({"g": width}, met=width <= budget * grain)

    return aim(goal, plan, lambda widths: timing(truth(widths["g"] / grain)), tries)


@pytest.mark.parametrize(
    "truth",
    [
        lambda share: share,
        lambda share: 0.3 + 0.7 * share,
        lambda share: share**2,
        lambda share: share**0.5,
        lambda share: 0.1 + 0.9 * share**1.5,
    ],
)
@pytest.mark.parametrize("goal", [0.5, 0.7])
def test_a_prediction_that_is_wrong_about_the_whole_is_corrected(truth, goal):
    shots = searched(goal, truth)
    shot = nearest(shots, goal)
    assert abs(shot.timing.ratio / goal - 1) <= NEAR
    assert len(shots) <= 6


def test_a_prediction_that_is_right_is_measured_once():
    assert len(searched(0.5, lambda share: share)) == 1


def test_a_goal_beyond_the_least_widths_ends_there():
    shots = searched(0.2, lambda share: share, least=0.4)
    assert len(shots) == 1
    assert not shots[0].met
    assert shots[0].timing.ratio == pytest.approx(0.4)


def test_widths_that_leave_nothing_nearer_end_the_search_with_the_faster_one():
    # Four widths: nothing lies between a quarter and a half of the time, where 0.4 is wanted.
    shots = searched(0.4, lambda share: share, grain=4)
    assert nearest(shots, 0.4).timing.ratio == pytest.approx(0.25)
    assert abs(nearest(shots, 0.4).timing.ratio / 0.4 - 1) > TOLERANCE
    assert len(shots) <= 3


def test_a_little_too_slow_is_nearer_than_far_too_fast():
    shots = searched(0.49, lambda share: share, grain=4)
    slow, fast = timing(0.50), timing(0.25)
    assert nearest([*shots, type(shots[0])(0.5, {"g": 2}, slow, True)], 0.49).timing == slow
    assert fast.ratio < 0.49

"""The ladder on a made-up world in which it is known what helps."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.errors import CompressError, StoreError
from compress.evidence import LayerEffect
from compress.search.ladder import Ladder, Score, Trial, decibels
from compress.search.sensitivity import back_to_float, most_harmful_first


class World:
    """Passes (`verdict`) when `needed` layers of the order are in float; every call costs a second."""

    def __init__(self, needed=99, order=(), verdict="PASS"):
        self.needed, self.order, self.now, self.tried, self.verdict = needed, order, 0.0, [], verdict

    def __call__(self, trial):
        self.now += 1
        self.tried.append(trial)
        if ("broken", ()) in trial.passes:
            raise CompressError("the pass broke")
        helped = len(set(trial.floats) & set(self.order[: self.needed]))
        gained = {None: 0.0, "mse": 0.3, "worse": -0.5}[trial.method] + 0.1 * len(trial.passes)
        return Score(
            self.verdict if helped >= self.needed else "FAIL", 0.01, 1.0 - gained - 0.01 * len(trial.floats), "why", 1.0
        )

    def ladder(self, budget_s=1000.0):
        return Ladder(self, Trial(), self(Trial()), budget_s, clock=lambda: self.now)


def method(name):
    return name, lambda best: replace(best, method=name)


def test_a_step_that_makes_it_better_is_kept_and_the_next_builds_on_it():
    world = World()
    ladder = world.ladder()
    ladder.try_each("calibration", [method("worse"), method("mse")])
    ladder.try_each("conditioning", [("smooth", lambda best: best.with_pass("smooth", strength=0.5))])
    assert ladder.best == Trial("mse", (("smooth", (("strength", 0.5),)),))
    assert [(step.tried, step.kept) for step in ladder.steps] == [("worse", False), ("mse", True), ("smooth", True)]
    assert not ladder.done


def test_what_cannot_be_built_is_a_step_and_what_is_broken_in_the_store_is_not():
    ladder = World().ladder()
    ladder.try_each("conditioning", [("broken", lambda best: best.with_pass("broken"))])
    assert [(step.status, step.reason, step.kept) for step in ladder.steps] == [(None, "the pass broke", False)]

    def broken(trial):
        raise StoreError("the disc is full")

    ladder.attempt = broken
    with pytest.raises(StoreError):
        ladder.try_each("calibration", [method("mse")])


@given(st.integers(1, 20), st.integers(1, 20))
def test_the_fewest_layers_that_pass_are_found_in_few_attempts(needed, most):
    order = tuple(f"layer{number}" for number in range(20))
    world = World(needed, order)
    ladder = world.ladder()
    ladder.fewest("float", order, most)
    assert ladder.done == (needed <= most)
    if ladder.done:
        assert ladder.best.floats == order[:needed]
    assert len(world.tried) <= 1 + 5 + 5


@given(st.integers(1, 20), st.integers(1, 20))
def test_a_better_verdict_that_is_no_pass_takes_no_more_layers_than_it_needs(needed, most):
    order = tuple(f"layer{number}" for number in range(20))
    world = World(needed, order, "INCONCLUSIVE")
    ladder = world.ladder()
    ladder.fewest("float", order, most)
    assert not ladder.done
    assert ladder.score.status == ("INCONCLUSIVE" if needed <= most else "FAIL")
    assert ladder.best.floats == (order[:needed] if needed <= most else ())


def test_a_pass_ends_the_climb():
    order = ("a",)
    world = World(1, order)
    ladder = world.ladder()
    ladder.fewest("float", order, 1)
    count = len(ladder.steps)
    ladder.try_each("calibration", [method("mse")])
    assert len(ladder.steps) == count


def test_the_budget_ends_it_between_two_attempts_and_that_is_said():
    world = World()
    ladder = world.ladder(budget_s=1.0)
    ladder.try_each("calibration", [method("worse"), method("mse"), method("worse")])
    assert [step.status for step in ladder.steps] == ["FAIL", None, None]
    assert {step.reason for step in ladder.steps[1:]} == {"the budget of time is spent"}
    ladder.fewest("float", ("a", "b"), 2)
    assert ladder.steps[-1].reason == "the budget of time is spent"
    assert len(world.tried) == 2


@pytest.mark.parametrize(
    ("one", "other", "better"),
    [
        (("PASS", 9.0, 9.0), ("FAIL", 0.0, 0.0), True),
        (("INCONCLUSIVE", 0.1, 0.5), ("FAIL", 0.0, 0.1), True),
        (("FAIL", 0.5, 0.1), ("FAIL", 0.0, 0.2), True),
        (("FAIL", 0.0, 0.2), ("FAIL", 0.0, 0.2), False),
    ],
)
def test_a_better_verdict_counts_before_a_smaller_error(one, other, better):
    assert Score(*one).better_than(Score(*other)) is better


def effect(layer, sqnr_db, float_ratio=None, error=""):
    return LayerEffect(layer, "conv2d", sqnr_db, None, float_ratio, error=error)


def test_layers_go_back_by_error_per_time_and_the_untimed_behind():
    effects = [
        effect("cheap", 20.0, 1.03),
        effect("dear", 10.0, 5.0),
        effect("faster in float", 30.0, 0.8),
        effect("untimed", 5.0),
        effect("exact", None, 1.1),
        effect("broken", None, error="it broke"),
    ]
    assert back_to_float(effects) == ("cheap", "faster in float", "dear", "untimed")
    assert [item.layer for item in most_harmful_first(effects)] == [
        "untimed", "dear", "cheap", "faster in float", "exact", "broken",
    ]  # fmt: skip


def test_a_time_below_the_noise_makes_no_layer_first_that_hardly_errs():
    assert back_to_float([effect("hardly", 40.0, 0.9), effect("badly", 20.0, 1.05)]) == ("badly", "hardly")


def test_decibels():
    assert decibels(0.01) == pytest.approx(20)
    assert decibels(0.0) is None

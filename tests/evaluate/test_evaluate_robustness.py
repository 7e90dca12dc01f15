from __future__ import annotations

import numpy as np
import pytest

from compress.evaluate.decisions import Decision
from compress.evaluate.robustness import compare_disturbed, disturb


def inputs(rows=200):
    random = np.random.default_rng(0)
    table = random.normal(size=(rows, 3)).astype(np.float32)
    table[:, 2] = random.integers(0, 4, rows)
    return {"x": table, "ids": random.integers(0, 9, (rows, 2))}


def test_each_disturbance_does_what_it_says():
    given = inputs()
    noise, missing, infinite, far = disturb(given, noise=0.05, seed=0)
    assert noise.name == "noise of 5 % of each input's spread"
    moved = noise.inputs["x"] - given["x"]
    assert moved[:, 0].std() == pytest.approx(0.05 * given["x"][:, 0].std(), rel=0.2)
    # Four values are categories: no noise.
    assert not moved[:, 2].any()
    assert (np.isnan(missing.inputs["x"]).sum(axis=1) == 1).all()
    assert (np.isposinf(infinite.inputs["x"]).sum(axis=1) == 1).all()
    beyond = far.inputs["x"] > given["x"].max(axis=0)
    assert (beyond.sum(axis=1) == 1).all()
    assert far.inputs["x"].dtype == np.float32
    for item in (noise, missing, infinite, far):
        assert np.array_equal(item.inputs["ids"], given["ids"])
    assert np.isfinite(given["x"]).all()


def test_rows_of_ids_alone_are_not_disturbed():
    assert disturb({"ids": inputs()["ids"]}, noise=0.1, seed=0) == ()


BINARY = Decision("binary", "logit", 0.5)


def compared(before, after, base=None, decision=BINARY):
    base = np.linspace(-2, 2, 5) if base is None else base
    return compare_disturbed("noise", (base, base), (before, after), decision)


def test_shift_and_decisions_worked_by_hand():
    base = np.array([-1.0, 1.0])
    found = compared(np.array([-1.0, 1.0]), np.array([1.0, 1.0]), base)
    assert found.baseline_shift == 0
    assert found.candidate_shift == pytest.approx((1 / (1 + np.exp(-1)) - 1 / (1 + np.exp(1))) / 2)
    assert (found.baseline_kept, found.candidate_kept, found.agreement) == (1, 0.5, 0.5)
    assert found.same_answer


def test_an_answer_where_the_baseline_gives_none_is_not_the_same():
    nan = np.array([np.nan, 0, 0, 0, 0])
    found = compared(nan, np.zeros(5))
    assert (found.baseline_answers, found.candidate_answers, found.same_answer) == (4, 5, False)
    assert compared(nan, nan).same_answer


def test_a_refusal_of_both_is_the_same_answer():
    found = compared(None, None)
    assert (found.baseline_answers, found.candidate_answers, found.same_answer) == (0, 0, True)
    assert (found.baseline_shift, found.agreement) == (None, None)
    assert not compared(None, np.zeros(5)).same_answer


def test_classes_keep_the_largest_and_numbers_decide_nothing():
    base = np.log([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3]])
    moved = np.log([[0.3, 0.6, 0.1], [0.1, 0.5, 0.4]])
    found = compared(base, moved, base, Decision("multiclass", "logit"))
    # 0.4 and 0.1 of the probability went to another class.
    assert (found.baseline_shift, found.candidate_shift) == (0, pytest.approx(0.25))
    assert (found.candidate_kept, found.agreement) == (0.5, 0.5)
    refused = compared(np.full_like(base, np.nan), moved, base, Decision("multiclass", "logit"))
    assert (refused.baseline_answers, refused.candidate_answers, refused.same_answer) == (0, 2, False)
    amount = compared(np.array([1.0, 3.0]), np.array([2.0, 2.0]), np.array([1.0, 2.0]), Decision("regression"))
    assert (amount.baseline_shift, amount.candidate_shift) == (0.5, 0.5)
    assert amount.baseline_kept is amount.agreement is None

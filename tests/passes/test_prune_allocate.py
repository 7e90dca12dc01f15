"""How a goal is dealt: shares, rounding, floors, and a greedy choice beside the best there is."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.passes.prune.allocate import Deal, best, by_cost, by_ratio, within
from compress.passes.prune.costs import Costs, Priced


def deal(scores, sizes=None, ratios=None, round_to=1, floor=0.1):
    found = {name: np.asarray(values, dtype=float) for name, values in scores.items()}
    return Deal(found, sizes or {name: len(values) for name, values in found.items()}, ratios or {}, round_to, floor)


def linear(prices):
    """Each position of a group costs the same."""
    return Costs([Priced((name,), lambda widths, price=price: widths[0] * price) for name, price in prices.items()])


def coupled(names, each=1.0):
    """Neighbours multiply: what goes in times what comes out."""
    pairs = itertools.pairwise(names)
    return Costs([Priced(pair, lambda widths: widths[0] * widths[1] * each) for pair in pairs])


def test_uniform_takes_the_same_share_and_global_what_counts_least_anywhere():
    two = deal({"quiet": [1, 2, 3, 4], "loud": [5, 6, 7, 8]}, floor=0.25)
    assert by_ratio(two, 0.5, "uniform") == {"quiet": 2, "loud": 2}
    assert by_ratio(two, 0.5, "global") == {"quiet": 1, "loud": 4}
    assert by_ratio(two, 0.25, "global") == {"quiet": 2, "loud": 4}


def test_of_equal_figures_the_earlier_position_stays():
    assert best(np.array([1.0, 2.0, 2.0, 2.0]), 2).tolist() == [1, 2]
    equal = deal({"one": [1] * 8, "two": [1] * 8})
    assert by_ratio(equal, 0.5, "global") == {"one": 8, "two": 1}


def test_widths_keep_to_a_multiple_and_to_the_floor():
    wide = deal({"a": np.ones(96), "b": np.ones(20), "c": np.ones(12)}, round_to=8)
    assert by_ratio(wide, 0.999, "uniform") == {"a": 16, "b": 8, "c": 2}
    assert by_ratio(wide, 0.3, "uniform") == {"a": 64, "b": 16, "c": 8}
    assert wide.narrower("a", 20) == 16
    assert wide.narrower("a", 16) is None
    assert wide.narrower("c", 3) == 2


def test_a_fixed_ratio_is_not_dealt_any_further():
    fixed = deal({"a": np.ones(8), "b": np.arange(1, 9) * 1e-6}, ratios={"b": 0.25})
    assert by_ratio(fixed, 0.5, "uniform") == {"a": 4, "b": 6}
    assert by_ratio(fixed, 0.5, "global") == {"a": 4, "b": 6}
    assert by_cost(fixed, linear({"a": 1.0, "b": 1.0}), 10.0).widths == {"a": 4, "b": 6}


def test_shares_are_those_of_the_model_as_it_came():
    # Behind the first of two steps.
    half = deal({"a": np.ones(6)}, sizes={"a": 8})
    assert by_ratio(half, 0.5, "uniform") == {"a": 4}
    assert by_ratio(half, 0.5, "global") == {"a": 4}


def test_cost_takes_what_saves_most_for_what_it_loses():
    # Both groups count the same; a position of the second costs ten times as much.
    two = deal({"cheap": np.ones(10), "dear": np.ones(10)})
    costs = linear({"cheap": 1.0, "dear": 10.0})
    assert by_cost(two, costs, 70.0).widths == {"cheap": 10, "dear": 6}
    # And now it counts a hundred times as much.
    two = deal({"cheap": np.ones(10), "dear": np.full(10, 100.0)})
    assert by_cost(two, costs, 107.0).widths == {"cheap": 7, "dear": 10}


def test_savings_are_asked_anew_at_the_widths_of_the_moment():
    # Once the middle is narrow, narrowing its neighbours saves little.
    three = deal({"a": np.ones(8), "b": np.ones(8), "c": np.ones(8)})
    widths = by_cost(three, coupled("abc"), 32.0).widths
    assert widths["b"] < widths["a"]
    assert widths["a"] * widths["b"] + widths["b"] * widths["c"] <= 32


def test_what_the_last_step_saved_too_much_is_given_back():
    # A step of `wide` saves 8, where 1 is wanted; a step of `narrow` would have been enough but is dearer.
    both = deal({"wide": [0.1] * 16, "narrow": [1.0] * 4}, round_to=8)
    costs = linear({"wide": 1.0, "narrow": 1.0})
    found = by_cost(both, costs, 19.0).widths
    assert costs.total(found) <= 19
    assert found == {"wide": 8, "narrow": 4}


def test_a_budget_that_cannot_be_kept_is_told_with_the_least():
    two = deal({"a": np.ones(10), "b": np.ones(10)}, floor=0.2)
    costs = linear({"a": 1.0, "b": 1.0})
    for how in ("uniform", "global", "cost"):
        found = within(two, costs, 3.9, how)
        assert not found.met
        assert found.widths == {"a": 2, "b": 2}
        assert within(two, costs, 4.0, how).met


@pytest.mark.parametrize("how", ["uniform", "global"])
def test_a_budget_is_kept_by_the_smallest_ratio(how):
    two = deal({"a": np.arange(1, 101), "b": np.arange(1, 101)}, floor=0.01)
    assert within(two, linear({"a": 1.0, "b": 1.0}), 120.0, how).widths == {"a": 60, "b": 60}


SCORES = st.lists(st.integers(1, 9).map(float), min_size=2, max_size=4)


@settings(max_examples=60, deadline=None)
@given(st.lists(SCORES, min_size=2, max_size=4), st.floats(0.2, 0.9), st.booleans())
def test_the_greedy_choice_keeps_nearly_what_the_best_one_keeps(scores, share, together):
    names = [f"g{number}" for number in range(len(scores))]
    game = deal(dict(zip(names, scores, strict=True)), floor=0.01)
    costs = coupled(names) if together else linear(dict.fromkeys(names, 1.0))
    budget = share * costs.total(game.sizes)
    found = by_cost(game, costs, budget)
    kept = {
        widths: sum(np.sort(values)[::-1][:width].sum() for values, width in zip(scores, widths, strict=True))
        for widths in itertools.product(*(range(1, len(values) + 1) for values in scores))
        if costs.total(dict(zip(names, widths, strict=True))) <= budget
    }
    assert found.met == bool(kept)
    if kept:
        assert costs.total(found.widths) <= budget
        ours = kept[tuple(found.widths[name] for name in names)]
        # A position each is what greediness may cost on tiny groups; never more than the largest figure and a third.
        assert ours >= max(kept.values()) - 9 and ours >= 0.66 * max(kept.values())

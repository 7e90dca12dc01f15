"""The algebra of dimensions against arrays of numbers that are really cut, viewed, joined and divided."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.passes.prune.axes import (
    UNIT,
    Cut,
    add,
    divide,
    freeze,
    fresh,
    leaves,
    mix,
    places,
    product,
    size,
    terms,
    unify,
)

SIZES = st.integers(2, 6)


def keep_some(axis, seed=0):
    random = np.random.default_rng(seed)
    count = int(random.integers(1, axis.size + 1))
    return np.sort(random.choice(axis.size, count, replace=False)).astype(np.int64)


@given(SIZES, SIZES, st.integers(0, 99))
def test_a_product_is_cut_as_a_flattened_array_is(first, second, seed):
    one, other = fresh(first), fresh(second)
    a, b = next(leaves(one)), next(leaves(other))
    cut = Cut({a: keep_some(a, seed), b: keep_some(b, seed + 1)})
    numbers = np.arange(first * second).reshape(first, second)
    wanted = numbers[cut.keep[a]][:, cut.keep[b]].ravel()
    np.testing.assert_array_equal(cut.positions(product([one, other])), wanted)
    assert cut.size(product([one, other])) == wanted.size


@given(SIZES, SIZES, SIZES, st.integers(0, 99))
def test_a_flattened_concatenation_is_cut_as_the_array_is(first, second, inner, seed):
    one, other, last = fresh(first), fresh(second), fresh(inner)
    a, b, c = (next(leaves(dim)) for dim in (one, other, last))
    cut = Cut({axis: keep_some(axis, seed + number) for number, axis in enumerate((a, b, c))})
    rows = np.concatenate([cut.keep[a], first + cut.keep[b]])
    numbers = np.arange((first + second) * inner).reshape(first + second, inner)
    np.testing.assert_array_equal(
        cut.positions(product([add([one, other]), last])), numbers[rows][:, cut.keep[c]].ravel()
    )
    # The other way round the sum is no outermost factor.
    turned = numbers.reshape(inner, first + second)
    wanted = turned[cut.keep[c]][:, rows].ravel()
    np.testing.assert_array_equal(cut.positions(product([last, add([one, other])])), wanted)


@given(SIZES, SIZES, SIZES)
def test_a_view_divides_an_axis_and_what_was_the_same_stays_the_same(first, second, third):
    whole, twin = fresh(first * second * third), fresh(first * second * third)
    unify(whole, twin, "added")
    pieces = [fresh(first), fresh(second), fresh(third)]
    unify(whole, product(pieces), "viewed")
    axes = [next(leaves(piece)) for piece in pieces]
    assert list(leaves(twin)) == [axis.root for axis in axes]
    cut = Cut({axes[1].root: np.array([0])})
    numbers = np.arange(first * second * third).reshape(first, second, third)
    np.testing.assert_array_equal(cut.positions(twin), numbers[:, :1].ravel())


def test_views_that_divide_at_multiples_of_each_other_meet():
    one, other = fresh(24), fresh(24)
    unify(one, product([fresh(4), fresh(6)]), "view")
    unify(other, product([fresh(2), fresh(12)]), "view")
    unify(one, other, "added")
    assert [axis.size for axis in leaves(one)] == [axis.size for axis in leaves(other)] == [2, 2, 6]
    assert list(leaves(one)) == list(leaves(other))


def test_views_that_cross_are_frozen_with_the_reason():
    one = fresh(12)
    unify(one, product([fresh(4), fresh(3)]), "view")
    unify(one, product([fresh(3), fresh(4)]), "another view")
    assert all(axis.frozen == "another view" for axis in leaves(one))


def test_pieces_of_a_dimension_are_of_it():
    whole = fresh(10)
    first, second = divide(whole, [4, 6])
    assert [size(piece) for piece in (first, second)] == [4, 6]
    cut = Cut({next(leaves(second)): np.array([1, 5])})
    np.testing.assert_array_equal(cut.positions(whole), [0, 1, 2, 3, 5, 9])
    with_head = product([fresh(3), fresh(4)])
    assert divide(with_head, [5, 7]) is None
    assert [size(piece) for piece in divide(with_head, [4, 8])] == [4, 8]


def test_concatenations_of_other_lengths_divide_each_other():
    one, other = add([fresh(4), fresh(6)]), add([fresh(7), fresh(3)])
    unify(one, other, "added")
    assert [size((term,)) for term in terms(one)] == [4, 3, 3]
    assert list(leaves(one)) == list(leaves(other))


def test_what_is_frozen_or_mixed_stays_so_when_it_is_divided_or_united():
    one = fresh(6, "an input")
    mix(one, "a mean")
    unify(one, product([fresh(2), fresh(3)]), "view")
    assert {(axis.frozen, axis.mixed) for axis in leaves(one)} == {("an input", "a mean")}
    other = fresh(6)
    unify(other, one, "added")
    assert {(axis.frozen, axis.mixed) for axis in leaves(other)} == {("an input", "a mean")}
    freeze(other, "later")
    assert {axis.frozen for axis in leaves(one)} == {"an input"}


@given(st.lists(st.tuples(SIZES, SIZES), min_size=1, max_size=3), st.integers(0, 99))
def test_places_say_which_position_an_element_is_made_of(pairs, seed):
    dims = [product([fresh(a), fresh(b)]) for a, b in pairs]
    whole = add(dims)
    for axis in leaves(whole):
        index = places(whole, axis)
        gone = keep_some(axis, seed)[:-1]
        cut = Cut({axis: np.setdiff1d(np.arange(axis.size), gone)})
        np.testing.assert_array_equal(np.flatnonzero(~np.isin(index, gone)), cut.positions(whole))


def test_a_dimension_of_one_has_no_axis():
    assert fresh(1) == UNIT and size(UNIT) == 1 and list(leaves(UNIT)) == []
    assert size(product([UNIT, fresh(3)])) == 3


def test_dimensions_of_other_sizes_are_not_one():
    with pytest.raises(ValueError, match="3 and 4"):
        unify(fresh(3), fresh(4), "x")

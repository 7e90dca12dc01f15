"""The algebra of dimensions: what a tensor's dimension is made of, so that a cut of one part follows through views.

A dimension is an ordered sum of products of axes, row-major. Concatenating adds: `a + b`. Flattening multiplies:
`c·h·w`. A view that unfolds 32 into 8 x 4 makes the axis behind it a product of two. Two dimensions that an operator
lines up are made of the same axes, which is what `unify` finds out. An axis that nothing divides any further is the
unit that can be cut.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


@dataclass(eq=False)
class Axis:
    """A set of positions. Axes are compared by identity; ask for `root` before anything else.

    Attributes:
        size: Number of positions, at least 2; a dimension of size 1 has no axis.
        frozen: Why it may not be cut; empty if it may.
        mixed: What computes across its positions (a normalisation, a reduction); empty if nothing does.
        link: The axis that it turned out to be.
        parts: What it turned out to be made of.
    """

    size: int
    frozen: str = ""
    mixed: str = ""
    link: Axis | None = None
    parts: Dim | None = None

    @property
    def root(self) -> Axis:
        """The axis that stands for all that were found to be the same."""
        axis = self
        while axis.link is not None:
            axis = axis.link
        return axis


Term = tuple[Axis, ...]
Dim = tuple[Term, ...]

# A dimension of size 1: one product of nothing.
UNIT: Dim = ((),)


@dataclass(frozen=True)
class Cut:
    """Which positions of which axes stay. Every other axis stays whole."""

    keep: Mapping[Axis, Indices] = field(default_factory=dict)

    def positions(self, dim: Dim) -> Indices:
        """Returns the positions of a dimension that stay, ascending where those of the axes are."""
        offset, found = 0, []
        for term in terms(dim):
            found.append(offset + self._of_term(term))
            offset += term_size(term)
        return np.concatenate(found) if found else np.zeros(0, np.int64)

    def size(self, dim: Dim) -> int:
        """Returns how many positions of a dimension stay."""
        return sum(math.prod(self._axis_size(axis) for axis in term) for term in terms(dim))

    def _of_term(self, term: Term) -> Indices:
        flat = np.zeros(1, np.int64)
        for axis in term:
            flat = (flat[:, None] * axis.root.size + self._of_axis(axis.root)[None, :]).ravel()
        return flat

    def _of_axis(self, axis: Axis) -> Indices:
        if axis.parts is not None:
            return self.positions(axis.parts)
        return self.keep.get(axis, np.arange(axis.size, dtype=np.int64))

    def _axis_size(self, axis: Axis) -> int:
        root = axis.root
        if root.parts is not None:
            return self.size(root.parts)
        return len(self.keep[root]) if root in self.keep else root.size


def fresh(size: int, frozen: str = "") -> Dim:
    """Returns a dimension of one new axis."""
    return UNIT if size == 1 else ((Axis(size, frozen),),)


def term_size(term: Term) -> int:
    """Returns the number of positions of a product."""
    return math.prod(axis.root.size for axis in term)


def size(dim: Dim) -> int:
    """Returns the number of positions of a dimension."""
    return sum(term_size(term) for term in dim)


def terms(dim: Dim) -> tuple[Term, ...]:
    """Returns a dimension's products with every axis replaced by what it is made of, as far as order allows.

    A sum inside a product can be taken apart only where it is the outermost factor: `(a + b)·c` is `a·c + b·c`, but in
    `c·(a + b)` the positions of `a` and `b` take turns.
    """
    return tuple(found for term in dim for found in _expanded(term))


def leaves(dim: Dim) -> Iterator[Axis]:
    """Yields the undivided axes of a dimension."""
    for term in dim:
        for axis in term:
            root = axis.root
            if root.parts is None:
                yield root
            else:
                yield from leaves(root.parts)


def freeze(dim: Dim, reason: str) -> None:
    """Forbids to cut anything of a dimension; the first reason given stays."""
    for axis in leaves(dim):
        axis.frozen = axis.frozen or reason


def mix(dim: Dim, what: str) -> None:
    """Notes that something computes across the positions of a dimension."""
    for axis in leaves(dim):
        axis.mixed = axis.mixed or what


def product(dims: Sequence[Dim]) -> Dim:
    """Returns the dimension that flattening some dimensions gives, outermost first."""
    result: Dim = UNIT
    for dim in dims:
        found = terms(dim)
        if len(found) > 1 and result != UNIT:
            found = ((_composite(dim),),)
        result = tuple((*outer, *inner) for outer in result for inner in found)
    return result


def add(dims: Sequence[Dim]) -> Dim:
    """Returns the dimension that concatenating some dimensions gives."""
    return tuple(term for dim in dims for term in terms(dim))


def unify(one: Dim, other: Dim, reason: str) -> None:
    """Notes that two dimensions of one size are the same, position by position.

    Where they cannot be taken apart at the same places, both are frozen.

    Args:
        one: A dimension.
        other: Another one of the same size.
        reason: Why they are the same, for what is frozen.

    Raises:
        ValueError: If the sizes differ.
    """
    if size(one) != size(other):
        raise ValueError(f"dimensions of {size(one)} and {size(other)} positions cannot be one")
    left, right = list(terms(one)), list(terms(other))
    while left and right:
        first, second = left.pop(0), right.pop(0)
        wanted = min(term_size(first), term_size(second))
        if term_size(first) != term_size(second):
            longer, rest = (first, left) if term_size(first) > wanted else (second, right)
            if not _split(longer, wanted):
                freeze(one, reason)
                freeze(other, reason)
                return
            # The piece in front is what is compared now.
            front, *behind = terms((longer,))
            rest[:0] = behind
            first, second = (front, second) if longer is first else (first, front)
        if not _unify_terms(first, second):
            freeze(one, reason)
            freeze(other, reason)
            return
        # What was taken apart may reach the rest of both sums.
        left = [found for term in left for found in terms((term,))]
        right = [found for term in right for found in terms((term,))]


def places(dim: Dim, axis: Axis) -> Indices:
    """Returns, for every position of a dimension, which position of an axis it is made of; -1 where of none."""
    found = []
    for term in terms(dim):
        number = np.full(1, -1, np.int64)
        for factor in term:
            root = factor.root
            if root is axis:
                inner = np.arange(root.size, dtype=np.int64)
            elif root.parts is not None:
                inner = places(root.parts, axis)
            else:
                inner = np.full(root.size, -1, np.int64)
            number = np.maximum(number[:, None], inner[None, :]).ravel()
        found.append(number)
    return np.concatenate(found)


def divide(dim: Dim, sizes: Sequence[int]) -> list[Dim] | None:
    """Returns the pieces of a dimension, or None where it cannot be divided there; it is frozen then by the caller."""
    pieces: list[Dim] = []
    left = list(terms(dim))
    for wanted in sizes:
        piece: list[Term] = []
        while wanted:
            if not left:
                return None
            term = left.pop(0)
            if term_size(term) > wanted:
                if not _split(term, wanted):
                    return None
                left[:0] = list(terms((term,)))
                continue
            piece.append(term)
            wanted -= term_size(term)
        pieces.append(tuple(piece))
    return pieces


def _expanded(term: Term) -> list[Term]:
    done: list[Term] = [()]
    for axis in term:
        root = axis.root
        if root.parts is None:
            done = [(*before, root) for before in done]
            continue
        found = terms(root.parts)
        if len(found) == 1:
            done = [(*before, *found[0]) for before in done]
        elif done == [()]:
            done = list(found)
        else:
            done = [(*before, root) for before in done]
    return done


def _composite(dim: Dim) -> Axis:
    return Axis(size(dim), parts=dim)


def _split(term: Term, at: int) -> bool:
    """Takes a product apart behind `at` positions by dividing its outermost axis; says whether that is possible."""
    if not term:
        return False
    outer, inner = term[0].root, term_size(term[1:])
    if at % inner or outer.parts is not None:
        return False
    count = at // inner
    outer.parts = add([_part(outer, count), _part(outer, outer.size - count)])
    return True


def _part(axis: Axis, count: int) -> Dim:
    return UNIT if count == 1 else ((Axis(count, axis.frozen, axis.mixed),),)


def _unify_terms(one: Term, other: Term) -> bool:
    """Makes two products of one size the same, factor by factor; says whether that is possible."""
    left, right = [axis.root for axis in one], [axis.root for axis in other]
    while left and right:
        first, second = left.pop(0).root, right.pop(0).root
        if first is second:
            continue
        if first.size == second.size:
            if not _merge(first, second):
                return False
            continue
        longer, shorter, rest = (first, second, left) if first.size > second.size else (second, first, right)
        if longer.size % shorter.size or longer.parts is not None:
            return False
        outer, inner = _part(longer, shorter.size), _part(longer, longer.size // shorter.size)
        longer.parts = product([outer, inner])
        if not _merge(outer[0][0], shorter):
            return False
        rest[:0] = [axis for term in inner for axis in term]
    return not left and not right


def _merge(one: Axis, other: Axis) -> bool:
    """Makes two axes one."""
    one, other = one.root, other.root
    if one is other:
        return True
    if one.parts is not None and other.parts is not None:
        unify(one.parts, other.parts, "two views divide it differently")
        other.link = one
        return True
    if one.parts is not None:
        one, other = other, one
    # `one` is undivided: it becomes the other, which may be divided.
    if other.parts is None:
        other.frozen, other.mixed = other.frozen or one.frozen, other.mixed or one.mixed
    else:
        if one.frozen:
            freeze(other.parts, one.frozen)
        if one.mixed:
            mix(other.parts, one.mixed)
    one.link = other
    return True

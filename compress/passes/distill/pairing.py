"""Which value of the student is compared with which of the teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from compress.errors import RecipeError
from compress.model.core import Model
from compress.passes.base import Skip
from compress.passes.distill.options import DistillOptions
from compress.passes.distill.points import (
    Attention,
    Point,
    attentions,
    feature_maps,
    hidden_states,
    named_points,
)

Kind = Literal["hidden", "features"]


@dataclass(frozen=True)
class Pair:
    """Two values that should become alike.

    Attributes:
        kind: What they are.
        student, teacher: Where they are.
        mask: Name of the student's value that hides tokens from attention; None where the values have no tokens, or
            none is hidden.
    """

    kind: Kind
    student: Point
    teacher: Point
    mask: str | None = None

    def __str__(self) -> str:
        through = f", through {self.student.width} -> {self.teacher.width}"
        shape = "x".join(map(str, self.teacher.shape))
        return (
            f"{self.student.where} <- {self.teacher.where} ({self.kind} {shape}"
            f"{through if self.student.width != self.teacher.width else ''})"
        )


@dataclass(frozen=True)
class Relation:
    """Two attentions whose relations between tokens should become alike, told apart by `heads` heads on both sides."""

    student: Attention
    teacher: Attention
    heads: int

    def __str__(self) -> str:
        return f"{self.student.where} <- {self.teacher.where} (relations of queries, keys, values; {self.heads} heads)"


@dataclass(frozen=True)
class Pairing:
    """All that is compared inside, and what could not be."""

    pairs: tuple[Pair, ...] = ()
    relation: Relation | None = None
    skipped: tuple[Skip, ...] = ()

    @property
    def masks(self) -> tuple[str, ...]:
        """Names of the student's values that tell which tokens count, each once."""
        names = [item.mask for item in self.pairs] + ([self.relation.student.mask] if self.relation else [])
        return tuple(dict.fromkeys(name for name in names if name is not None))

    @property
    def told(self) -> tuple[str, ...]:
        """The pairs in words."""
        return (*map(str, self.pairs), *([str(self.relation)] if self.relation else ()))


def pair(student: Model, teacher: Model, options: DistillOptions, where: str) -> Pairing:
    """Pairs the inside of two graphs as the options ask.

    Hidden states are paired by depth: of S and T blocks, block i of the student (from 1) with block i T / S, rounded.
    Feature maps are paired where height and width are the same. Patterns replace both; of unequal numbers of layers
    that they match, depth decides as above.

    Raises:
        RecipeError: If a weight asks for what one of the graphs does not have, or a pattern matches nothing.
    """
    pairs: list[Pair] = []
    skipped: list[Skip] = []
    if options.pairs and not (options.hidden or options.features):
        raise RecipeError(f"{where}.pairs: nothing is compared", "set hidden or features to the weight that it gets.")
    if options.pairs:
        for own, other in options.pairs.items():
            students = named_points(student, own, f"{where}.pairs")
            pairs += _by_depth(students, named_points(teacher, other, f"{where}.pairs"), skipped)
    else:
        if options.hidden:
            both = hidden_states(student), hidden_states(teacher)
            _need(both, f"{where}.hidden", "hidden states (blocks with residual sums, or activations of rows)")
            pairs += _by_depth(*both, skipped)
        if options.features:
            both = feature_maps(student), feature_maps(teacher)
            _need(both, f"{where}.features", "feature maps")
            pairs += _by_size(*both, skipped)
    for key, weight, kind in (("hidden", options.hidden, "hidden"), ("features", options.features, "features")):
        if weight and not any(item.kind == kind for item in pairs):
            reasons = "; ".join(sorted({skip.reason for skip in skipped})) or "the pairs are of another kind"
            raise RecipeError(f"{where}.{key}: no pair fits: {reasons}", "name pairs, or remove the key.")
    return Pairing(_masked(pairs, student), _relation(student, teacher, options, where), tuple(skipped))


def _by_depth(students: Sequence[Point], teachers: Sequence[Point], skipped: list[Skip]) -> list[Pair]:
    found = []
    for index, own in enumerate(students, start=1):
        other = teachers[max(1, round(index * len(teachers) / len(students))) - 1]
        if len(own.shape) != len(other.shape) or own.extent != other.extent:
            skipped.append(Skip(own.where, f"{list(own.shape)} cannot be compared with {list(other.shape)}"))
        else:
            found.append(Pair("features" if len(own.shape) == 3 else "hidden", own, other))
    return found


def _masked(pairs: Sequence[Pair], student: Model) -> tuple[Pair, ...]:
    """The same pairs, those of tokens with their mask: what stands at padding reaches no answer."""
    masks = {item.tokens: item.mask for item in attentions(student)}
    return tuple(
        replace(item, mask=masks.get(item.student.shape[0])) if len(item.student.shape) == 2 else item for item in pairs
    )


def _by_size(students: Sequence[Point], teachers: Sequence[Point], skipped: list[Skip]) -> list[Pair]:
    by_extent = {item.extent: item for item in teachers}
    for own in students:
        if own.extent not in by_extent:
            skipped.append(Skip(own.where, f"the teacher has no feature map of {'x'.join(map(str, own.extent))}"))
    return [Pair("features", own, by_extent[own.extent]) for own in students if own.extent in by_extent]


def _relation(student: Model, teacher: Model, options: DistillOptions, where: str) -> Relation | None:
    if not options.relations:
        return None
    both = attentions(student), attentions(teacher)
    _need(both, f"{where}.relations", "attention")
    own, other = both[0][-1], both[1][-1]
    heads = options.relation_heads or other.heads
    for item, whose in ((own, "student"), (other, "teacher")):
        if item.heads * item.width % heads:
            raise RecipeError(
                f"{where}.relation_heads: {heads} heads do not divide the {whose}'s {item.heads * item.width} channels",
                "choose a number that divides both widths.",
            )
    if own.tokens != other.tokens:
        raise RecipeError(
            f"{where}.relations: the student has {own.tokens} tokens, the teacher {other.tokens}", "remove the key."
        )
    return Relation(own, other, heads)


def _need(both: tuple[Sequence[object], Sequence[object]], key: str, what: str) -> None:
    for found, whose in zip(both, ("student", "teacher"), strict=True):
        if not found:
            raise RecipeError(f"{key}: the {whose} has no {what}", "remove the key.")

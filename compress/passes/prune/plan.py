"""Which positions go: the goal of the recipe turned into what stays of every group."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from compress.errors import PassError, did_you_mean
from compress.passes.base import Skip
from compress.passes.prune.axes import Cut
from compress.passes.prune.groups import Analysis, Group
from compress.passes.prune.importance import Floats, Kind, importance
from compress.passes.prune.work import macs
from compress.schema import Strict

Indices = NDArray[np.int64]
_STEPS = 24


class Options(Strict):
    """`[[passes]] kind = "prune"`.

    One goal: `ratio`, the share of positions that goes, or `macs`, the share of multiply-adds that stays.
    `allocation` deals it: `uniform` takes the same share of every group, `global` what counts least anywhere, but
    leaves every group at least `floor` of itself. `include` and `exclude` are patterns on layer names.
    `round_to` is the multiple that widths keep to, where a group is at least twice as wide.
    """

    ratio: float | None = Field(default=None, gt=0, lt=1)
    macs: float | None = Field(default=None, gt=0, lt=1)
    importance: Kind = "l2"
    allocation: Literal["uniform", "global"] = "uniform"
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    round_to: int = Field(default=8, ge=1, le=256)
    floor: float = Field(default=0.1, gt=0, lt=1)
    statistics_rows: int = Field(default=512, ge=2)

    @model_validator(mode="after")
    def _one_goal(self) -> Options:
        if (self.ratio is None) == (self.macs is None):
            raise ValueError("give one goal: ratio (what goes) or macs (what stays of the multiply-adds)")
        return self


@dataclass(frozen=True)
class PrunePlan:
    """What stays of each group that is cut, and why the others are not."""

    keep: Mapping[str, Indices]
    skipped: tuple[Skip, ...]


def make_plan(analysis: Analysis, options: Options) -> PrunePlan:
    """Decides what stays.

    Raises:
        PassError: If a pattern matches no layer, or the goal cannot be reached; it says how far one can get.
    """
    groups, skipped = _eligible(analysis, options)
    scores = {group.name: importance(analysis, group, options.importance) for group in groups}
    if options.ratio is not None:
        keep = _allocate(groups, scores, options.ratio, options)
    else:
        keep = _reach(analysis, groups, scores, options)
    cut = {group.name: keep[group.name] for group in groups if len(keep[group.name]) < group.size}
    whole = [
        Skip(group.name, f"{group.size} positions do not get fewer at this goal, rounded to {options.round_to}")
        for group in groups
        if group.name not in cut
    ]
    return PrunePlan(cut, (*skipped, *whole))


def _eligible(analysis: Analysis, options: Options) -> tuple[list[Group], list[Skip]]:
    """The groups that the patterns choose and that may be cut, and a reason for each of the others."""
    layers = sorted({_layer(member.parameter) for group in analysis.groups for member in group.members})
    for key, patterns in (("include", options.include), ("exclude", options.exclude)):
        for pattern in patterns:
            if not any(fnmatch.fnmatchcase(layer, pattern) for layer in layers):
                raise PassError(f"prune.{key}: the pattern {pattern!r} matches no layer", did_you_mean(pattern, layers))
    chosen, skipped = [], []
    outer = {(member.parameter, member.dimension) for group in analysis.prunable for member in group.members[:1]}
    for group in analysis.groups:
        names = {_layer(member.parameter) for member in group.members}
        excluded = [pattern for pattern in options.exclude if _any(names, [pattern])]
        if group.frozen:
            skipped.append(Skip(group.name, group.frozen))
        elif excluded:
            skipped.append(Skip(group.name, f"excluded by {excluded[0]!r}"))
        elif not _any(names, options.include):
            skipped.append(Skip(group.name, "matched by no include pattern"))
        elif _is_inside(group) and (group.members[0].parameter, group.members[0].dimension) in outer:
            skipped.append(Skip(group.name, "inside a head: heads go as a whole"))
        else:
            chosen.append(group)
    return chosen, skipped


def _is_inside(group: Group) -> bool:
    """Whether the group is the inner part of a dimension that is a product, as the channels of a head are."""
    part = group.name.rpartition("[")[2].rstrip("]").partition(".")[2]
    first = group.members[0].dim
    return bool(part) and int(part) > 0 and len(first) == 1


def _any(names: set[str], patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in patterns)


def _layer(parameter: str) -> str:
    return parameter.rpartition(".")[0] or parameter


def _allocate(
    groups: Sequence[Group], scores: Mapping[str, Floats], ratio: float, options: Options
) -> dict[str, Indices]:
    """What stays of every group when a share of all positions goes."""
    if options.allocation == "uniform":
        counts = {group.name: group.size * (1 - ratio) for group in groups}
    else:
        every = np.concatenate([scores[group.name] for group in groups]) if groups else np.zeros(0)
        bound = np.quantile(every, ratio) if every.size else 0.0
        counts = {group.name: float(np.count_nonzero(scores[group.name] > bound)) for group in groups}
    return {
        group.name: _best(scores[group.name], _rounded(counts[group.name], group.size, options)) for group in groups
    }


def _rounded(wanted: float, size: int, options: Options) -> int:
    unit = options.round_to if size >= 2 * options.round_to else 1
    least = max(1, int(np.ceil(size * options.floor)))
    return min(size, max(unit, least, round(wanted / unit) * unit))


def _best(scores: Floats, count: int) -> Indices:
    # Of equal figures the earlier position stays: the same model gives the same cut.
    order = np.argsort(-scores, kind="stable")
    return np.sort(order[:count])


def _reach(
    analysis: Analysis, groups: Sequence[Group], scores: Mapping[str, Floats], options: Options
) -> dict[str, Indices]:
    """The smallest ratio, to 1 / 2^24, with which at most the wanted share of multiply-adds stays."""
    if options.macs is None:
        raise ValueError("the goal is no share of multiply-adds")
    axes = {group.name: group.axis for group in groups}
    before = macs(analysis, Cut())

    def share(keep: Mapping[str, Indices]) -> float:
        return macs(analysis, Cut({axes[name]: positions for name, positions in keep.items()})) / before

    low, high = 0.0, 1.0
    best = _allocate(groups, scores, high, options)
    if share(best) > options.macs:
        raise PassError(
            f"prune.macs: {options.macs:g} of the multiply-adds cannot be reached; {share(best):.3f} can",
            "choose a larger share, a smaller floor or round_to, or exclude fewer layers.",
        )
    for _ in range(_STEPS):
        middle = (low + high) / 2
        keep = _allocate(groups, scores, middle, options)
        if share(keep) <= options.macs:
            high, best = middle, keep
        else:
            low = middle
    return best

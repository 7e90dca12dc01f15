"""Which groups a recipe's patterns choose, and a reason for each of the others."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from compress.errors import PassError, did_you_mean
from compress.passes.base import Skip
from compress.passes.prune.groups import Analysis, Group
from compress.passes.prune.options import Options


@dataclass(frozen=True)
class Eligible:
    """What may be cut.

    Attributes:
        groups: In the order of the graph.
        ratios: Group -> the share that goes, where `ratios` fixes it.
        skipped: Every other group, with the reason.
    """

    groups: tuple[Group, ...]
    ratios: Mapping[str, float]
    skipped: tuple[Skip, ...]


def eligible(analysis: Analysis, options: Options) -> Eligible:
    """Applies the patterns of a recipe to the groups of a graph.

    A group matches a pattern if one of its layers does. `exclude` comes after `include`; of the patterns of `ratios`
    that match, the last wins.

    Raises:
        PassError: If a pattern matches no layer.
    """
    layers = sorted({_layer(member.parameter) for group in analysis.groups for member in group.members})
    for key, patterns in (("include", options.include), ("exclude", options.exclude), ("ratios", options.ratios)):
        for pattern in patterns:
            if not any(fnmatch.fnmatchcase(layer, pattern) for layer in layers):
                raise PassError(f"prune.{key}: the pattern {pattern!r} matches no layer", did_you_mean(pattern, layers))
    chosen: list[Group] = []
    skipped: list[Skip] = []
    ratios: dict[str, float] = {}
    inner = analysis.inner
    for group in analysis.groups:
        names = {_layer(member.parameter) for member in group.members}
        excluded = _matching(names, options.exclude)
        fixed = _matching(names, options.ratios)
        if group.frozen:
            skipped.append(Skip(group.name, group.frozen))
        elif excluded:
            skipped.append(Skip(group.name, f"excluded by {excluded[0]!r}"))
        elif not _matching(names, options.include):
            skipped.append(Skip(group.name, "matched by no include pattern"))
        elif group.name in inner:
            skipped.append(Skip(group.name, "inside a head: heads go as a whole"))
        elif fixed and options.ratios[fixed[-1]] == 0:
            skipped.append(Skip(group.name, f"ratios: {fixed[-1]!r} is 0"))
        elif not fixed and options.goal is None:
            skipped.append(Skip(group.name, "matched by no pattern of ratios, and there is no other goal"))
        else:
            chosen.append(group)
            if fixed:
                ratios[group.name] = options.ratios[fixed[-1]]
    return Eligible(tuple(chosen), ratios, tuple(skipped))


def _matching(names: Iterable[str], patterns: Iterable[str]) -> Sequence[str]:
    """The patterns that match one of the names, in their order."""
    known = tuple(names)
    return [pattern for pattern in patterns if any(fnmatch.fnmatchcase(name, pattern) for name in known)]


def _layer(parameter: str) -> str:
    return parameter.rpartition(".")[0] or parameter

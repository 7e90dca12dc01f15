"""Which positions go: the goal of the recipe turned into what stays of every group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from compress.errors import PassError
from compress.passes.base import Skip
from compress.passes.prune.allocate import Deal, Dealt, Indices, best, by_ratio, within
from compress.passes.prune.costs import Costs, multiply_adds
from compress.passes.prune.eligible import Eligible, eligible
from compress.passes.prune.from_rows import Floats
from compress.passes.prune.groups import Analysis
from compress.passes.prune.importance import importance
from compress.passes.prune.options import FROM_ROWS, MULTIPLE, Options


@dataclass(frozen=True)
class PrunePlan:
    """What stays of each group that is cut, and why the others are not."""

    keep: Mapping[str, Indices]
    skipped: tuple[Skip, ...]


class Planner:
    """Deals the goal of a recipe among the groups of a Model, in one step or several.

    Attributes:
        groups: The groups that may be cut, as the Model came.
        sizes: Their positions.
        skipped: Every other group, with the reason.
    """

    def __init__(self, chosen: Eligible, options: Options, round_to: int) -> None:
        self.groups = chosen.groups
        self.sizes = {group.name: group.size for group in chosen.groups}
        self.skipped = chosen.skipped
        self._ratios = chosen.ratios
        self._options = options
        self._round_to = round_to

    def deal(self, scores: Mapping[str, Floats]) -> Deal:
        """Returns the groups as they are now, with how much their positions count."""
        return Deal(scores, self.sizes, self._ratios, self._round_to, self._options.floor)

    def widths(self, deal: Deal, costs: Costs | None, done: float) -> Mapping[str, int]:
        """Returns the widths behind a step.

        Args:
            deal: The groups as they are before it.
            costs: What widths cost; needed for every goal but `ratio`.
            done: The share of the way that is behind us then; 1 for the last step, or the only one.

        Raises:
            PassError: If the goal cannot be reached; it says how far one can get.
        """
        options = self._options
        if options.goal is None:
            return deal.start(done)
        if options.ratio is not None:
            return by_ratio(deal, options.ratio * done, "global" if options.dealing == "global" else "uniform", done)
        if costs is None:
            raise ValueError(f"the goal {options.goal} needs costs")
        stays = options.macs if options.macs is not None else 1.0
        dealt = self.within(deal, costs, 1 - (1 - stays) * done, done)
        if not dealt.met:
            share = costs.total(dealt.widths) / costs.total(self.sizes)
            raise PassError(
                f"prune.macs: {options.macs:g} of the multiply-adds cannot be reached; {share:.3f} can",
                "choose a larger share, a smaller floor or round_to, or exclude fewer layers.",
            )
        return dealt.widths

    def within(self, deal: Deal, costs: Costs, share: float, done: float = 1.0) -> Dealt:
        """Returns the widths that keep to a share of what the Model cost as it came."""
        return within(deal, costs, share * costs.total(self.sizes), self._options.dealing, done)

    def left_whole(self, widths: Mapping[str, int]) -> tuple[Skip, ...]:
        """Returns the groups that the goal leaves as they are."""
        return tuple(
            Skip(name, f"{size} positions do not get fewer at this goal, rounded to {self._round_to}")
            for name, size in self.sizes.items()
            if widths.get(name, size) == size
        )


def kept(deal: Deal, widths: Mapping[str, int]) -> dict[str, Indices]:
    """Returns the positions that stay of every group that gets narrower."""
    return {name: best(scores, widths[name]) for name, scores in deal.scores.items() if widths[name] < len(scores)}


def make_plan(analysis: Analysis, options: Options) -> PrunePlan:
    """Decides what stays in one step, by weights alone: for the goals `ratio`, `macs` and `ratios`.

    Raises:
        PassError: If a pattern matches no layer, or the goal cannot be reached; it says how far one can get.
        ValueError: If the goal or the importance needs a target or rows.
    """
    if options.timed or options.importance in FROM_ROWS:
        raise ValueError("this plan has neither a target nor rows")
    planner = Planner(eligible(analysis, options), options, options.round_to or MULTIPLE)
    scores = {group.name: importance(analysis, group, options.importance) for group in planner.groups}
    deal = planner.deal(scores)
    widths = planner.widths(deal, multiply_adds(analysis, planner.groups) if options.macs else None, 1.0)
    return PrunePlan(kept(deal, widths), (*planner.skipped, *planner.left_whole(widths)))

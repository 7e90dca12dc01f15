"""How many positions of each group stay: a goal dealt among the groups."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from compress.passes.prune.costs import Costs
from compress.passes.prune.from_rows import Floats

Indices = NDArray[np.int64]
_HALVINGS = 24


@dataclass(frozen=True)
class Deal:
    """The groups that a goal is dealt among.

    Attributes:
        scores: Group -> how much each of its positions counts, `[positions]`.
        sizes: Group -> its positions in the Model as it came; shares are shares of these.
        ratios: Group -> the share that goes, where the recipe fixes it.
        round_to: The multiple that widths keep to, where a group is at least twice as wide.
        floor: Share of every group that stays at least.
    """

    scores: Mapping[str, Floats]
    sizes: Mapping[str, int]
    ratios: Mapping[str, float]
    round_to: int
    floor: float

    @property
    def free(self) -> list[str]:
        """The groups whose share nothing fixes."""
        return [name for name in self.scores if name not in self.ratios]

    def unit(self, name: str) -> int:
        """Returns the multiple that the width of a group keeps to."""
        return self.round_to if self.sizes[name] >= 2 * self.round_to else 1

    def least(self, name: str) -> int:
        """Returns the least width of a group."""
        unit = self.unit(name)
        wanted = max(1, math.ceil(self.sizes[name] * self.floor - 1e-9))
        return min(len(self.scores[name]), -(-wanted // unit) * unit)

    def rounded(self, name: str, wanted: float) -> int:
        """Returns the width that a group may have which is nearest to a wanted one."""
        unit = self.unit(name)
        return min(len(self.scores[name]), max(self.least(name), round(wanted / unit) * unit))

    def narrower(self, name: str, width: int) -> int | None:
        """Returns the next smaller width that a group may have; None at its least."""
        unit = self.unit(name)
        smaller = (width - 1) // unit * unit
        return smaller if smaller >= self.least(name) else None

    def start(self, share: float) -> dict[str, int]:
        """Returns the widths before the goal is dealt: whole groups, and those whose share the recipe fixes.

        Args:
            share: How much of what is fixed is done by now.
        """
        return {
            name: len(scores)
            if name not in self.ratios
            else self.rounded(name, self.sizes[name] * (1 - self.ratios[name] * share))
            for name, scores in self.scores.items()
        }


@dataclass(frozen=True)
class Dealt:
    """The widths that a goal was dealt into; `met` is false where not even the least of every group will do."""

    widths: Mapping[str, int]
    met: bool = True


def by_ratio(deal: Deal, ratio: float, how: Literal["uniform", "global"], share: float = 1.0) -> dict[str, int]:
    """Returns the widths where a share of the positions goes.

    `uniform` takes the share of every group; `global` takes the positions that count least, wherever they are. Of equal
    figures the earlier position stays.

    Args:
        deal: The groups.
        ratio: The share that goes.
        how: How it is dealt.
        share: How much of what the recipe fixes is done by now.
    """
    widths = deal.start(share)
    names = deal.free
    if how == "uniform" or not names:
        return widths | {name: deal.rounded(name, deal.sizes[name] * (1 - ratio)) for name in names}
    every = np.concatenate([deal.scores[name] for name in names])
    owner = np.concatenate([np.full(len(deal.scores[name]), number) for number, name in enumerate(names)])
    stay = round(sum(deal.sizes[name] for name in names) * (1 - ratio))
    counts = np.bincount(owner[np.argsort(-every, kind="stable")[:stay]], minlength=len(names))
    return widths | {name: deal.rounded(name, float(count)) for name, count in zip(names, counts, strict=True)}


def within(
    deal: Deal, costs: Costs, budget: float, how: Literal["uniform", "global", "cost"], share: float = 1.0
) -> Dealt:
    """Returns the widths that keep to a budget and give up as little as the way of dealing allows.

    Args:
        deal: The groups.
        costs: What widths cost.
        budget: The most they may cost.
        how: `uniform` and `global` look for the smallest ratio; `cost` is `by_cost`.
        share: How much of what the recipe fixes is done by now.
    """
    if how == "cost":
        return by_cost(deal, costs, budget, share)
    low, high = 0.0, 1.0
    best = by_ratio(deal, high, how, share)
    if costs.total(best) > budget:
        return Dealt(best, met=False)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        widths = by_ratio(deal, middle, how, share)
        if costs.total(widths) <= budget:
            high, best = middle, widths
        else:
            low = middle
    return Dealt(best)


def by_cost(deal: Deal, costs: Costs, budget: float, share: float = 1.0) -> Dealt:
    """Returns the widths that keep to a budget and keep as much importance as a greedy choice can.

    Which positions to keep under a budget is a knapsack whose weights depend on each other: a convolution costs its
    inputs times its outputs. So one step at a time is taken, of the group whose next step loses least importance for
    what it saves at the widths of that moment, and what the others save is asked anew (the greedy step of NetAdapt,
    Yang et al. 2018, arXiv:1804.03230, with the ratio of HALP, Shen et al. 2022, arXiv:2110.10811). The last step may
    save more than was needed: what still fits is then given back, the dearest first.

    Args:
        deal: The groups.
        costs: What widths cost.
        budget: The most they may cost.
        share: How much of what the recipe fixes is done by now.
    """
    widths = deal.start(share)
    # How much importance a group has lost at each width, `[positions + 1]`, the least important going first.
    lost = {name: np.concatenate([[0.0], np.cumsum(np.sort(scores))])[::-1] for name, scores in deal.scores.items()}
    total = costs.total(widths)
    prices = {name: _price(deal, costs, lost, widths, name) for name in deal.free}
    steps: list[tuple[float, str]] = []
    while total > budget:
        name = min(prices, key=lambda each: prices[each], default=None)
        if name is None or math.isinf(prices[name]):
            return Dealt(widths, met=False)
        smaller = deal.narrower(name, widths[name])
        if smaller is None:
            raise ValueError(f"{name} has a price and no smaller width")
        steps.append((prices[name], name))
        total -= costs.saved(name, smaller, widths)
        widths[name] = smaller
        for other in costs.neighbours(name):
            if other in prices:
                prices[other] = _price(deal, costs, lost, widths, other)
    return Dealt(_given_back(deal, costs, budget, widths, [name for _, name in sorted(steps, reverse=True)]))


def _price(deal: Deal, costs: Costs, lost: Mapping[str, Floats], widths: Mapping[str, int], name: str) -> float:
    """Importance lost for each unit of cost that the group's next step saves; infinite where it saves nothing."""
    smaller = deal.narrower(name, widths[name])
    saved = costs.saved(name, smaller, widths) if smaller is not None else 0.0
    if smaller is None or saved <= 0:
        return math.inf
    return float(lost[name][smaller] - lost[name][widths[name]]) / saved


def _given_back(
    deal: Deal, costs: Costs, budget: float, widths: dict[str, int], names: Sequence[str]
) -> dict[str, int]:
    """Widens groups again by a step while the budget allows it, in this order."""
    total = costs.total(widths)
    for name in names:
        wider = min(len(deal.scores[name]), (widths[name] // deal.unit(name) + 1) * deal.unit(name))
        more = -costs.saved(name, wider, widths)
        if wider > widths[name] and total + more <= budget:
            total += more
            widths[name] = wider
    return widths


def best(scores: Floats, count: int) -> Indices:
    """Returns the positions that count most, ascending. Of equal figures the earlier position stays."""
    order = np.argsort(-scores, kind="stable")
    return np.sort(order[:count])

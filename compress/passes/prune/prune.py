"""The pass: a goal in, a smaller Model out, with what was cut and what was not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.fx import GraphModule

from compress.data.base import Dataset
from compress.model.core import Model
from compress.model.edit import batch_norms, edited
from compress.passes.base import Change, Context, PassResult, Skip, run_pass
from compress.passes.prune.allocate import Deal
from compress.passes.prune.costs import Costs, multiply_adds
from compress.passes.prune.eligible import eligible
from compress.passes.prune.from_rows import Sample
from compress.passes.prune.groups import Analysis, analyse, analyse_module, apply_cut
from compress.passes.prune.importance import all_importance
from compress.passes.prune.options import FROM_ROWS, MULTIPLE, Options, read_options
from compress.passes.prune.plan import Planner, kept
from compress.passes.prune.probe import liked_multiple
from compress.passes.prune.statistics import renew_statistics
from compress.passes.prune.timed import TimeGoal, meter_of

_BATCH = 64


class Prune:
    """Takes whole channels, heads and hidden units out of a Model, wherever they are coupled."""

    # What was measured on a target, and its multiple of widths, decide what goes.
    reads_targets = True

    def check(self, options: Mapping[str, Any], where: str) -> None:
        """Checks the options by themselves; see `ChecksOptions`."""
        read_options(options, where)

    def apply(self, model: Model, data: Dataset | None, ctx: Context) -> PassResult:
        """Cuts towards the goal; batch normalisation's statistics are then taken anew from calibration rows.

        Raises:
            RecipeError: If an option is unknown or wrong.
            PassError: If a pattern matches nothing, the goal cannot be reached, or what it needs is not there.
        """
        options = read_options(ctx.options, ctx.where)
        meter = meter_of(options, ctx)
        analysis = analyse(model)
        chosen = eligible(analysis, options)
        unknown = (Skip(node, f"the operator {name!r} has no rule") for node, name in analysis.found.unknown)
        skipped, notes = [*chosen.skipped, *unknown], list[Change]()
        goal = TimeGoal.of(options, meter, model) if chosen.groups and options.timed and meter is not None else None
        if goal is not None and goal.reached:
            skipped.append(goal.nothing_to_do)
        if not chosen.groups or (goal is not None and goal.reached):
            return PassResult(model, (), tuple(skipped))
        round_to = options.round_to or (meter.width_multiple if meter is not None else None)
        if goal is not None and round_to is None:
            round_to, said = liked_multiple(analysis, goal.meter)
            notes.append(said)
        planner = Planner(chosen, options, round_to or MULTIPLE)
        costs = None
        if goal is not None:
            costs = goal.costs(analysis, chosen.groups, round_to or MULTIPLE)
        elif options.macs is not None:
            costs = multiply_adds(analysis, chosen.groups)
        return _Work(model, planner, options, costs, goal, data, ctx).done(analysis, notes, skipped)


@dataclass
class _Work:
    """The steps of one cut."""

    model: Model
    planner: Planner
    options: Options
    costs: Costs | None
    goal: TimeGoal | None
    data: Dataset | None
    ctx: Context

    def done(self, analysis: Analysis, notes: list[Change], skipped: list[Skip]) -> PassResult:
        """Carries the steps out and tells what became of each group."""
        current = self.model
        steps, widths = self.options.steps, dict(self.planner.sizes)
        for step in range(1, steps + 1):
            now = analysis if current is self.model else analyse(current)
            deal = self._deal(current, now)
            widths |= self._widths(current, deal, step / steps, notes, skipped)
            keep = kept(deal, widths)
            if keep:
                current = self._cut(current, keep, step, notes, skipped)
            if step < steps:
                current = self._recovered(current, step, notes)
        if current is self.model:
            return PassResult(self.model, (), (*skipped, *self.planner.left_whole(widths)))
        changed = [
            Change(
                group.name,
                f"{group.size} -> {widths[group.name]} positions in {len(group.members)} slices, "
                f"{self.options.importance}, {self.options.dealing}",
            )
            for group in self.planner.groups
            if widths[group.name] < group.size
        ]
        # What happens in every step is told once.
        notes, skips = list(dict.fromkeys(notes)), dict.fromkeys((*skipped, *self.planner.left_whole(widths)))
        return PassResult(current, (*changed, *notes), tuple(skips))

    def _deal(self, current: Model, now: Analysis) -> Deal:
        groups = [group for group in now.prunable if group.name in self.planner.sizes]
        sample = None
        if self.data is not None and self.options.importance in FROM_ROWS:
            self.ctx.say(f"importance of {len(groups)} groups: {self.options.importance}")
            rows = self.data.sample("calibration", self.options.importance_rows, self.ctx.seed)
            sample = Sample(self.data, rows, self.ctx.tasks)
        return self.planner.deal(all_importance(current, now, groups, self.options.importance, sample))

    def _widths(
        self, current: Model, deal: Deal, done: float, notes: list[Change], skipped: list[Skip]
    ) -> Mapping[str, int]:
        if self.goal is None:
            return self.planner.widths(deal, self.costs, done)
        if self.costs is None:
            raise ValueError("a goal of time has costs")
        if done < 1:
            return self.goal.towards(current, deal, self.planner, self.costs, done)
        widths, said, missed = self.goal.aimed(current, deal, self.planner, self.costs)
        notes.append(said)
        skipped.extend(missed)
        return widths

    def _cut(
        self, current: Model, keep: Mapping[str, NDArray[np.int64]], step: int, notes: list[Change], skipped: list[Skip]
    ) -> Model:
        rows = None
        if self.data is not None:
            rows = self.data.sample("calibration", self.options.statistics_rows, self.ctx.seed)

        def edit(module: GraphModule) -> None:
            apply_cut(analyse_module(module), keep)
            if not batch_norms(module):
                return
            if self.data is None or rows is None:
                skipped.append(Skip("batch normalisation", "its statistics are the old ones: there are no rows"))
                return
            renew_statistics(module, current, self.data.batches_of(rows, _BATCH))
            notes.append(Change("batch normalisation", f"statistics taken anew from {len(rows)} calibration rows"))

        of = f", step {step} of {self.options.steps}" if self.options.steps > 1 else ""
        return edited(current, edit, f"prune: {self.options.said}{of}")

    def _recovered(self, current: Model, step: int, notes: list[Change]) -> Model:
        """What the recipe wants to run between two steps."""
        recover = self.options.recover
        if recover is None or current is self.model:
            return current
        ctx = replace(self.ctx, options=recover.options, where=f"{self.ctx.where}: recover")
        result = run_pass(recover.kind, current, self.data, ctx, allow_no_change=recover.allow_no_change)
        notes.append(Change(f"{recover.kind} behind step {step}", f"{len(result.changed)} changes"))
        return result.model

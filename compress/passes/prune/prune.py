"""The pass: a goal in, a smaller Model out, with what was cut and what was not."""

from __future__ import annotations

from torch.fx import GraphModule

from compress.data.base import Dataset
from compress.model.core import Model
from compress.passes.base import Change, Context, PassResult, Skip
from compress.passes.edit import batch_norms, edited
from compress.passes.prune.groups import analyse, analyse_module, apply_cut
from compress.passes.prune.plan import Options, make_plan
from compress.passes.prune.statistics import renew_statistics
from compress.schema import validate

_BATCH = 64


class Prune:
    """Takes whole channels, heads and hidden units out of a Model, wherever they are coupled."""

    def apply(self, model: Model, data: Dataset | None, ctx: Context) -> PassResult:
        """Cuts towards the goal; batch normalisation's statistics are then taken anew from calibration rows.

        Raises:
            RecipeError: If an option is unknown or wrong.
            PassError: If a pattern matches nothing or the goal cannot be reached.
        """
        options = validate(Options, dict(ctx.options), "passes: prune")
        analysis = analyse(model)
        plan = make_plan(analysis, options)
        unknown = (Skip(node, f"the operator {name!r} has no rule") for node, name in analysis.found.unknown)
        skipped = [*plan.skipped, *unknown]
        if not plan.keep:
            return PassResult(model, (), tuple(skipped))
        groups = {group.name: group for group in analysis.groups}
        changed = [
            Change(
                name,
                f"{groups[name].size} -> {len(kept)} positions in {len(groups[name].members)} slices, "
                f"{options.importance}, {options.allocation}",
            )
            for name, kept in plan.keep.items()
        ]
        rows = None if data is None else data.sample("calibration", options.statistics_rows, ctx.seed)

        def edit(module: GraphModule) -> None:
            apply_cut(analyse_module(module), plan.keep)
            if not batch_norms(module):
                return
            if data is None or rows is None:
                skipped.append(Skip("batch normalisation", "its statistics are the old ones: there are no rows"))
                return
            renew_statistics(module, model, data.batches_of(rows, _BATCH))
            changed.append(Change("batch normalisation", f"statistics taken anew from {len(rows)} calibration rows"))

        goal = f"ratio {options.ratio:g}" if options.ratio is not None else f"macs {options.macs:g}"
        return PassResult(edited(model, edit, f"prune: {goal}"), tuple(changed), tuple(skipped))

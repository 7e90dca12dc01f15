"""The goals that only a target can tell: milliseconds and speed-up, predicted by a table, met by measuring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from compress.errors import PassError, RecipeError, did_you_mean
from compress.model.core import Model
from compress.passes.base import Change, Context, Meter, Skip, Timing
from compress.passes.prune.aim import TOLERANCE, TRIES, Shot, aim, nearest
from compress.passes.prune.allocate import Deal
from compress.passes.prune.costs import Costs
from compress.passes.prune.groups import Analysis, Group, cut
from compress.passes.prune.options import Options
from compress.passes.prune.plan import Planner, kept
from compress.passes.prune.table import measure_costs

# Processes of a whole model: each has its own ratio, and the median of them is what counts.
PROCESSES = 7
# Cuts that are measured at most in a step that is not the last.
_ON_THE_WAY = 3


def meter_of(options: Options, ctx: Context) -> Meter | None:
    """Returns what measures on the target that decides; None where nothing can be measured and nothing must be.

    Raises:
        RecipeError: If the recipe has no such target.
        PassError: If the goal is one of time and nothing can be measured.
    """
    if options.target is not None and options.target not in ctx.measure:
        raise RecipeError(
            f"{ctx.where}: target: the recipe has no target {options.target!r}",
            did_you_mean(options.target, ctx.measure),
        )
    if options.timed and not ctx.measure:
        raise PassError(
            f"prune.{options.goal}: there is no target to measure on",
            "give the goal as ratio or macs, or run the pass from a recipe with targets.",
        )
    return ctx.measure[options.target] if options.target is not None else next(iter(ctx.measure.values()), None)


@dataclass(frozen=True)
class TimeGoal:
    """A goal of time on one target.

    Attributes:
        options: The recipe's keys.
        meter: What measures on the target.
        original: The Model before the cut.
        whole_ms: What a call of it takes there.
        wanted: The share of that time that is wanted.
    """

    options: Options
    meter: Meter
    original: Model
    whole_ms: float
    wanted: float

    @classmethod
    def of(cls, options: Options, meter: Meter, model: Model) -> TimeGoal:
        """Times the Model as it came, and says which share of its time is wanted."""
        (timing,) = meter.race("the model as it came", [(model, model)], PROCESSES)
        whole_ms = timing.baseline_ms
        wanted = 1 / options.speedup if options.speedup is not None else (options.latency_ms or whole_ms) / whole_ms
        return cls(options, meter, model, whole_ms, wanted)

    @property
    def name(self) -> str:
        """The goal as a message says it."""
        return f"{self.options.goal} {getattr(self.options, self.options.goal or ''):g} on {self.meter.target}"

    @property
    def reached(self) -> bool:
        """Whether the Model as it came is quick enough."""
        return self.wanted >= 1

    @property
    def nothing_to_do(self) -> Skip:
        """Why nothing is cut."""
        return Skip(self.name, f"the model takes {self.whole_ms:.3g} ms as it came, which is no more than the goal")

    def share(self, done: float) -> float:
        """Returns the share of the time that is wanted when a share of the way is behind us."""
        return 1 - (1 - self.wanted) * done

    def costs(self, analysis: Analysis, groups: Sequence[Group], round_to: int) -> Costs:
        """Returns the milliseconds by the widths of the groups, from parts timed on the target."""
        return measure_costs(analysis, groups, round_to, self.meter, self.whole_ms)

    def towards(self, current: Model, deal: Deal, planner: Planner, costs: Costs, done: float) -> Mapping[str, int]:
        """Returns the widths that take a share of the way: measured, so that no step goes beyond the goal."""
        share = self.share(done)
        shots = self._shots(current, deal, planner, costs, share, done, _ON_THE_WAY)
        return nearest(shots, share).widths

    def aimed(
        self, current: Model, deal: Deal, planner: Planner, costs: Costs
    ) -> tuple[Mapping[str, int], Change, tuple[Skip, ...]]:
        """Returns the widths that meet the goal as measured, what to say of them, and what was missed.

        Args:
            current: The Model to cut.
            deal: How much the positions of its groups count.
            planner: What deals the goal.
            costs: The predicted milliseconds.

        Raises:
            PassError: If the goal cannot be reached; it says what can, as measured.
        """
        shots = self._shots(current, deal, planner, costs, self.wanted, 1.0, TRIES)
        shot = nearest(shots, self.wanted)
        if not shots[-1].met and shots[-1].timing.ratio > self.wanted * (1 + TOLERANCE):
            raise self._unreachable(shots[-1])
        said = Change(f"latency on {self.meter.target}", self._said(shot, len(shots)))
        return shot.widths, said, self._missed(shot, shots)

    def _shots(
        self, current: Model, deal: Deal, planner: Planner, costs: Costs, share: float, done: float, tries: int
    ) -> list[Shot]:
        def measure(widths: Mapping[str, int]) -> Timing:
            keep = kept(deal, widths)
            candidate = cut(current, keep) if keep else current
            (timing,) = self.meter.race(f"the cut model, {share:.2f} wanted", [(self.original, candidate)], PROCESSES)
            return timing

        return aim(share, lambda budget: planner.within(deal, costs, budget, done), measure, tries)

    def _said(self, shot: Shot, shots: int) -> str:
        timing = shot.timing
        off = timing.ratio / self.wanted - 1
        return (
            f"{timing.baseline_ms:.3g} -> {timing.ms:.3g} ms, measured in turns: {timing.ratio:.3f} "
            f"[{timing.low:.3f}, {timing.high:.3f}] of the time, a speed-up of {1 / timing.ratio:.2f}; "
            f"{100 * off:+.1f} % off the goal {self.wanted:.3f}, {shots} cuts measured"
        )

    def _missed(self, shot: Shot, shots: Sequence[Shot]) -> tuple[Skip, ...]:
        if abs(shot.timing.ratio / self.wanted - 1) <= TOLERANCE:
            return ()
        tried = ", ".join(f"{one.timing.ratio:.3f}" for one in shots)
        return (
            Skip(
                self.name,
                f"not met within {100 * TOLERANCE:g} %: {shot.timing.ratio:.3f} of the time where {self.wanted:.3f} is "
                f"wanted; the widths that round_to and floor allow, or noise, left nothing nearer (measured: {tried})",
            ),
        )

    def _unreachable(self, shot: Shot) -> PassError:
        timing = shot.timing
        can = f"{timing.ms:.3g}" if self.options.latency_ms is not None else f"{1 / timing.ratio:.3g}"
        wanted = getattr(self.options, self.options.goal or "")
        return PassError(
            f"prune.{self.options.goal}: {wanted:g} cannot be reached on {self.meter.target}; {can} can, as measured "
            "with every group at its least",
            "choose a smaller goal, a smaller floor or round_to, or exclude fewer layers.",
        )

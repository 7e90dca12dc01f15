"""What a recipe says of a cut: `[[passes]] kind = "prune"`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from compress.errors import RecipeError, did_you_mean
from compress.passes.base import PASSES
from compress.recipe import PassConfig
from compress.schema import Strict, validate

Kind = Literal["l1", "l2", "bn_scale", "activation", "taylor", "fisher"]
# Kinds that rows are needed for, and among them those that a gradient is.
FROM_ROWS = ("activation", "taylor", "fisher")
FROM_GRADIENTS = ("taylor", "fisher")
# Widths keep to it where neither the recipe nor a target says otherwise.
MULTIPLE = 8
Goal = Literal["ratio", "macs", "latency_ms", "speedup"]
GOALS: tuple[Goal, ...] = ("ratio", "macs", "latency_ms", "speedup")


class Options(Strict):
    """The keys of the pass.

    1. One goal: `ratio`, the share of positions that goes; `macs`, the share of multiply-adds that stays; `latency_ms`
       or `speedup` on `target` (the recipe's first by default). Or none, where `ratios` says it all.
    2. `allocation` deals it. `uniform` takes the same share of every group, `global` what counts least anywhere, `cost`
       what counts least for the multiply-adds or milliseconds that it saves. Every group keeps at least `floor`.
    3. `ratios` fixes the share that goes of the groups of some layers; of two patterns that match, the later wins.
    4. `include` and `exclude` are patterns on layer names. `round_to` is the multiple that widths keep to, where a
       group is at least twice as wide; by default the target's.
    5. The goal is reached in `steps`, importance being taken anew before each; `recover` is a pass that runs between.
    """

    ratio: float | None = Field(default=None, gt=0, lt=1)
    macs: float | None = Field(default=None, gt=0, lt=1)
    latency_ms: float | None = Field(default=None, gt=0)
    speedup: float | None = Field(default=None, gt=1)
    target: str | None = None
    importance: Kind = "l2"
    importance_rows: int = Field(default=128, ge=1)
    allocation: Literal["uniform", "global", "cost"] | None = None
    ratios: dict[str, Annotated[float, Field(ge=0, lt=1)]] = Field(default_factory=dict)
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    round_to: int | None = Field(default=None, ge=1, le=256)
    floor: float = Field(default=0.1, gt=0, lt=1)
    steps: int = Field(default=1, ge=1, le=100)
    recover: PassConfig | None = None
    statistics_rows: int = Field(default=512, ge=2)

    @model_validator(mode="after")
    def _consistent(self) -> Options:
        given = [name for name in GOALS if getattr(self, name) is not None]
        if len(given) > 1 or not (given or self.ratios):
            raise ValueError(
                "give one goal: ratio (what goes), macs (what stays of the multiply-adds), latency_ms or speedup"
                + (f"; got {' and '.join(given)}" if given else "")
            )
        if self.allocation == "cost" and self.goal in (None, "ratio"):
            raise ValueError('allocation = "cost" needs a goal that costs something: macs, latency_ms or speedup')
        if self.recover is not None and self.steps == 1:
            raise ValueError("recover runs between steps; give steps = 2 or more, or a [[passes]] of its own")
        return self

    @property
    def goal(self) -> Goal | None:
        """The key of the goal; None where `ratios` says it all."""
        return next((name for name in GOALS if getattr(self, name) is not None), None)

    @property
    def timed(self) -> bool:
        """Whether the goal is one that only a target can tell."""
        return self.goal in ("latency_ms", "speedup")

    @property
    def dealing(self) -> Literal["uniform", "global", "cost"]:
        """How the goal is dealt: by cost where it is one of time, unless the recipe says otherwise."""
        return self.allocation or ("cost" if self.timed else "uniform")

    @property
    def said(self) -> str:
        """The goal as a line of the lineage says it."""
        if self.goal is None:
            return "ratios " + ", ".join(f"{pattern} {share:g}" for pattern, share in self.ratios.items())
        return f"{self.goal} {getattr(self, self.goal):g}"


def read_options(values: Mapping[str, Any], where: str) -> Options:
    """Returns the checked keys of a recipe's pass.

    Args:
        values: The keys.
        where: What stands before a key's name in a message.

    Raises:
        RecipeError: If one is unknown or wrong.
    """
    options = validate(Options, values, where)
    if options.recover is not None and options.recover.kind not in PASSES.names():
        kind = options.recover.kind
        raise RecipeError(f"{where}: recover.kind: there is no pass {kind!r}", did_you_mean(kind, PASSES.names()))
    return options

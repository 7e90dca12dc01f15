"""The contract of a pass, and the runner that checks what a pass claims."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from compress.data.base import Dataset
from compress.errors import CompressError, InternalError, PassError
from compress.evidence import TrainingInfo
from compress.model.core import Model
from compress.recipe import QuantScheme
from compress.registry import Registry
from compress.target import Target


@dataclass(frozen=True)
class Change:
    """One thing that a pass did: `where` in the graph, `what` to it."""

    where: str
    what: str


@dataclass(frozen=True)
class Skip:
    """One thing that a pass left alone, and why."""

    where: str
    reason: str


@dataclass(frozen=True)
class PassResult:
    """A new Model, and everything that was done or not done to reach it.

    `ranges` are those of values of the new graph that a runtime must use instead of calibrated ones; `training` says
    how the pass trained, if it did.
    """

    model: Model
    changed: tuple[Change, ...]
    skipped: tuple[Skip, ...] = ()
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    training: TrainingInfo | None = None


@dataclass(frozen=True)
class Task:
    """What an output of the Model answers.

    Attributes:
        name: The task's name; empty where there is one only.
        kind: What the label is.
        output: The output that answers.
        label: The label that it answers.
        link: What the output holds, before (`logit`) or behind its sigmoid or softmax; None for regression.
    """

    name: str
    kind: Literal["binary", "multiclass", "regression"]
    output: str
    label: str
    link: Literal["logit", "probability"] | None = None


@dataclass(frozen=True)
class Timing:
    """Two Models timed in turns on a target, the second beside the first.

    Attributes:
        baseline_ms: Median of a call of the first.
        ms: Median of a call of the second.
        ratio: Time of the second / time of the first: median over the processes.
        low: Lower end of its interval.
        high: Upper end.
        processes: Number of worker processes, each with its own ratio.
    """

    baseline_ms: float
    ms: float
    ratio: float
    low: float
    high: float
    processes: int


class Meter(Protocol):
    """Times Models on a target, in its own runtime. Handed in by the workflow: a pass knows no runtime."""

    @property
    def target(self) -> str:
        """The target's name."""

    @property
    def machine(self) -> str:
        """The processor and its features, for the keys of what was measured there."""

    @property
    def width_multiple(self) -> int | None:
        """The multiple that widths keep to on this target; None where its file does not say."""

    def race(self, title: str, pairs: Sequence[tuple[Model, Model]], processes: int) -> list[Timing]:
        """Returns the timing of each pair; both Models of a pair are lowered, and run in turns in one process.

        Args:
            title: What is measured, for whoever waits.
            pairs: A baseline and what is compared with it.
            processes: How many processes a pair gets.

        Raises:
            LoweringError: If the runtime cannot take a Model.
            WorkerError: If a worker fails.
        """


@dataclass(frozen=True)
class Context:
    """What a pass may use beside the Model and the data.

    Attributes:
        seed: Of every draw.
        options: The pass's own keys in the recipe.
        where: What stands before an option's name in a message.
        folder: What paths in options are relative to.
        tasks: What the outputs answer; whoever needs a loss makes it of them.
        original: The Model as it came, before all passes: what a student learns from.
        schemes: What may be realised of the result, by name.
        targets: Where the result must run.
        measure: Target -> what measures there, in the order of the recipe; empty where nothing can be measured.
        work: Where unfinished work is kept, so that a run that is ended goes on from there; None to keep none.
        say: Told what is happening, a sentence at a time.
    """

    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    where: str = "passes"
    folder: Path = Path()
    tasks: tuple[Task, ...] = ()
    original: Model | None = None
    schemes: Mapping[str, QuantScheme] = field(default_factory=dict)
    targets: tuple[Target, ...] = ()
    measure: Mapping[str, Meter] = field(default_factory=dict)
    work: Path | None = None
    say: Callable[[str], None] = lambda sentence: None


class Pass(Protocol):
    """A function from a Model to a Model.

    1. The input Model stays untouched.
    2. The signature is kept.
    3. The same Model, data and seed give the same result.
    4. Whatever it did is in `changed`; whatever it could not do is in `skipped`, with the reason.
    """

    def apply(self, model: Model, data: Dataset | None, ctx: Context) -> PassResult:
        """Returns the new Model and what was done."""


@runtime_checkable
class ChecksOptions(Protocol):
    """A pass whose options can be checked before anything expensive happens."""

    def check(self, options: Mapping[str, Any], where: str) -> None:
        """Checks the options by themselves.

        Args:
            options: The pass's own keys in the recipe.
            where: What stands before a key's name in a message.

        Raises:
            RecipeError: If one is unknown or wrong.
        """


PASSES = Registry(
    "pass",
    "edge_compress.passes",
    {
        "clip_weights": "compress.passes.clip_weights:ClipWeights",
        "correct_bias": "compress.passes.correct_bias:CorrectBias",
        "drop_layers": "compress.passes.drop_layers:DropLayers",
        "equalize": "compress.passes.equalize:Equalize",
        "distill": "compress.passes.distill.distill:Distill",
        "fold_batch_norm": "compress.passes.fold_batch_norm:FoldBatchNorm",
        "low_rank": "compress.passes.low_rank:LowRank",
        "prune": "compress.passes.prune.prune:Prune",
        "recalibrate": "compress.passes.recalibrate.recalibrate:Recalibrate",
        "smooth": "compress.passes.smooth:Smooth",
        "sparsify_2_4": "compress.passes.sparsify_2_4:Sparsify24",
        "trim_vocabulary": "compress.passes.trim_vocabulary:TrimVocabulary",
        "qat": "compress.passes.qat.qat:Qat",
        "train": "compress.passes.train.train:Train",
    },
)


def run_pass(
    kind: str, model: Model, data: Dataset | None, ctx: Context, *, allow_no_change: bool = False
) -> PassResult:
    """Runs a registered pass and holds it to its contract.

    Args:
        kind: Its registered name.
        model: What goes in.
        data: Rows it may read; never the test split.
        ctx: Seed and options.
        allow_no_change: Whether a pass that changes nothing is fine.

    Raises:
        PassError: If the pass fails, or changes nothing.
        InternalError: If it breaks rule 1 or 2 of `Pass`, or changes the Model and reports nothing.
    """
    before = _fresh_digest(model)
    step: Pass = PASSES.load(kind)()
    try:
        result = step.apply(model, data, ctx)
    except CompressError:
        raise
    except Exception as error:
        done = " -> ".join(model.lineage)
        raise PassError(
            f"the pass {kind!r} failed after {done}: {type(error).__name__}: {error}",
            "this is a fault of the pass; leave it out of the recipe and report it.",
        ) from error
    if _fresh_digest(model) != before:
        raise InternalError(f"the pass {kind!r} changed its input Model", "a pass returns a new Model.")
    if result.model.signature != model.signature:
        raise InternalError(f"the pass {kind!r} changed the signature", "names, shapes and dtypes outside must stay.")
    if not result.changed and _fresh_digest(result.model) != before:
        raise InternalError(f"the pass {kind!r} changed the Model and reports no change", "a pass reports what it did.")
    if not result.changed and not allow_no_change:
        why = "; ".join(sorted({skip.reason for skip in result.skipped})) or "it found nothing to do"
        raise PassError(f"the pass {kind!r} changed nothing: {why}", "remove it, or set allow_no_change = true.")
    return result


def _fresh_digest(model: Model) -> str:
    # `digest` is cached on the Model; a pass that edits weights in place would slip past it.
    return Model(model.program, model.signature, model.lineage).digest

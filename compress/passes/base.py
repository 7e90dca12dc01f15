"""The contract of a pass, and the runner that checks what a pass claims."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from compress.data.base import Dataset
from compress.errors import CompressError, InternalError, PassError
from compress.model.core import Model
from compress.registry import Registry


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
    """A new Model, and everything that was done or not done to reach it."""

    model: Model
    changed: tuple[Change, ...]
    skipped: tuple[Skip, ...] = ()


@dataclass(frozen=True)
class Task:
    """A task as a pass sees it: which output answers which label, and what that output holds (None: a number).

    `name` is empty where the model has one task only.
    """

    name: str
    kind: Literal["binary", "multiclass", "regression"]
    output: str
    label: str
    link: Literal["logit", "probability"] | None


@dataclass(frozen=True)
class Context:
    """What a pass may use beside the Model and the data: seed, its options, and what is asked of the Model."""

    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    tasks: tuple[Task, ...] = ()


class Pass(Protocol):
    """A function from a Model to a Model.

    1. The input Model stays untouched.
    2. The signature is kept.
    3. The same Model, data and seed give the same result.
    4. Whatever it did is in `changed`; whatever it could not do is in `skipped`, with the reason.
    """

    def apply(self, model: Model, data: Dataset | None, ctx: Context) -> PassResult:
        """Returns the new Model and what was done."""


PASSES = Registry(
    "pass",
    "edge_compress.passes",
    {
        "drop_layers": "compress.passes.drop_layers:DropLayers",
        "fold_batch_norm": "compress.passes.fold_batch_norm:FoldBatchNorm",
        "low_rank": "compress.passes.low_rank:LowRank",
        "prune": "compress.passes.prune.prune:Prune",
        "recalibrate": "compress.passes.recalibrate.recalibrate:Recalibrate",
        "sparsify_2_4": "compress.passes.sparsify_2_4:Sparsify24",
        "trim_vocabulary": "compress.passes.trim_vocabulary:TrimVocabulary",
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

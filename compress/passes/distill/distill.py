"""The pass: a student that learns from a teacher."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from compress.data.base import Dataset
from compress.errors import RecipeError
from compress.model.core import Model, TensorInfo, state
from compress.model.silence import silenced
from compress.model.source import load_model
from compress.passes.base import Change, Context, PassResult
from compress.passes.distill.answers import Answers, keep_answers, row_bytes
from compress.passes.distill.objective import Distillation
from compress.passes.distill.options import DistillOptions
from compress.passes.distill.pairing import Pairing, pair
from compress.passes.train.memory import kept_memory
from compress.passes.train.network import Network, with_weights
from compress.passes.train.session import Session, open_session
from compress.recipe import ModelConfig
from compress.schema import validate


class Distill:
    """Trains a student on what a teacher answers, and on the labels where there are any.

    The student is the Model that comes in, or one that the recipe names; what comes out has its graph.
    """

    def check(self, options: Mapping[str, Any], where: str) -> None:
        """Checks the options by themselves; see `ChecksOptions`."""
        _options(options, where)

    def apply(self, model: Model, data: Dataset | None, ctx: Context) -> PassResult:
        """Trains; the student stays as it is where no epoch was better on the validation rows.

        Raises:
            RecipeError: If an option is unknown or wrong, or the two models cannot be compared as it says.
            PassError: If there are no rows, or training diverges.
        """
        options = _options(ctx.options, ctx.where)
        teacher = load_teacher(options, model, ctx)
        student, taken = _student(options, model, teacher, ctx)
        session = open_session("distill", student, data, ctx, options, unlabelled=True)
        pairing = pair(student, teacher, options, ctx.where)
        tell_pairs(pairing, ctx)
        answers = ask_teacher(session, options, teacher, pairing)
        network = session.network(student, taps=taps_of(pairing, student=True))
        objective = Distillation(session.losses, answers, pairing, options, ctx.seed, session.device)
        fitted = session.fit(network, objective, teacher=teacher.digest)
        info = session.info(fitted, session.score(teacher), pairing.told)
        skipped = (*pairing.skipped, *session.remarks(fitted))
        changed = list(taken)
        if fitted.weights:
            told = f"{len(fitted.weights)} tensors trained, epoch {fitted.best} of {len(fitted.epochs) - 1}"
            changed.append(Change("weights", told))
        if not changed:
            return PassResult(model, (), skipped, training=info)
        trained = with_weights(student, fitted.weights, "distill")
        result = model.with_program(trained.program, f"distill: from {teacher.lineage[0]}, {options.epochs} epochs")
        return PassResult(result, tuple(changed), skipped, training=info)


def load_teacher(options: DistillOptions, model: Model, ctx: Context) -> Model:
    """Returns the teacher that the options name; default: the Model as it came, before all passes.

    Raises:
        RecipeError: If it does not take and give what the Model does.
    """
    return _load(options.teacher, "teacher", model, ctx) or ctx.original or model


def tell_pairs(pairing: Pairing, ctx: Context) -> None:
    """Says what is compared inside, where anything is."""
    if pairing.told:
        ctx.say(f"pairs, student <- teacher: {'; '.join(pairing.told)}")


def ask_teacher(session: Session, options: DistillOptions, teacher: Model, pairing: Pairing) -> Answers:
    """Returns the teacher's answers, kept where that is right and small enough."""
    network = Network(teacher, session.device, taps=taps_of(pairing, student=False))
    rows = session.source
    if session.anew is not None:
        session.ctx.say("the teacher is asked anew for every batch: rows are augmented")
        return Answers(network)
    size = row_bytes(network, rows, teacher.arguments) * len(rows)
    if size > options.cache_gb * 1e9:
        session.ctx.say(f"the teacher is asked anew for every batch: {size / 1e9:.1f} GB is more than cache_gb")
        return Answers(network)
    folder = session.folder(
        "teacher",
        teacher=teacher.digest,
        rows=session.pool.fingerprint(),
        views=None if rows is session.pool else [options.augment.model_dump(mode="json"), session.ctx.seed],
        taps=network.taps,
    )
    with kept_memory():
        return keep_answers(network, rows, teacher.arguments, options.batch, folder, session.ctx.say)


def taps_of(pairing: Pairing, *, student: bool) -> tuple[str, ...]:
    """Every value that is compared, by node name, each once."""
    names = [(item.student if student else item.teacher).node for item in pairing.pairs]
    if pairing.relation is not None:
        inside = pairing.relation.student if student else pairing.relation.teacher
        names += [inside.query, inside.key, inside.value]
    # A mask is that of the rows, so one side's is enough.
    names += pairing.masks if student else ()
    return tuple(dict.fromkeys(names))


def _student(options: DistillOptions, model: Model, teacher: Model, ctx: Context) -> tuple[Model, tuple[Change, ...]]:
    made = _load(options.student, "student", model, ctx)
    named = options.student
    start = options.start or ("teacher" if named is not None and named.weights is None else "own")
    student = made or model
    changes = []
    if named is not None:
        changes.append(Change("graph", f"replaced by {named.source} {dict(named.arguments) or ''}".strip()))
    if start == "teacher":
        held = state(student.program)
        taken = {
            name: value
            for name, value in state(teacher.program).items()
            if name in held and held[name].shape == value.shape and held[name].dtype == value.dtype
        }
        if not taken:
            raise RecipeError(
                f'{ctx.where}.start = "teacher": no tensor has the same name and shape in both', 'use start = "own".'
            )
        student = replace(with_weights(student, taken, ""), lineage=student.lineage)
        changes.append(Change("start", f"{len(taken)} of {len(held)} tensors taken over from the teacher"))
    return student, tuple(changes)


def _load(config: ModelConfig | None, role: str, model: Model, ctx: Context) -> Model | None:
    """The Model that an option names; it takes and gives what the Model at hand does."""
    if config is None:
        return None
    where = f"{ctx.where}.{role}"
    with silenced("torch"), torch.random.fork_rng(devices=[]):
        torch.manual_seed(ctx.seed)
        made = load_model(config, model.signature.inputs, ctx.folder)
    if not isinstance(made, Model):
        raise RecipeError(f"{where}: {config.source} cannot become a graph: {made.reason}", "name another source.")
    if made.signature.outputs != model.signature.outputs or made.signature.inputs != model.signature.inputs:
        raise RecipeError(
            f"{where}: {config.source} takes {_shown(made.signature.inputs)} and gives "
            f"{_shown(made.signature.outputs)}; the model takes {_shown(model.signature.inputs)} and gives "
            f"{_shown(model.signature.outputs)}",
            "student and teacher need the same inputs and outputs.",
        )
    return made


def _shown(items: tuple[TensorInfo, ...]) -> str:
    return ", ".join(f"{item.name} {list(item.shape)}" for item in items)


def _options(options: Mapping[str, Any], where: str) -> DistillOptions:
    return validate(DistillOptions, dict(options), f"{where}: distill")

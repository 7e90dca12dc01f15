"""The pass: weights and ranges trained with the rounding that the targets will do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compress.calibrate import calibrate
from compress.data.base import Dataset
from compress.errors import RecipeError, did_you_mean
from compress.model.core import Model
from compress.passes.base import Change, Context, PassResult, Skip
from compress.passes.distill.distill import ask_teacher, load_teacher, taps_of, tell_pairs
from compress.passes.distill.objective import Distillation
from compress.passes.distill.pairing import pair
from compress.passes.fold_batch_norm import FoldBatchNorm
from compress.passes.qat.insert import Inserter, find_sites
from compress.passes.qat.options import QatOptions
from compress.passes.train.network import Network, with_weights
from compress.passes.train.session import Session, open_session
from compress.schema import validate

_ROWS = 512


class Qat:
    """Trains a Model with quantizers in its graph, taught by the float teacher; gives a float Model and ranges.

    Batch normalisation is folded first, as it is before every lowering: what is rounded here are the weights that a
    runtime will round, and the values have the names that it will ask for.
    """

    reads_targets = True

    def check(self, options: Mapping[str, Any], where: str) -> None:
        """Checks the options by themselves; see `ChecksOptions`."""
        _options(options, where)

    def apply(self, model: Model, data: Dataset | None, ctx: Context) -> PassResult:
        """Trains; the Model stays as it is where rounding without training was as good, or good enough.

        Raises:
            RecipeError: If an option is unknown or wrong, or the scheme rounds nothing.
            PassError: If there are no rows, or training diverges.
        """
        options = _options(ctx.options, ctx.where)
        if options.scheme not in ctx.schemes:
            raise RecipeError(
                f"{ctx.where}.scheme: there is no scheme {options.scheme!r}", did_you_mean(options.scheme, ctx.schemes)
            )
        folding = FoldBatchNorm().apply(model, data, ctx)
        folded = folding.model
        sites = find_sites(folded, ctx.schemes[options.scheme], ctx.targets, ctx.where)
        teacher = load_teacher(options, model, ctx)
        session = open_session("qat", folded, data, ctx, options, unlabelled=True)
        inserter = Inserter(sites, _first_bounds(session, sites.values))
        pairing = pair(folded, teacher, options, ctx.where)
        tell_pairs(pairing, ctx)
        network = session.network(folded, taps=taps_of(pairing, student=True), prepare=inserter)
        enough = _good_enough(session, network, folded, options)
        if enough:
            return PassResult(model, (), (*sites.skipped, Skip("weights", enough)))
        answers = ask_teacher(session, options, teacher, pairing)
        objective = Distillation(session.losses, answers, pairing, options, ctx.seed, session.device)
        fitted = session.fit(network, objective, teacher=teacher.digest, sites=repr(sites))
        info = session.info(fitted, session.score(teacher), pairing.told)
        skipped = (*sites.skipped, *folding.skipped, *pairing.skipped, *session.remarks(fitted))
        if not fitted.weights:
            return PassResult(model, (), skipped, training=info)
        network.load(fitted.weights)
        trained = with_weights(folded, fitted.weights, "qat")
        result = model.with_program(trained.program, f"qat: {options.scheme}, {options.epochs} epochs")
        ranges = inserter.ranges()
        changed = (
            *folding.changed,
            Change(
                "weights",
                f"{len(trained.program.state_dict)} tensors, epoch {fitted.best} of "
                f"{len(fitted.epochs) - 1}, {len(sites.layers)} layers rounded ({2 * sites.limit + 1} steps a weight)",
            ),
            Change("ranges", f"{len(ranges)} values have ranges that were trained"),
        )
        return PassResult(result, changed, skipped, ranges=ranges, training=info)


def _first_bounds(session: Session, values: tuple[str, ...]) -> dict[str, tuple[float, float]]:
    """What training begins with: the ranges over calibration rows."""
    rows = session.data.sample("calibration", _ROWS, session.ctx.seed)
    found = calibrate(session.model, session.data.batches_of(rows, session.options.batch))
    return {name: found.of(name) for name in values}


def _good_enough(session: Session, network: Network, folded: Model, options: QatOptions) -> str:
    """Why nothing needs to be trained; empty where something does."""
    if options.if_loss_above is None or session.validator is None:
        return ""
    before = session.score(folded)
    after = session.validator(lambda inputs: network(inputs)[0], session.device)
    if before is None:
        return ""
    by_metric = options.monitor == "metric" and before.metric is not None and after.metric is not None
    if by_metric:
        lost, name = (before.metric or 0.0) - (after.metric or 0.0), session.validator.metric
    else:
        lost, name = after.loss - before.loss, "loss"
    if lost > options.if_loss_above:
        return ""
    return (
        f"rounding without training costs {lost:.4f} of {name}, no more than if_loss_above = {options.if_loss_above:g}"
    )


def _options(options: Mapping[str, Any], where: str) -> QatOptions:
    return validate(QatOptions, dict(options), f"{where}: qat")

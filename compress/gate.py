"""The gate: (Evidence, Policy) -> Verdict. Pure: every candidate gets a verdict, from its figures alone.

1. A loss passes when its interval's bad end lies within the margin, fails when the whole interval lies beyond, and
   is INCONCLUSIVE between the two, with the number of rows that would settle it (non-inferiority).
2. Every other rule is a bound on one figure: within it PASS, beyond it FAIL.
3. A figure that a rule needs and that is missing or not finite is INCOMPARABLE, never a pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from compress.evidence import Candidate, GateStatus, Metric, RuleResult, TargetEvidence, Verdict
from compress.recipe import GateConfig
from compress.search.wording import decimals_for, percent, span
from compress.target import Budgets

_ORDER: tuple[GateStatus, ...] = ("PASS", "INCONCLUSIVE", "INCOMPARABLE", "FAIL")
EXIT_CODES: dict[GateStatus, int] = {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3, "INCOMPARABLE": 3}

# Beyond this nobody collects rows: the estimate lies on the margin, as far as anyone can tell.
_ROWS_MAX = 10**12


def judge(candidate: Candidate, policy: GateConfig, budgets: Budgets) -> Verdict:
    """Returns the verdict on one candidate: the worst of its rules, and all of them.

    The reasons are predicates, to be read after the scheme's name: "loses 0.0061 AUC (0.0042-0.0080), more than
    the margin 0.003".

    Args:
        candidate: What was measured.
        policy: Margins and bounds of the recipe.
        budgets: Hard bounds of the target.
    """
    if candidate.error:
        rules: tuple[RuleResult, ...] = (
            RuleResult("measured", "INCOMPARABLE", f"could not be measured: {candidate.error}"),
        )
    else:
        rules = (*_losses(candidate, policy), *_fidelity(candidate, policy), *_within_budgets(candidate, budgets))
    return Verdict(worst(rule.status for rule in rules), rules)


def worst(statuses: Iterable[GateStatus]) -> GateStatus:
    """Returns the worst in the order PASS, INCONCLUSIVE, INCOMPARABLE, FAIL; of none at all, INCOMPARABLE."""
    return max(statuses, key=_ORDER.index, default="INCOMPARABLE")


def overall(targets: Sequence[TargetEvidence]) -> tuple[GateStatus, int]:
    """Returns the status of a run and the exit code of the command.

    0 when every target ships a scheme that passed. Otherwise the worst of the targets that do not: 1 when a rule
    failed there, 3 when nothing failed but something was not told apart, not comparable or not measured.
    """
    status = worst(_of_target(target) for target in targets)
    return status, EXIT_CODES[status]


def _of_target(target: TargetEvidence) -> GateStatus:
    chosen = target.choice.scheme
    if chosen is not None and chosen in target.verdicts and not target.error:
        return target.verdicts[chosen].status
    # A scheme may have passed and yet not ship, for want of something to compare it with: that is no pass.
    held_back = [verdict.status for verdict in target.verdicts.values() if verdict.status != "PASS"]
    return worst([*held_back, "INCOMPARABLE"] if target.error else held_back)


def _losses(candidate: Candidate, policy: GateConfig) -> Iterator[RuleResult]:
    margins = (
        ("auc", "AUC", policy.auc_margin),
        ("log_loss", "log-loss", policy.log_loss_margin),
        ("brier", "Brier score", policy.brier_margin),
        ("ks", "KS", policy.ks_margin),
    )
    for name, title, margin in margins:
        if margin is not None:
            yield RuleResult(f"{name}_margin", *_non_inferior(candidate.metric(name), title, margin))


def _non_inferior(metric: Metric | None, title: str, margin: float) -> tuple[GateStatus, str]:
    if metric is None:
        return "INCOMPARABLE", f"has no {title} beside a baseline: it was not measured"
    if metric.value is None or metric.difference is None:
        return "INCOMPARABLE", f"has no {title} beside a baseline: {metric.note or 'it is undefined on these rows'}"
    if metric.interval is None:
        return "INCONCLUSIVE", f"may lose {title}: {metric.note or 'the difference has no interval'}"
    sign = -1 if metric.higher_is_better else 1
    loss = sign * metric.difference
    good, bad = sorted((sign * metric.interval.low, sign * metric.interval.high))
    if not all(math.isfinite(figure) for figure in (loss, good, bad)):
        return "INCOMPARABLE", f"has a difference in {title} that is not finite"
    said = _said(loss, good, bad, title, decimals_for(margin), higher_is_better=metric.higher_is_better)
    if bad <= margin:
        return "PASS", f"{said}, within the margin {margin:g}"
    if good > margin:
        return "FAIL", f"{said}, more than the margin {margin:g}"
    rows = _rows_to_settle(metric.rows, loss, good, bad, margin)
    settled = f"about {rows:,} rows would" if rows else "the estimate lies on it, so more rows may not either"
    return (
        "INCONCLUSIVE",
        f"{said}: {metric.rows:,} rows do not tell whether it stays within the margin {margin:g}, {settled}",
    )


def _said(loss: float, good: float, bad: float, title: str, decimals: int, *, higher_is_better: bool) -> str:
    """The loss or gain with its interval: "loses 0.0061 AUC (0.0042-0.0080)"."""
    if loss < 0:
        verb = "gains" if higher_is_better else "saves"
        return f"{verb} {-loss:z.{decimals}f} {title} {span(-bad, -good, decimals)}"
    return f"{'loses' if higher_is_better else 'adds'} {loss:z.{decimals}f} {title} {span(good, bad, decimals)}"


def _rows_to_settle(rows: int, loss: float, good: float, bad: float, margin: float) -> int | None:
    """The rows with which the interval would clear the margin if the estimate stayed: its width goes as 1/sqrt(rows).

    Rounded up to two digits; None where no practical number does.
    """
    width = bad - loss if loss < margin else loss - good
    distance = abs(margin - loss)
    if not distance:
        return None
    shrink = width / distance
    needed = rows * shrink * shrink
    if not 0 < needed <= _ROWS_MAX:
        return None
    unit = int(10 ** max(0, math.floor(math.log10(needed)) - 1))
    return max(rows + 1, math.ceil(needed / unit) * unit)


def _fidelity(candidate: Candidate, policy: GateConfig) -> Iterator[RuleResult]:
    if policy.min_agreement > 0:
        agreement = candidate.metric("agreement")
        yield _AGREEMENT.judge(agreement.value if agreement else None, policy.min_agreement)
    if policy.min_sqnr_db is None:
        return
    if not candidate.parity:
        yield RuleResult("min_sqnr_db", "INCOMPARABLE", "has no parity with its reference: it was not measured")
    for item in candidate.parity:
        rule = _Bound(
            f"min_sqnr_db {item.output}",
            f"gives {item.output} with {{}} SQNR against {item.reference}",
            f"has no SQNR for {item.output}",
            lambda value: f"{value:.1f} dB",
            at_least=True,
        )
        if item.sqnr_db is None:
            yield RuleResult(rule.rule, "PASS", f"gives {item.output} exactly as {item.reference}")
        else:
            yield rule.judge(item.sqnr_db, policy.min_sqnr_db)


def _within_budgets(candidate: Candidate, budgets: Budgets) -> Iterator[RuleResult]:
    latency, artifact, memory, placement = candidate.latency, candidate.artifact, candidate.memory, candidate.placement
    if budgets.latency_ms is not None:
        yield _LATENCY.judge(latency.median_ms if latency else None, budgets.latency_ms)
    if budgets.size_bytes is not None:
        yield _SIZE.judge(artifact.size_bytes if artifact else None, budgets.size_bytes)
    if budgets.memory_bytes is not None:
        yield _MEMORY.judge(memory.above_empty_bytes if memory else None, budgets.memory_bytes)
    if budgets.min_accelerated is not None:
        known = placement is not None and placement.total > 0
        yield _ACCELERATED.judge(placement.share if placement and known else None, budgets.min_accelerated)


@dataclass(frozen=True)
class _Bound:
    """A bound on one figure: `text` says the figure in place of `{}`, `form` writes it, `missing` says its absence."""

    rule: str
    text: str
    missing: str
    form: Callable[[float], str]
    at_least: bool = False

    def judge(self, value: float | None, bound: float) -> RuleResult:
        """Compares the figure with its bound."""
        if value is None or not math.isfinite(value):
            return RuleResult(self.rule, "INCOMPARABLE", self.missing)
        within = value >= bound if self.at_least else value <= bound
        shown = self.form(value)
        if shown == self.form(bound) and value != bound:
            shown = repr(float(value))
        relations = ("at least", "less than") if self.at_least else ("within", "more than")
        relation = relations[0 if within else 1]
        said = self.text.replace("{}", shown)
        return RuleResult(self.rule, "PASS" if within else "FAIL", f"{said}, {relation} the bound {self.form(bound)}")


def _bytes(value: float) -> str:
    return f"{value:,.0f} bytes"


_AGREEMENT = _Bound(
    "min_agreement",
    "decides {} of the rows as the baseline does",
    "has no agreement with the baseline's decisions: it was not measured",
    percent,
    at_least=True,
)
_LATENCY = _Bound(
    "latency_ms",
    "takes {} a call (median)",
    "has no latency: it was not measured",
    lambda value: f"{value:.4g} ms",
)
_SIZE = _Bound("size_bytes", "is a file of {}", "has no file", _bytes)
_MEMORY = _Bound(
    "memory_bytes",
    "needs {} of memory above an empty worker",
    "has no memory figure: it was not measured",
    _bytes,
)
_ACCELERATED = _Bound(
    "min_accelerated",
    "runs {} of its operators on the accelerated path",
    "has no placement: it is not known which operators are accelerated",
    percent,
    at_least=True,
)

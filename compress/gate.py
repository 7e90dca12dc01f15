"""The gate: (Evidence, Policy) -> Verdict. Pure: every candidate gets a verdict, from its figures alone.

1. A loss passes when its interval's bad end lies within the margin, fails when the whole interval lies beyond, and
   is INCONCLUSIVE between the two, with the number of rows that would settle it (non-inferiority).
   It does not pass either where rows too rare to be among these could hide a loss beyond the margin.
2. Every other rule is a bound on one figure: within it PASS, beyond it FAIL.
3. A figure that a rule needs and that is missing or not finite is INCOMPARABLE, never a pass.
4. Every task of a candidate is judged; with several, rules and reasons name the task.
5. What a review of a task found (decisions, segments, explanations) is judged by the rules of `gate_review`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from compress.evidence import Candidate, GateStatus, Leak, Metric, RuleResult, TargetEvidence, Verdict
from compress.gate_review import judge_leaks, judge_reviews
from compress.recipe import GateConfig
from compress.search.wording import (
    decimals_for,
    has_several_tasks,
    of_task,
    percent,
    rows_to_settle,
    span,
    title,
    whole_rows,
)
from compress.target import Budgets

_ORDER: tuple[GateStatus, ...] = ("PASS", "INCONCLUSIVE", "INCOMPARABLE", "FAIL")
EXIT_CODES: dict[GateStatus, int] = {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3, "INCOMPARABLE": 3}

# The primary metrics of tasks that decide: there must be an agreement beside them.
_OF_DECISIONS = ("auc", "top_1")


def judge(
    candidate: Candidate,
    policy: GateConfig,
    budgets: Budgets,
    margins: Mapping[str, float] = MappingProxyType({}),
    leaks: Sequence[Leak] | None = None,
    claimed: Sequence[str] = (),
) -> Verdict:
    """Returns the verdict on one candidate: the worst of its rules, and all of them, the worst first.

    The reasons are predicates, to be read after the scheme's name: "loses 0.0061 AUC (0.0042-0.0080), more than
    the margin 0.003"; with several tasks "loses 0.0061 AUC of default (0.0042-0.0080), ...".

    Args:
        candidate: What was measured.
        policy: Margins and bounds of the recipe. A margin holds for the metric of its name in every task; a metric that
            no task has is not gated.
        budgets: Hard bounds of the target.
        margins: Task to the margin of its primary metric, for tasks that have their own instead of the policy's.
        leaks: Test rows that are in other splits too; None where nobody looked.
        claimed: Names of the places whose processors the target claims to be right on.
    """
    if candidate.error:
        rules: tuple[RuleResult, ...] = (
            RuleResult("measured", "INCOMPARABLE", f"could not be measured: {candidate.error}"),
        )
    else:
        rules = (
            *_losses(candidate, policy, margins),
            *_agreements(candidate, policy),
            *_parities(candidate, policy),
            *_elsewhere(candidate, policy, claimed),
            *judge_reviews(candidate, policy),
            *judge_leaks(leaks, policy),
            *_within_budgets(candidate, policy, budgets),
        )
    # A reason that is cut short must end after what failed, not after what is merely unsettled.
    ordered = sorted(rules, key=lambda rule: _ORDER.index(rule.status), reverse=True)
    return Verdict(worst(rule.status for rule in rules), tuple(ordered))


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


def _losses(candidate: Candidate, policy: GateConfig, margins: Mapping[str, float]) -> Iterator[RuleResult]:
    several = has_several_tasks(candidate)
    if not candidate.primary:
        yield RuleResult("quality", "INCOMPARABLE", "has no quality beside a baseline: it was not measured")
    for metric in candidate.metrics:
        margin: float | None = getattr(policy, f"{metric.name}_margin", None)
        if metric.primary:
            margin = margins.get(metric.task, margin)
        if margin is not None:
            name = of_task(title(metric.name), metric.task, several=several)
            yield RuleResult(_rule(f"{metric.name}_margin", metric.task, several), *_non_inferior(metric, name, margin))
    judged = {metric.task for metric in candidate.primary}
    for task in margins:
        if candidate.primary and task not in judged:
            reason = f"has no quality of {task} beside a baseline: it was not measured"
            yield RuleResult(_rule("quality", task, True), "INCOMPARABLE", reason)


def _rule(name: str, task: str, several: bool) -> str:
    return f"{name}[{task}]" if several else name


def _non_inferior(metric: Metric, name: str, margin: float) -> tuple[GateStatus, str]:
    if metric.value is None or metric.difference is None:
        return "INCOMPARABLE", f"has no {name} beside a baseline: {metric.note or 'it is undefined on these rows'}"
    if metric.interval is None:
        verb = "lose" if metric.higher_is_better else "add"
        return "INCONCLUSIVE", f"may {verb} {name}: {metric.note or 'the difference has no interval'}"
    sign = -1 if metric.higher_is_better else 1
    loss = sign * metric.difference
    good, bad = sorted((sign * metric.interval.low, sign * metric.interval.high))
    if not all(math.isfinite(figure) for figure in (loss, good, bad)):
        return "INCOMPARABLE", f"has a difference in {name} that is not finite"
    said = _said(loss, good, bad, name, decimals_for(margin), higher_is_better=metric.higher_is_better)
    if bad <= margin:
        if metric.unseen is not None and loss + metric.unseen > margin:
            return "INCONCLUSIVE", f"{said}, within the margin {margin:g}; {_rare(metric, loss, margin)}"
        return "PASS", f"{said}, within the margin {margin:g}"
    if good > margin:
        return "FAIL", f"{said}, more than the margin {margin:g}"
    rows = rows_to_settle(metric.rows, loss, good, bad, margin)
    settled = f"about {rows:,} rows would" if rows else "the estimate lies on it, so more rows may not either"
    return (
        "INCONCLUSIVE",
        f"{said}: {metric.rows:,} rows do not tell whether it stays within the margin {margin:g}, {settled}",
    )


def _rare(metric: Metric, loss: float, margin: float) -> str:
    """Why a loss within the margin is not settled: rows that are hit hard, but seldom, may not be among these."""
    unseen = metric.unseen or 0.0
    rows = whole_rows(metric.rows * unseen / (margin - loss)) if margin > loss else None
    settled = f"about {rows:,} rows would tell" if rows else "no number of rows would tell"
    return f"but {metric.rows:,} rows miss a rare loss of {unseen:.2g} one time in twenty: {settled}"


def _said(loss: float, good: float, bad: float, name: str, decimals: int, *, higher_is_better: bool) -> str:
    """The loss or gain with its interval: "loses 0.0061 AUC (0.0042-0.0080)"."""
    if loss < 0:
        verb = "gains" if higher_is_better else "saves"
        return f"{verb} {-loss:z.{decimals}f} {name} {span(-bad, -good, decimals)}"
    return f"{'loses' if higher_is_better else 'adds'} {loss:z.{decimals}f} {name} {span(good, bad, decimals)}"


def _agreements(candidate: Candidate, policy: GateConfig) -> Iterator[RuleResult]:
    """One rule a task that decides; a task without decisions (regression) has no agreement to bound."""
    if policy.min_agreement <= 0:
        return
    several = has_several_tasks(candidate)
    shares = {metric.task: metric.value for metric in candidate.metrics if metric.name == "agreement"}
    deciding = {metric.task: None for metric in candidate.primary if metric.name in _OF_DECISIONS}
    for task, share in (deciding | shares).items():
        missing = of_task("has no agreement with the baseline's decisions", task, several=several)
        bound = _Bound(
            _rule("min_agreement", task, several),
            f"decides {of_task('{} of the rows', task, several=several)} as the baseline does",
            f"{missing}: it was not measured",
            percent,
            at_least=True,
        )
        yield bound.judge(share, policy.min_agreement)


def _parities(candidate: Candidate, policy: GateConfig) -> Iterator[RuleResult]:
    if policy.min_sqnr_db is None:
        return
    if not candidate.fidelity:
        yield RuleResult("min_sqnr_db", "INCOMPARABLE", "has no parity with its reference: it was not measured")
    for item in candidate.fidelity:
        rule = _Bound(
            f"min_sqnr_db[{item.output}]",
            f"gives {item.output} with {{}} SQNR against {item.reference}",
            f"has no SQNR for {item.output}",
            lambda value: f"{value:.1f} dB",
            at_least=True,
        )
        if item.sqnr_db is None:
            yield RuleResult(rule.rule, "PASS", f"gives {item.output} exactly as {item.reference}")
        else:
            yield rule.judge(item.sqnr_db, policy.min_sqnr_db)


def _elsewhere(candidate: Candidate, policy: GateConfig, claimed: Sequence[str]) -> Iterator[RuleResult]:
    """Two rules a place and output: the same decisions, and outputs that stay close, as far as these are bounded."""
    if policy.min_parity_agreement <= 0 and policy.max_parity_difference is None:
        return
    for place, reason in candidate.unchecked:
        if place in claimed:
            yield RuleResult(f"parity[{place}]", "INCOMPARABLE", f"was not checked on {place}: {reason}")
    for item in candidate.elsewhere:
        if item.place not in claimed:
            continue
        about = f"{item.place} {item.output}"
        if policy.min_parity_agreement > 0 and item.label_agreement is not None:
            yield _Bound(
                f"min_parity_agreement[{about}]",
                f"decides {{}} of {item.rows:,} rows on {item.place} as it does here",
                "",
                percent,
                at_least=True,
            ).judge(item.label_agreement, policy.min_parity_agreement)
        if policy.max_parity_difference is not None:
            yield _Bound(
                f"max_parity_difference[{about}]",
                f"gives {item.output} on {item.place} with a difference of up to {{}} of its range",
                f"gives another constant {item.output} on {item.place}",
                percent,
            ).judge(item.range_share, policy.max_parity_difference)


def _within_budgets(candidate: Candidate, policy: GateConfig, budgets: Budgets) -> Iterator[RuleResult]:
    """The bounds on what a file costs: those of the policy hold on every target, a budget on its own."""
    latency, artifact, memory, placement = candidate.latency, candidate.artifact, candidate.memory, candidate.placement
    known = placement is not None and placement.total > 0
    figures = (
        (_LATENCY, latency.median_ms if latency else None, policy.max_latency_ms, budgets.latency_ms),
        (_SIZE, artifact.size_bytes if artifact else None, policy.max_size_bytes, budgets.size_bytes),
        (_MEMORY, memory.above_empty_bytes if memory else None, policy.max_memory_bytes, budgets.memory_bytes),
        (
            _ACCELERATED,
            placement.share if placement and known else None,
            policy.min_accelerated,
            budgets.min_accelerated,
        ),
    )
    for bound, figure, of_policy, of_target in figures:
        if of_policy is not None:
            yield bound.judge(figure, of_policy)
        if of_target is not None:
            yield replace(bound, rule=bound.rule.removeprefix("max_")).judge(figure, of_target)


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


_LATENCY = _Bound(
    "max_latency_ms",
    "takes {} a call (median)",
    "has no latency: it was not measured",
    lambda value: f"{value:.4g} ms",
)
_SIZE = _Bound("max_size_bytes", "is a file of {}", "has no file", _bytes)
_MEMORY = _Bound(
    "max_memory_bytes",
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

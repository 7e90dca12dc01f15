"""The rules of the gate on the review of a task: decisions, stability, calibration, segments, fairness, explanations.

1. A harm is a figure of which more is worse. It passes when its interval's bad end lies within the bound, fails when
   the whole interval lies beyond, and is INCONCLUSIVE between the two, with the rows that would settle it.
2. A rule over segments passes when each of them does. To fail, one must lie beyond with an interval that holds for all
   of them together (Bonferroni): among many segments one looks bad by chance.
3. Small segments and those without an interval are judged by no rule; the reason names them.
4. Rules of default bounds apply where there is a review; a rule that the recipe names itself is INCOMPARABLE without.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from compress.evidence import Candidate, GateStatus, Leak, RuleResult
from compress.recipe import GateConfig
from compress.review import Bands, Decisions, Explanation, Figure, Interval, Review, Segment
from compress.search.wording import of_task, percent, rows_to_settle

FOUR_FIFTHS = 0.8
Form = Callable[[float], str]


@dataclass(frozen=True)
class Harm:
    """A figure of which more is worse, with its interval; `where` says which segment or column it belongs to."""

    estimate: float
    low: float
    high: float
    rows: int
    where: str = ""


def judge_reviews(candidate: Candidate, policy: GateConfig) -> Iterator[RuleResult]:
    """Yields the rules of every review; with several tasks rules and reasons name the task."""
    several = len(candidate.reviews) > 1
    rules = [rule for rule in _RULES if getattr(policy, rule.name) is not None]
    for review in candidate.reviews:
        for rule in rules:
            found = rule.judge(review, getattr(policy, rule.name), rule.name in policy.model_fields_set)
            if found is not None:
                name = f"{found.rule}[{review.task}]" if several else found.rule
                yield RuleResult(name, found.status, of_task(found.reason, review.task, several=several))
        if policy.four_fifths:
            yield from _four_fifths(review, several=several)
    if not candidate.reviews:
        for rule in rules:
            if rule.name in policy.model_fields_set:
                yield RuleResult(rule.name, "INCOMPARABLE", f"has no {rule.what}: it was not measured")


def judge_leaks(leaks: Sequence[Leak] | None, policy: GateConfig) -> Iterator[RuleResult]:
    """Yields the rule `leakage`: the share of test rows whose inputs are also in another split."""
    if policy.max_leaked_rows is None:
        return
    if leaks is None:
        if "max_leaked_rows" in policy.model_fields_set:
            yield RuleResult("leakage", "INCOMPARABLE", "has test rows that were not compared with the other splits")
        return
    worst = max(leaks, key=lambda leak: leak.rows / max(1, leak.split_rows), default=None)
    if worst is None:
        yield RuleResult("leakage", "PASS", "was tested on rows of which none is in another split")
        return
    share = worst.rows / max(1, worst.split_rows)
    within = share <= policy.max_leaked_rows
    relation = "within" if within else "more than"
    said = f"was tested on {worst.rows:,} rows ({percent(share)}) whose inputs are also in the {worst.other} split"
    status: GateStatus = "PASS" if within else "FAIL"
    yield RuleResult("leakage", status, f"{said}, {relation} the bound {percent(policy.max_leaked_rows)}")


@dataclass(frozen=True)
class _Rule:
    """One rule: the policy's key, what it looks at, how it finds harms in a review, how it words one.

    `find` gives None where the review has no such part, and the harms otherwise; `form` writes a figure, `says` the
    predicate with `{}` in place of the figure, `says_less` that of a harm below zero, which is a gain. `kinds` are the
    tasks that have such a figure at all.
    """

    name: str
    what: str
    says: str
    find: Callable[[Review], tuple[Sequence[Harm], str] | None]
    form: Form
    kinds: tuple[str, ...] = ("binary",)
    says_less: str = ""

    def judge(self, review: Review, bound: float, named: bool) -> RuleResult | None:
        """Returns the result; None where the task has no such figure and nobody asked for it by name."""
        if review.kind not in self.kinds:
            return None
        found = self.find(review)
        if found is None or not found[0]:
            if not named:
                return None
            return RuleResult(self.name, "INCOMPARABLE", f"has no {self.what}{_because(found)}")
        harms, left_out = found
        return self._of(harms, left_out, bound)

    def _of(self, harms: Sequence[Harm], left_out: str, bound: float) -> RuleResult:
        for harm in harms:
            if not all(math.isfinite(end) for end in (harm.estimate, harm.low, harm.high)):
                return RuleResult(self.name, "INCOMPARABLE", f"has no finite {self.what}{harm.where}")
        widened = _bonferroni(len(harms))
        # Told by how far beyond the bound: what surely lies beyond, then what may.
        surely = max(harms, key=lambda harm: harm.estimate - (harm.estimate - harm.low) * widened)
        maybe = max(harms, key=lambda harm: harm.high)
        if surely.estimate - (surely.estimate - surely.low) * widened > bound:
            return RuleResult(self.name, "FAIL", f"{self._said(surely)}, more than the bound {self.form(bound)}")
        more = f"; {left_out}" if left_out else ""
        if maybe.high <= bound:
            within = f"{self._said(maybe)}, within the bound {self.form(bound)}{more}"
            return RuleResult(self.name, "PASS", within)
        rows = rows_to_settle(maybe.rows, maybe.estimate, maybe.low, maybe.high, bound)
        settled = f"about {rows:,} rows would" if rows else "the estimate lies on it, so more rows may not either"
        reason = f"{self._said(maybe)}: {maybe.rows:,} rows do not tell whether it stays within the bound"
        return RuleResult(self.name, "INCONCLUSIVE", f"{reason} {self.form(bound)}, {settled}")

    def _said(self, harm: Harm) -> str:
        ends, says = (harm.low, harm.high), self.says
        if self.says_less and harm.estimate < 0:
            ends, says = (-harm.high, -harm.low), self.says_less
        said = f"{says.replace('{}', self.form(abs(harm.estimate)), 1)}{harm.where}"
        return said if harm.low == harm.high else f"{said} ({self.form(ends[0])} to {self.form(ends[1])})"


def _because(found: tuple[Sequence[Harm], str] | None) -> str:
    return f": {found[1]}" if found and found[1] else ": it was not measured"


def _bonferroni(number: int) -> float:
    """How much wider a normal 95 % interval is that holds for so many figures together."""
    from statistics import NormalDist

    normal = NormalDist()
    return normal.inv_cdf(1 - 0.025 / max(1, number)) / normal.inv_cdf(0.975)


def _decisions(review: Review) -> Decisions | None:
    return next((item for item in review.decisions if item.task_cutoff), None)


def _figure(figures: Sequence[Figure], name: str) -> Figure | None:
    return next((item for item in figures if item.name == name), None)


def _increase(figure: Figure | None, rows: int, where: str = "", sign: int = 1, scale: float = 1.0) -> Harm | None:
    """The figure's change as a harm: more of it is worse with sign 1, less of it with -1."""
    if figure is None or figure.difference is None or figure.interval is None:
        return None
    low, high = sorted((sign * figure.interval.low / scale, sign * figure.interval.high / scale))
    return Harm(sign * figure.difference / scale, low, high, rows, where)


def _either_way(figure: Figure | None, rows: int, where: str = "") -> Harm | None:
    """The size of a figure's change, whatever its direction."""
    harm = _increase(figure, rows, where)
    if harm is None:
        return None
    far = max(abs(harm.low), abs(harm.high))
    near = 0.0 if harm.low <= 0 <= harm.high else min(abs(harm.low), abs(harm.high))
    return Harm(abs(harm.estimate), near, far, rows, where)


def _one(harm: Harm | None) -> tuple[Sequence[Harm], str] | None:
    return None if harm is None else ((harm,), "")


def _flips(review: Review) -> tuple[Sequence[Harm], str] | None:
    decisions = _decisions(review)
    if decisions is None or decisions.flipped.interval is None:
        return None
    flipped, interval = decisions.flipped, decisions.flipped.interval
    return _one(Harm(flipped.count / flipped.rows, interval.low, interval.high, flipped.rows))


def _approval(review: Review) -> tuple[Sequence[Harm], str] | None:
    decisions = _decisions(review)
    if decisions is None:
        return None
    return _one(_either_way(_figure(decisions.figures, "approval_rate"), review.rows))


def _psi(review: Review) -> tuple[Sequence[Harm], str] | None:
    bands: Bands | None = review.bands
    if bands is None:
        return None
    if bands.psi is None:
        return (), bands.note
    interval: Interval = bands.psi_interval or Interval(bands.psi, bands.psi, 0.95, "none")
    return _one(Harm(bands.psi, interval.low, interval.high, review.rows))


def _ece(review: Review) -> tuple[Sequence[Harm], str] | None:
    if review.calibration is None:
        return None
    return _one(_increase(_figure(review.calibration.figures, "ece"), review.rows))


def _cost(review: Review) -> tuple[Sequence[Harm], str] | None:
    decisions = _decisions(review)
    figure = decisions and _figure(decisions.figures, "expected_cost")
    if not figure:
        return (), "set evaluate.cost"
    if not figure.baseline or figure.baseline <= 0:
        return (), "the baseline costs nothing, so nothing is a share of it"
    return _one(_increase(figure, review.rows, scale=figure.baseline))


def _over_segments(review: Review, harm_of: Callable[[Segment], Harm | None]) -> tuple[Sequence[Harm], str] | None:
    if not review.segments:
        return None
    harms, left_out = [], []
    for segment in review.segments:
        harm = None if segment.small else harm_of(segment)
        if harm is None:
            left_out.append(segment.title)
        else:
            harms.append(harm)
    return harms, f"not judged: {', '.join(left_out)}" if left_out else ""


def _segment_auc(review: Review) -> tuple[Sequence[Harm], str] | None:
    return _over_segments(
        review, lambda segment: _increase(segment.figure("auc"), segment.rows, f" in {segment.title}", sign=-1)
    )


def _segment_approval(review: Review) -> tuple[Sequence[Harm], str] | None:
    return _over_segments(
        review, lambda segment: _either_way(segment.figure("approval_rate"), segment.rows, f" in {segment.title}")
    )


def _segment_tpr(review: Review) -> tuple[Sequence[Harm], str] | None:
    return _over_segments(
        review,
        lambda segment: _increase(segment.figure("true_positive_rate"), segment.rows, f" in {segment.title}", sign=-1),
    )


_GAPS = ("demographic_parity_difference", "equal_opportunity_difference", "equalized_odds_difference")


def _fairness(review: Review) -> tuple[Sequence[Harm], str] | None:
    if not review.fairness:
        return None
    harms, left_out = [], []
    for column in review.fairness:
        for name in _GAPS:
            where = f" in {name.replace('_', ' ')} by {column.column}"
            harm = _increase(_figure(column.figures, name), review.rows, where)
            if harm is not None:
                harms.append(harm)
        if not column.figures:
            left_out.append(column.column)
    return harms, f"not judged: {', '.join(left_out)}" if left_out else ""


def _four_fifths(review: Review, *, several: bool) -> Iterator[RuleResult]:
    """A selection rate below four fifths of another group's, where the baseline's was not: adverse impact is new."""
    for column in review.fairness:
        ratio = _figure(column.figures, "demographic_parity_ratio")
        if ratio is None or ratio.value is None or ratio.baseline is None:
            continue
        rule = f"four_fifths[{review.task}, {column.column}]" if several else f"four_fifths[{column.column}]"
        of = of_task("has a ratio of approval rates", review.task, several=several)
        said = f"{of} by {column.column} of {ratio.value:.3f}, the baseline's is"
        text = f"{said} {ratio.baseline:.3f}"
        if not ratio.value < FOUR_FIFTHS <= ratio.baseline:
            yield RuleResult(rule, "PASS", f"{text}: it does not fall below four fifths")
        elif ratio.interval is not None and ratio.interval.high < 0:
            yield RuleResult(rule, "FAIL", f"{text}: it falls below four fifths")
        else:
            reason = f"{text}: it falls below four fifths, but {review.rows:,} rows do not tell this from chance"
            yield RuleResult(rule, "INCONCLUSIVE", reason)


def _drift(review: Review) -> tuple[Sequence[Harm], str] | None:
    harms = [
        Harm(item.drift, item.drift, item.drift, item.rows) for item in review.explanations if item.drift is not None
    ]
    return (harms, "") if harms else None


def _reason_codes(review: Review) -> tuple[Sequence[Harm], str] | None:
    harms = [found for item in review.explanations if (found := _changed_codes(item)) is not None]
    if harms:
        return harms, ""
    return ((), "no row is declined") if review.explanations else None


def _changed_codes(item: Explanation) -> Harm | None:
    changed = item.reason_codes_changed
    if not changed.rows or changed.interval is None:
        return None
    return Harm(changed.count / changed.rows, changed.interval.low, changed.interval.high, changed.rows)


def _number(value: float) -> str:
    return f"{value:z.4f}"


def _points(value: float) -> str:
    return f"{100 * value:z.2f} points"


_RULES = (
    _Rule("max_flips", "decisions beside a baseline", "decides otherwise on {} of the rows", _flips, percent),
    _Rule("max_approval_change", "approval rate", "changes the approval rate by {}", _approval, _points),
    _Rule("max_psi", "PSI", "has a PSI of {}", _psi, _number, ("binary", "regression")),
    _Rule(
        "max_ece_increase",
        "calibration error",
        "adds {} ECE",
        _ece,
        _number,
        ("binary", "multiclass"),
        says_less="saves {} ECE",
    ),
    _Rule(
        "max_cost_increase",
        "expected cost",
        "adds {} to the expected cost",
        _cost,
        percent,
        says_less="saves {} of the expected cost",
    ),
    _Rule("max_segment_auc_loss", "AUC of a segment", "loses {} AUC", _segment_auc, _number, says_less="gains {} AUC"),
    _Rule(
        "max_segment_approval_change",
        "approval rate of a segment",
        "changes the approval rate by {}",
        _segment_approval,
        _points,
    ),
    _Rule(
        "max_segment_tpr_loss",
        "true positive rate of a segment",
        "loses {} of true positives",
        _segment_tpr,
        _points,
        says_less="gains {} of true positives",
    ),
    _Rule(
        "max_fairness_change",
        "gap between segments",
        "widens the gap by {}",
        _fairness,
        _points,
        says_less="narrows the gap by {}",
    ),
    _Rule(
        "max_attribution_drift",
        "attributions",
        "moves attributions by {} of their size",
        _drift,
        percent,
        ("binary", "multiclass", "regression"),
    ),
    _Rule(
        "max_reason_code_changes",
        "reason codes",
        "changes the reason codes of {} of declined rows",
        _reason_codes,
        percent,
    ),
)

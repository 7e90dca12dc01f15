"""Do the intervals of the risk gate cover what they say, and how often does a harm on the margin pass?

    OMP_NUM_THREADS=1 PYTHONPATH=. python benchmarks/interval_coverage.py --runs 2000 --write

Each scenario draws rows whose true change is known, from a formula or half a million rows, and has the program find
its interval, `--runs` times. `covers` counts intervals that hold the truth. With the margin just below the truth, so
that the harm is too much, `passes` counts what the gate lets through and `fails` what it refuses outright.
`--write` writes the table to interval_coverage.md. `--only TEXT ...` picks scenarios.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from compress.evaluate.answers import NumberAnswers
from compress.evaluate.bands import compare_bands
from compress.evaluate.class_calibration import compare_class_calibration
from compress.evaluate.fairness import compare_fairness
from compress.evaluate.groups import group
from compress.evaluate.multiclass import compare_multiclass
from compress.evaluate.periods import compare_folds
from compress.evaluate.quality import compare
from compress.evaluate.ranking import compare_ranking
from compress.evaluate.regression import compare_regression
from compress.evaluate.reliability import compare_calibration
from compress.evaluate.review import decisions_at
from compress.evaluate.segments import Rows
from compress.evaluate.shares import exact_interval
from compress.evidence import Candidate, Metric
from compress.gate import judge
from compress.recipe import CostConfig, EvaluateConfig, GateConfig
from compress.review import Interval
from compress.target import Budgets

LEVEL = 0.95
TRUTH_ROWS = 500_000
RESAMPLES = 500
# More of these is better; of everything else less.
GAINS = {
    "auc",
    "ks",
    "accuracy",
    "average_precision",
    "top_1",
    "macro_f1",
    "r2",
    "approval_rate",
    "precision",
    "recall",
    "f1",
}


@dataclass(frozen=True)
class Found:
    """What the program says of one sample: the change, its interval, and what rare rows could hide."""

    difference: float
    interval: Interval | None
    unseen: float | None = None


Sample = tuple[Any, ...]
Finder = Callable[[Sample, int], Mapping[str, Found]]


@dataclass(frozen=True)
class Scenario:
    """A way to draw `rows` rows, and figures whose true change is that of very many of them."""

    name: str
    rows: int
    draw: Callable[[np.random.Generator, int], Sample]
    find: Finder
    figures: tuple[str, ...]
    truths: Mapping[str, float] = field(default_factory=dict)
    # Bounds that are conservative by design cover more than they say.
    conservative: frozenset[str] = frozenset()
    # Intervals from a bootstrap over rows take long: a quarter of the runs.
    drawn: bool = False


@dataclass(frozen=True)
class Result:
    """How often, of `runs`, an interval of one figure covered; and what the gate said with the margin on the truth."""

    scenario: str
    figure: str
    rows: int
    truth: float
    runs: int
    covered: int
    passed: int
    failed: int
    conservative: bool

    @property
    def harms(self) -> bool:
        """Whether the true change is one for the worse, so that a margin can lie on it."""
        return self.truth < 0 if self.figure in GAINS else self.truth > 0


# --- how rows are drawn -------------------------------------------------------------------------------------------


def noisy(random: np.random.Generator, rows: int) -> Sample:
    """A candidate that adds noise to the log-odds."""
    labels = random.random(rows) < 0.3
    odds = 1.2 * labels + random.normal(size=rows) - 1.3
    return labels, expit(odds), expit(odds + 0.5 * random.normal(size=rows))


def tied(random: np.random.Generator, rows: int) -> Sample:
    """The same, scores in steps of 0.1."""
    labels, before, after = noisy(random, rows)
    return labels, np.round(before, 1), np.round(after, 1)


def rare(share: float) -> Callable[[np.random.Generator, int], Sample]:
    """A candidate that gives the lowest score to a share of the positive rows, and hardly moves the others."""

    def draw(random: np.random.Generator, rows: int) -> Sample:
        labels = random.random(rows) < 0.3
        odds = 1.2 * labels + random.normal(size=rows) - 1.3
        hit = (random.random(rows) < share) & labels
        return labels, expit(odds), np.where(hit, 1e-4, expit(odds + 0.01 * random.normal(size=rows)))

    return draw


def calibrated(change: Callable[[Any, np.random.Generator], Any]) -> Callable[[np.random.Generator, int], Sample]:
    """A baseline that is calibrated, and a candidate that changes its probabilities."""

    def draw(random: np.random.Generator, rows: int) -> Sample:
        truth = random.beta(2, 5, rows)
        return random.random(rows) < truth, truth, np.clip(change(truth, random), 0, 1)

    return draw


def away(after: float) -> Callable[[np.random.Generator, int], Sample]:
    """Both miscalibrated by far more than noise: the baseline by 0.15."""

    def draw(random: np.random.Generator, rows: int) -> Sample:
        truth = random.beta(2, 5, rows)
        return random.random(rows) < truth, truth + 0.15, truth + after + random.normal(0, 0.02, rows)

    return draw


def widened(random: np.random.Generator, rows: int) -> Sample:
    """Two groups approved alike by the baseline; the candidate turns some of the second away."""
    labels = random.random(rows) < 0.3
    odds = 1.2 * labels + random.normal(size=rows) - 1.3
    groups = random.integers(0, 2, rows)
    return labels, expit(odds), expit(odds + 0.15 * groups + 0.05 * random.normal(size=rows)), groups


def classes(random: np.random.Generator, rows: int) -> Sample:
    """Five classes, noise on the logits."""
    labels = random.integers(0, 5, rows)
    logits = random.normal(size=(rows, 5))
    logits[np.arange(rows), labels] += 1.5
    return labels, 0.8 * logits, 0.8 * logits + 0.4 * random.normal(size=(rows, 5))


def numbers(random: np.random.Generator, rows: int) -> Sample:
    """Predictions with errors of one size, and of a slightly larger one."""
    labels = random.gamma(2, 1, rows)
    before = labels + 0.5 * random.normal(size=rows)
    return labels, before, before + 0.2 * random.normal(size=rows)


# --- what the program finds in them -------------------------------------------------------------------------------


def _of_metrics(metrics: tuple[Metric, ...]) -> dict[str, Found]:
    return {
        item.name: Found(item.difference, item.interval, item.unseen) for item in metrics if item.difference is not None
    }


def of_metrics(sample: Sample, resamples: int) -> Mapping[str, Found]:
    return _of_metrics(compare(*sample[:3], cutoff=0.5, resamples=resamples, seed=0))


def of_auc(sample: Sample, resamples: int) -> Mapping[str, Found]:
    return of_metrics(sample, 2)


def of_ece(sample: Sample, resamples: int) -> Mapping[str, Found]:
    found = compare_calibration(*sample[:3], bins=10, resamples=min(resamples, 2), seed=0, level=LEVEL)
    return {item.name: Found(item.difference or 0.0, item.interval) for item in found.figures if item.name == "ece"}


def of_precision(sample: Sample, resamples: int) -> Mapping[str, Found]:
    found = compare_ranking(*sample[:3], resamples=resamples, seed=0, level=LEVEL).figures
    return {item.name: Found(item.difference or 0.0, item.interval) for item in found}


def of_psi(sample: Sample, resamples: int) -> Mapping[str, Found]:
    found = compare_bands(*sample[1:3], bands=10, resamples=resamples, seed=0, level=LEVEL)
    return {"psi": Found(found.psi or 0.0, found.psi_interval)}


def of_decisions(sample: Sample, resamples: int) -> Mapping[str, Found]:
    config = EvaluateConfig(cost=CostConfig(false_positive=1, false_negative=5))
    found = decisions_at(Rows(*sample[:3], 0.5, 0, LEVEL), 0.5, config, resamples=resamples, seed=0)
    figures = {item.name: Found(item.difference or 0.0, item.interval) for item in found.figures}
    return {"flips": Found(found.flipped.share or 0.0, found.flipped.interval), **figures}


def of_fairness(sample: Sample, resamples: int) -> Mapping[str, Found]:
    rows = Rows(*sample[:3], 0.5, 0, LEVEL)
    found = compare_fairness(rows, [group("g", sample[3])], rows_min=1, resamples=resamples, seed=0)[0].figures
    return {item.name: Found(item.difference or 0.0, item.interval) for item in found}


def of_classes(sample: Sample, resamples: int) -> Mapping[str, Found]:
    return _of_metrics(compare_multiclass(*sample, link="logit", resamples=resamples, seed=0))


def of_class_calibration(sample: Sample, resamples: int) -> Mapping[str, Found]:
    from scipy.special import softmax

    chances = [softmax(logits, axis=1) for logits in sample[1:]]
    found = compare_class_calibration(sample[0], *chances, bins=10, resamples=min(resamples, 2), seed=0, level=LEVEL)
    return {item.name: Found(item.difference or 0.0, item.interval) for item in found.figures}


def of_numbers(sample: Sample, resamples: int) -> Mapping[str, Found]:
    return _of_metrics(compare_regression(*sample, resamples=resamples, seed=0))


def of_period(sample: Sample, resamples: int) -> Mapping[str, Found]:
    labels, before, after = sample
    figures = NumberAnswers(labels, before - labels, after - labels, LEVEL).figures()
    return {item.name: Found(item.difference or 0.0, item.interval) for item in figures}


def of_folds(sample: Sample, resamples: int) -> Mapping[str, Found]:
    (found,) = compare_folds(Rows(*sample[:3], 0.5, 0, LEVEL), 5, seed=0)
    return {"auc": Found(found.difference or 0.0, found.interval)}


# --- scenarios ----------------------------------------------------------------------------------------------------

BOOTSTRAPPED = ("ks", "log_loss", "brier", "accuracy")
GAPS = ("demographic_parity_difference", "equal_opportunity_difference", "equalized_odds_difference")
# From the bias of an absolute value near zero: the bad end is that of the worst case.
WORST_CASE = frozenset({"ece", "classwise_ece", *GAPS})

SCENARIOS = (
    Scenario("noise", 500, noisy, of_auc, ("auc",)),
    Scenario("ties", 500, tied, of_auc, ("auc",)),
    *(
        Scenario(f"a rare large loss, {hit} rows", rows, rare(share), of_auc, ("auc",))
        for hit, rows, share in ((30, 5000, 0.02), (12, 2000, 0.02), (6, 1000, 0.02), (3, 500, 0.02), (2, 1000, 0.0067))
    ),
    Scenario("noise, bootstrap", 500, noisy, of_metrics, BOOTSTRAPPED, drawn=True),
    # The log-loss has no interval where a score is 0 or 1.
    Scenario("ties, bootstrap", 500, tied, of_metrics, ("ks", "brier", "accuracy"), drawn=True),
    Scenario("a rare large loss, 6 rows, bootstrap", 1000, rare(0.02), of_metrics, BOOTSTRAPPED, drawn=True),
    Scenario("a rare large loss, 2 rows, bootstrap", 1000, rare(1 / 150), of_metrics, ("ks", "brier"), drawn=True),
    Scenario("noise, precision", 500, noisy, of_precision, ("average_precision",), drawn=True),
    Scenario("far from calibrated, then farther", 1500, away(0.19), of_ece, ("ece",)),
    Scenario("too high, then too low", 1500, away(-0.19), of_ece, ("ece",), conservative=WORST_CASE),
    Scenario("calibrated, then shifted by 0.02", 1500, calibrated(lambda p, r: p + 0.02), of_ece, ("ece",),
             {"ece": 0.02}, WORST_CASE),
    Scenario("calibrated, then shifted by 0.05", 1500, calibrated(lambda p, r: p + 0.05), of_ece, ("ece",),
             {"ece": 0.05}, WORST_CASE),
    Scenario("calibrated, then noisy", 1500, calibrated(lambda p, r: p + r.normal(0, 0.08, p.size)), of_ece, ("ece",),
             conservative=WORST_CASE),
    Scenario("calibrated, then too sure", 1500, calibrated(lambda p, r: expit(1.3 * np.log(p / (1 - p)))), of_ece,
             ("ece",), conservative=WORST_CASE),
    Scenario("noise, bands", 1000, noisy, of_psi, ("psi",)),
    Scenario("a shift, bands", 1000, calibrated(lambda p, r: p + 0.05), of_psi, ("psi",)),
    Scenario("noise, decisions", 500, noisy, of_decisions,
             ("flips", "approval_rate", "recall", "precision", "f1", "expected_cost")),
    Scenario("a group turned away", 2000, widened, of_fairness, GAPS, conservative=WORST_CASE),
    Scenario("five classes", 600, classes, of_classes, ("top_1", "macro_f1", "log_loss", "brier"), drawn=True),
    Scenario("five classes, calibration", 1500, classes, of_class_calibration,
             ("ece", "classwise_ece", "calibration_gap"), conservative=WORST_CASE),
    Scenario("numbers", 300, numbers, of_numbers, ("r2", "mae", "rmse"), drawn=True),
    Scenario("numbers, by period", 300, numbers, of_period, ("r2", "mae", "mean_error")),
    Scenario("noise, five folds", 1000, noisy, of_folds, ("auc",)),
)  # fmt: skip


def simulate(scenario: Scenario, runs: int, resamples: int = RESAMPLES, seed: int = 1) -> Iterator[Result]:
    """Draws a scenario `runs` times and judges every interval."""
    random = np.random.default_rng(seed)
    whole = scenario.find(scenario.draw(np.random.default_rng(0), TRUTH_ROWS), 100)
    truths = {name: scenario.truths.get(name, whole[name].difference) for name in scenario.figures}
    counts = {name: np.zeros(3, dtype=np.int64) for name in scenario.figures}
    for _ in range(runs):
        found = scenario.find(scenario.draw(random, scenario.rows), resamples)
        for name, counted in counts.items():
            counted += _judged(name, found[name], truths[name], scenario.rows)
    for name, (covered, passed, failed) in counts.items():
        yield Result(
            scenario.name,
            name,
            scenario.rows,
            truths[name],
            runs,
            int(covered),
            int(passed),
            int(failed),
            name in scenario.conservative,
        )


def _judged(name: str, found: Found, truth: float, rows: int) -> NDArray[np.bool_]:
    """Whether the interval covers the truth, and what the gate says with the margin on the truth: passed, failed."""
    interval = found.interval
    if interval is None:
        return np.array([False, False, False])
    covers = interval.low <= truth <= interval.high
    # The gate's own rule, on a metric that is gated by a margin: whichever figure it is, the rule is the same.
    sign = -1 if name in GAINS else 1
    ends = sorted((-sign * interval.low, -sign * interval.high))
    shown = Interval(ends[0], ends[1], LEVEL, interval.method)
    metric = Metric("auc", 0.7, 0.7, -sign * found.difference, shown, True, rows, primary=True, unseen=found.unseen)
    # A change for the better is no harm: what passes then says nothing. A harm of the margin itself is within it.
    margin = max(0.0, 0.999 * sign * truth)
    verdict = judge(Candidate("x", metrics=(metric,)), GateConfig(auc_margin=margin, min_agreement=0), Budgets())
    return np.array([covers, verdict.status == "PASS", verdict.status == "FAIL"])


def table(results: list[Result]) -> str:
    """Returns the results as Markdown."""
    lines = [
        "| scenario | figure | rows | true change | covers | passes at the margin | fails at the margin |",
        "|---|---|---|---|---|---|---|",
    ]
    for item in results:
        of = exact_interval(item.covered, item.runs, LEVEL)
        span = f"{100 * of.low:.1f} to {100 * of.high:.1f}"
        mark = " (worst case)" if item.conservative else ""
        covered, *judged = (f"{100 * count / item.runs:.1f} %" for count in (item.covered, item.passed, item.failed))
        said = judged if item.harms else ["no harm", "no harm"]
        lines.append(
            f"| {item.scenario} | `{item.figure}` | {item.rows:,} | {item.truth:+.4f} | {covered} ({span}){mark} "
            f"| {said[0]} | {said[1]} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--resamples", type=int, default=RESAMPLES)
    parser.add_argument("--only", nargs="*", default=[""])
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    results: list[Result] = []
    for scenario in SCENARIOS:
        if any(text in scenario.name for text in arguments.only):
            started = time.perf_counter()
            runs = max(1, arguments.runs // 4) if scenario.drawn else arguments.runs
            found = list(simulate(scenario, runs, arguments.resamples))
            results += found
            print(*table(found).splitlines()[2:], f"{time.perf_counter() - started:.0f} s", sep="\n", flush=True)
            if arguments.write:
                head = HEAD.format(runs=arguments.runs, resamples=arguments.resamples)
                Path(__file__).with_suffix(".md").write_text(f"{head}{table(results)}\n", encoding="utf-8")


HEAD = """# Coverage of the intervals

{runs:,} samples a scenario, a quarter of that where the interval is drawn from the rows ({resamples} draws each); level
95 %. Made by

```
OMP_NUM_THREADS=1 PYTHONPATH=. python benchmarks/interval_coverage.py --runs {runs} --write
```

`covers`: share of intervals that hold the true change, with the exact interval of that share; "worst case" marks
figures whose bad end is that of the worst case by design, so that they cover more. `passes at the margin`: share of
samples that the gate lets through with the margin just below the harm, at most 5 % by design. `fails at the margin`:
share that it refuses outright there. Where rare rows carry the loss, intervals of samples that hold none of them cannot
cover; the gate then says INCONCLUSIVE for want of rows.

"""


if __name__ == "__main__":
    main()

"""A synthetic Evidence of a model with three tasks: one yes or no, one of several classes, one number."""

from __future__ import annotations

from dataclasses import replace

from compress.evidence import Candidate, Choice, Evidence, Interval, Metric, TargetEvidence
from compress.gate import judge
from compress.recipe import GateConfig
from compress.target import Budgets

ROWS = 6000

# task: (metric, baseline, half width of the interval, how much of the loss it shows, higher is better)
FIGURES = {
    "default": (("auc", 0.7794, 0.0008, 1.0, True), ("log_loss", 0.4301, 0.0011, -0.5, False)),
    "delinquency": (
        ("top_1", 0.8312, 0.0031, 4.0, True),
        ("macro_f1", 0.5120, 0.0090, 6.0, True),
        ("worst_class_recall", 0.6210, 0.0400, 20.0, True),
    ),
    "bill_growth": (("r2", 0.4021, 0.0030, 2.0, True), ("mae", 1287.4312, 3.1, -9000.0, False)),
}
PRIMARY = ("auc", "top_1", "r2")
NOTES = {
    "worst_class_recall": "class 3: loses most of 5 classes; 2 of 7 left out with fewer than 10 rows",
    "r2": "the interval rests on about 7 rows; a rare large error may have been missed",
}


def multitask(evidence: Evidence) -> Evidence:
    """Returns the evidence with three tasks on its first target: one scheme that ships, one that loses a task."""
    target = evidence.targets[0]
    losses = {"float32": None, "int8-dynamic": -0.0003, "float16": -0.0025, "int8-static": None}
    candidates = tuple(
        item if item.error else replace(item, metrics=_metrics(losses[item.scheme])) for item in target.candidates
    )
    verdicts = {item.scheme: judge(item, GateConfig(), Budgets()) for item in candidates}
    choice = Choice(
        "int8-dynamic",
        "int8-dynamic takes 0.62x (0.60-0.65) of the time of float32 in 0.26x of its bytes; its verdict is PASS",
        {"float32": "passed, but int8-dynamic is faster", "float16": verdicts["float16"].reason},
    )
    changed = TargetEvidence(target.target, target.runtime, target.settings, candidates, verdicts, choice)
    data = replace(evidence.data, positives={})
    return replace(evidence, name="credit-multitask", data=data, targets=(changed,))


def multitask_candidate(evidence: Evidence, scheme: str) -> Candidate:
    """Returns a candidate of the first target."""
    return next(item for item in evidence.targets[0].candidates if item.scheme == scheme)


def _metrics(loss: float | None) -> tuple[Metric, ...]:
    return tuple(_metric(task, loss, *figures) for task, items in FIGURES.items() for figures in items) + tuple(
        Metric(
            "agreement", share, None, None, Interval(share - 0.003, share + 0.003, 0.95, "Wilson"), True, ROWS, "", task
        )
        for task, share in (("default", 0.9908), ("delinquency", 0.9873))
    )


def _metric(
    task: str, loss: float | None, name: str, baseline: float, half: float, share: float, better: bool
) -> Metric:
    primary = name in PRIMARY
    if loss is None:
        same = Interval(0.0, 0.0, 0.95, "equal scores")
        return Metric(name, baseline, baseline, 0.0, same, better, ROWS, task=task, primary=primary)
    change = loss * share
    interval = Interval(change - half, change + half, 0.95, "Tango score" if name == "top_1" else "paired bootstrap")
    note = NOTES.get(name, "")
    return Metric(name, baseline + change, baseline, change, interval, better, ROWS, note, task, primary)

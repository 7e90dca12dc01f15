"""The figures that stand for each task, as text: AUC, top-1 accuracy or R2, beside the baseline's."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from compress.evidence import Candidate, Evidence, Metric, TargetEvidence
from compress.report.numbers import MISSING, format_difference, format_difference_interval, format_value
from compress.report.text import plain
from compress.search.wording import of_task

MIXED = "quality"
"""Heading of the column where tasks of several kinds share it."""

_SHORT = {"auc": "AUC", "top_1": "top-1", "r2": "R2"}
# Figures in the unit of the labels, which may be anything: their decimals follow their size.
_IN_UNITS = ("mae", "rmse")


@dataclass(frozen=True)
class Figure:
    """What a task came to: `label` names task and metric as far as needed, `value` holds the figures."""

    label: str
    value: str

    @property
    def text(self) -> str:
        """Both on one line."""
        return f"{self.label} {self.value}" if self.label else self.value


def heading(evidence: Evidence) -> str:
    """Returns what the column of quality is called: by the metric if all tasks share one, else `quality`."""
    names = {metric.name for target in evidence.targets for metric in _primaries(target.candidates)}
    return _SHORT.get(names.pop(), MIXED) if len(names) == 1 else MIXED


def several_tasks(target: TargetEvidence) -> bool:
    """Returns whether the figures of a target belong to more than one task."""
    return len({metric.task for candidate in target.candidates for metric in candidate.metrics}) > 1


def figures(target: TargetEvidence, candidate: Candidate) -> tuple[Figure, ...]:
    """Returns one figure a task, in the order of the tasks; none where nothing was measured."""
    mixed = len({metric.name for metric in _primaries(target.candidates)}) > 1
    several = several_tasks(target)
    return tuple(
        Figure(_label(metric, several, mixed), _value(metric, candidate is target.baseline))
        for metric in candidate.primary
    )


def differences(target: TargetEvidence, candidate: Candidate) -> list[str]:
    """Returns each task's difference to the baseline, the worst first: `AUC of default -0.0003 [-0.0011, +0.0005]`."""
    known = [(metric, metric.difference) for metric in candidate.primary if metric.difference is not None]
    known.sort(key=lambda item: item[1] if item[0].higher_is_better else -item[1])
    several = several_tasks(target)
    return [_difference(metric, difference, several) for metric, difference in known]


def caveats(target: TargetEvidence, candidate: Candidate) -> list[str]:
    """Returns what the notes of the primary metrics warn of, with the metric that each is about."""
    several = several_tasks(target)
    return [f"{name(metric, several)}: {metric.note}" for metric in candidate.primary if metric.note]


def name(metric: Metric, several: bool) -> str:
    """Returns the short name of a metric, with its task where there are several."""
    return of_task(_SHORT.get(metric.name, plain(metric.name)), plain(metric.task), several=several)


def decimals(metric: Metric) -> int:
    """Returns the decimals that the figures of a metric are given: 4, and five digits for those in the labels' unit."""
    largest = max((abs(value) for value in (metric.value, metric.baseline) if value is not None), default=0.0)
    if metric.name not in _IN_UNITS or not largest or not math.isfinite(largest):
        return 4
    return min(12, max(0, 4 - math.floor(math.log10(largest))))


def _primaries(candidates: Iterable[Candidate]) -> Iterable[Metric]:
    return (metric for candidate in candidates for metric in candidate.primary)


def _label(metric: Metric, several: bool, mixed: bool) -> str:
    task = f"{plain(metric.task)}:" if several else ""
    return f"{task} {name(metric, False) if mixed else ''}".strip()


def _value(metric: Metric, is_baseline: bool) -> str:
    if metric.value is None:
        return MISSING
    value = format_value(metric.value)
    if is_baseline or metric.difference is None:
        return value
    difference = format_difference(metric.difference)
    if metric.interval is None:
        return f"{value} ({difference})"
    return f"{value} ({difference} {format_difference_interval(metric.interval)})"


def _difference(metric: Metric, difference: float, several: bool) -> str:
    interval = f" {format_difference_interval(metric.interval)}" if metric.interval is not None else ""
    return f"{name(metric, several)} {format_difference(difference)}{interval}"

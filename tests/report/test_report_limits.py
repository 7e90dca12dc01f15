"""The limits of the evidence follow from the evidence."""

from __future__ import annotations

from dataclasses import replace

import pytest

from compress.evidence import Evidence
from compress.report.limits import limits, missing_percentile


def said(evidence: Evidence, words: str) -> list[str]:
    return [text for text in limits(evidence) if words in text]


def test_what_every_run_must_admit(evidence: Evidence) -> None:
    assert said(evidence, "6,000 rows (the test split holds 6,000)")
    assert said(evidence, "Unless that is the device itself")
    assert said(evidence, "batch 1 on 1 thread")
    assert said(evidence, "within the tolerance of 2 %")
    assert said(evidence, "p90 is not printed for 4 of 6 artifacts: 45 samples of 64 needed.")
    assert said(evidence, "p99 is not printed for 4 of 6 artifacts: 45 samples of 662 needed.")
    assert said(evidence, "The gate is INCONCLUSIVE (too little data to pass or to fail) for litert-cpu int8-dynamic.")
    assert said(evidence, "2 of 8 candidates (25 %) failed")


def test_nothing_is_admitted_that_is_not_so(evidence: Evidence) -> None:
    assert not said(evidence, "UNKNOWN")
    assert not said(evidence, "INCOMPARABLE")
    assert not said(evidence, "fewer than 100")
    fine = replace(evidence.targets[0], candidates=evidence.targets[0].candidates[:2], verdicts={})
    assert not said(replace(evidence, targets=(fine,)), "failed")


def test_few_rows_of_a_class(evidence: Evidence) -> None:
    few = replace(evidence.data, positives={"test": 12})
    assert said(replace(evidence, data=few), "12 positive rows and 5,988 negative: fewer than 100")


def test_positive_rows_say_nothing_of_tasks_that_have_none(evidence: Evidence, three_tasks: Evidence) -> None:
    target = three_tasks.targets[0]
    candidates = tuple(
        replace(item, metrics=tuple(metric for metric in item.metrics if metric.task != "default"))
        for item in target.candidates
    )
    few = replace(evidence.data, positives={"test": 12})
    changed = replace(three_tasks, data=few, targets=(replace(target, candidates=candidates),))
    assert not said(changed, "fewer than 100")
    assert said(replace(three_tasks, data=few), "fewer than 100")


def test_rows_are_those_of_the_tasks_and_not_of_a_class(three_tasks: Evidence) -> None:
    target = three_tasks.targets[0]
    candidates = tuple(
        replace(item, metrics=tuple(m if m.primary else replace(m, rows=12) for m in item.metrics))
        for item in target.candidates
    )
    changed = replace(three_tasks, targets=(replace(target, candidates=candidates),))
    assert said(changed, "Quality was measured on 6,000 rows")


def test_a_run_without_figures_says_so(evidence: Evidence) -> None:
    empty = replace(evidence, targets=(replace(evidence.targets[0], candidates=(), verdicts={}, error="boom"),))
    texts = limits(empty)
    assert any(text.startswith("No quality was measured") for text in texts)
    assert "No latency was measured." in texts
    assert "onnxruntime-cpu was not measured to the end: boom" in texts


def test_an_unsettled_latency_is_named(evidence: Evidence) -> None:
    target = evidence.targets[0]
    candidate = target.candidates[1]
    assert candidate.latency is not None
    assert candidate.latency.comparison is not None
    unknown = replace(candidate.latency, comparison=replace(candidate.latency.comparison, verdict="UNKNOWN"))
    changed = replace(target, candidates=(target.candidates[0], replace(candidate, latency=unknown)))
    assert said(replace(evidence, targets=(changed,)), "not settled (UNKNOWN) for onnxruntime-cpu int8-dynamic")


@pytest.mark.parametrize(
    ("count", "name", "text"),
    [
        (1, "p90", "1 sample of 64 needed"),
        (63, "p90", "63 samples of 64 needed"),
        (63, "p99", "63 samples of 662 needed"),
        (64, "p90", "each sample is the mean of several calls"),
        (64, "p99", "each sample is the mean of several calls"),
    ],
)
def test_why_a_percentile_is_missing(evidence: Evidence, count: int, name: str, text: str) -> None:
    latency = evidence.targets[0].candidates[1].latency
    assert latency is not None
    assert missing_percentile(replace(latency, samples=((0.3,) * count,)), name) == text


def test_p99_needs_more_samples_than_p90(evidence: Evidence) -> None:
    latency = evidence.targets[0].candidates[1].latency
    assert latency is not None
    several = replace(latency, p90_ms=0.33, samples=((0.3,) * 661,))
    assert missing_percentile(several, "p99") == "661 samples of 662 needed"

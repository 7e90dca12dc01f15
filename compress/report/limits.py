"""What the figures cannot show, said plainly and derived from the evidence itself."""

from __future__ import annotations

from collections.abc import Iterable

from compress.bench.statistics import samples_needed
from compress.evidence import Candidate, Evidence, Latency, TargetEvidence
from compress.report.numbers import format_count, format_share, plural
from compress.report.text import first_line, plain

QUANTILES = {"p90": 0.9, "p99": 0.99}

FEW_POSITIVES = 100


def limits(evidence: Evidence) -> tuple[str, ...]:
    """Returns the limits of the evidence, each one a sentence or two."""
    return tuple(
        text
        for texts in (
            _quality(evidence),
            _latency(evidence),
            _unsettled(evidence),
            _missing(evidence),
        )
        for text in texts
    )


def missing_percentile(latency: Latency, name: str) -> str:
    """Returns why a percentile is not printed.

    Args:
        latency: Times of which `p90_ms` or `p99_ms` is None.
        name: `p90` or `p99`.
    """
    count = sum(len(process) for process in latency.samples)
    # Enough for p90, and still none: a call too short to be timed alone leaves means of several calls.
    if latency.p90_ms is None and count >= samples_needed(QUANTILES["p90"]):
        return "each sample is the mean of several calls"
    return f"{plural(count, 'sample')} of {samples_needed(QUANTILES[name])} needed"


def _quality(evidence: Evidence) -> Iterable[str]:
    primary = [metric for _, item in _candidates(evidence) for metric in item.primary]
    rows = sorted({metric.rows for metric in primary})
    if not rows:
        yield "No quality was measured: nothing here says whether an artifact still decides as the original did."
        return
    test = evidence.data.splits.get("test")
    held_out = f" (the test split holds {format_count(test)})" if test is not None else ""
    yield (
        f"Quality was measured on {_span(rows)} rows{held_out}. A difference whose interval holds zero may be luck, "
        "and rows of another time or population may answer otherwise."
    )
    # Positive rows are counted for a binary task only.
    positives = evidence.data.positives.get("test") if any(metric.name == "auc" for metric in primary) else None
    if positives is not None and test is not None and min(positives, test - positives) < FEW_POSITIVES:
        yield (
            f"The test split holds {plural(positives, 'positive row')} and {format_count(test - positives)} negative: "
            "fewer than 100 of one kind make AUC and KS coarse."
        )
    count = sum(metric.interval is not None for _, item in _candidates(evidence) for metric in item.metrics)
    if count > 1:
        yield (
            f"Each of the {count} intervals of quality holds for its own comparison; among many, some miss by chance."
        )
    if not any(review.segments for _, item in _candidates(evidence) for review in item.reviews):
        yield "The figures are of all rows together; a loss inside one segment or sensitive group can hide in them."
    parity = sorted({item.rows for _, candidate in _candidates(evidence) for item in candidate.fidelity})
    if parity:
        yield f"Parity was checked on {_span(parity)} rows; on others the outputs can differ by more."
    if parity and not evidence.places:
        yield (
            f"Every answer is from one processor{_processor(evidence)}. int8 sums can come out otherwise on one with "
            "other instructions: parity.hosts compares."
        )


def _processor(evidence: Evidence) -> str:
    machine = evidence.environment.machine
    said = [str(item) for item in (machine.get("cpu"), *(machine.get("features") or ())) if item]
    return f" ({plain(', '.join(said))})" if said else ""


def _latency(evidence: Evidence) -> Iterable[str]:
    measured = [(target, item, item.latency) for target, item in _candidates(evidence) if item.latency is not None]
    emulated = [plain(target.target) for target in evidence.targets if target.settings.get("host") == "emulated"]
    if emulated:
        yield f"{', '.join(emulated)}: emulated, which tells answers and not speed; no time was taken there."
    if not measured:
        yield "No latency was measured."
        return
    yield (
        "Latency and memory are those of the machine under Environment. Unless that is the device itself, ratios carry "
        "over better than milliseconds, and neither is certain on another processor."
    )
    elsewhere = [f"{plain(target.target)} ({plain(target.machine)})" for target in evidence.targets if target.device]
    if elsewhere:
        yield f"Not of that machine but of the target's own: {', '.join(elsewhere)}."
    for target in evidence.targets:
        if target.unanswered:
            yield f"{plain(target.target)}: {plain(target.unanswered)}."
    loads = sorted({(latency.batch, latency.threads) for _, _, latency in measured})
    said = ", ".join(f"batch {batch} on {plural(threads, 'thread')}" for batch, threads in loads)
    yield f"Latency is of {said}; other batches, more threads or a busy device were not tried."
    tolerances = sorted({latency.comparison.tolerance for _, _, latency in measured if latency.comparison is not None})
    if tolerances:
        said = ", ".join(f"{value * 100:g} %" for value in tolerances)
        yield f"A change of latency within the tolerance of {said} is not called FASTER or SLOWER."
    for name in QUANTILES:
        without = [latency for _, _, latency in measured if getattr(latency, f"{name}_ms") is None]
        reasons = sorted({missing_percentile(latency, name) for latency in without})
        if without:
            share = f"{len(without)} of {plural(len(measured), 'artifact')}"
            yield f"{name} is not printed for {share}: {'; '.join(reasons)}."


def _unsettled(evidence: Evidence) -> Iterable[str]:
    unknown = [
        _place(target, item)
        for target, item in _candidates(evidence)
        if item.latency is not None
        and item.latency.comparison is not None
        and item.latency.comparison.verdict == "UNKNOWN"
    ]
    if unknown:
        yield f"Latency was not settled (UNKNOWN) for {', '.join(unknown)}: more pairs or a quieter machine would tell."
    for status, meaning in (
        ("INCONCLUSIVE", "too little data to pass or to fail"),
        ("INCOMPARABLE", "no baseline to compare with"),
    ):
        found = [
            f"{plain(target.target)} {plain(scheme)}"
            for target in evidence.targets
            for scheme, verdict in target.verdicts.items()
            if verdict.status == status
        ]
        if found:
            yield f"The gate is {status} ({meaning}) for {', '.join(found)}."


def _missing(evidence: Evidence) -> Iterable[str]:
    for target in evidence.targets:
        if target.error:
            yield f"{plain(target.target)} was not measured to the end: {first_line(target.error)}"
    failed = [_place(target, item) for target, item in _candidates(evidence) if item.error]
    total = len(list(_candidates(evidence)))
    if failed:
        share = format_share(len(failed) / total)
        yield f"{len(failed)} of {plural(total, 'candidate')} ({share}) failed and lack figures: {', '.join(failed)}."


def _candidates(evidence: Evidence) -> Iterable[tuple[TargetEvidence, Candidate]]:
    return ((target, candidate) for target in evidence.targets for candidate in target.candidates)


def _place(target: TargetEvidence, candidate: Candidate) -> str:
    return f"{plain(target.target)} {plain(candidate.scheme)}"


def _span(counts: list[int]) -> str:
    low, high = format_count(counts[0]), format_count(counts[-1])
    return low if low == high else f"{low} to {high}"

"""The rows of tables that Markdown and HTML both print, as plain text: computed once, written by each in its way."""

from __future__ import annotations

from compress.evidence import Latency, Metric, ModelInfo, TargetEvidence
from compress.report.limits import missing_percentile
from compress.report.numbers import (
    MISSING,
    format_bytes,
    format_count,
    format_decibel,
    format_difference,
    format_difference_interval,
    format_level,
    format_ms,
    format_ratio,
    format_ratio_interval,
    format_significant,
    format_value,
    format_value_interval,
)
from compress.report.quality import decimals

Row = tuple[str, ...]

METRIC = ("metric", "better", "value", "baseline", "difference", "interval", "rows", "note")
TIMES = (
    "scheme",
    "median",
    "p90",
    "p99",
    "load",
    "first answer",
    "cold start",
    "batch",
    "threads",
    "processors",
    "processes",
    "samples",
)
COMPARISON = ("scheme", "against", "ratio", "interval", "verdict", "tolerance", "pairs")
MEMORY = ("scheme", "above the empty worker", "peak", "empty worker")


def metric_row(metric: Metric, name: str) -> Row:
    """Returns the cells under `METRIC` of a metric that is called `name`."""
    # Without a difference the interval is that of the value itself (a share that has no baseline).
    form_interval = format_difference_interval if metric.difference is not None else format_value_interval
    digits = decimals(metric)
    return (
        name,
        "higher" if metric.higher_is_better else "lower",
        format_value(metric.value, digits),
        format_value(metric.baseline, digits),
        format_difference(metric.difference, digits),
        form_interval(metric.interval, digits),
        format_count(metric.rows),
        metric.note or MISSING,
    )


def parity_rows(target: TargetEvidence) -> list[Row]:
    """Returns a row an output of each scheme: reference, rows, SQNR, largest difference, range, same decision."""
    return [
        (
            candidate.scheme,
            parity.output,
            parity.reference,
            format_count(parity.rows),
            "equal" if parity.sqnr_db is None and parity.max_abs == 0 else format_decibel(parity.sqnr_db),
            format_significant(parity.max_abs, 2),
            format_significant(parity.reference_range, 3),
            format_value(parity.label_agreement),
        )
        for candidate in target.candidates
        for parity in candidate.fidelity
    ]


def time_rows(target: TargetEvidence) -> list[Row]:
    """Returns the cells under `TIMES` of each scheme that was timed."""
    return [(item.scheme, *_times(item.latency)) for item in target.candidates if item.latency is not None]


def comparison_rows(target: TargetEvidence) -> list[Row]:
    """Returns the cells under `COMPARISON` of each scheme that was timed beside the baseline."""
    found: list[Row] = []
    for item in target.candidates:
        comparison = item.latency.comparison if item.latency is not None else None
        if comparison is None:
            continue
        interval = format_ratio_interval(comparison.interval)
        found.append(
            (
                item.scheme,
                comparison.baseline,
                format_ratio(comparison.ratio),
                f"{interval} {format_level(comparison.interval.level)}, {comparison.interval.method}",
                comparison.verdict,
                f"{comparison.tolerance * 100:g} %",
                format_count(comparison.pairs),
            )
        )
    return found


def memory_rows(target: TargetEvidence) -> list[Row]:
    """Returns the cells under `MEMORY` of each scheme."""
    return [
        (
            candidate.scheme,
            format_bytes(candidate.memory.above_empty_bytes),
            format_bytes(candidate.memory.peak_bytes),
            format_bytes(candidate.memory.empty_bytes),
        )
        for candidate in target.candidates
        if candidate.memory is not None
    ]


NOTHING_DONE = "Nothing was done here: two files were compared as they are, and neither graph is known."


def model_rows(before: ModelInfo, after: ModelInfo, macs: str) -> list[Row]:
    """Returns what a Model is and costs, before and after, with the ratio; `macs` names its multiply-adds."""
    costs = (
        ("parameters", before.parameters, after.parameters, format_count),
        (macs, before.macs, after.macs, format_count),
        ("bytes of weights", before.bytes, after.bytes, format_bytes),
        ("layers", before.layers, after.layers, format_count),
    )
    rows = [
        (name, shown(first), shown(second), format_ratio(second / first) if first else MISSING)
        for name, first, second, shown in costs
    ]
    return [
        *rows,
        ("inputs", ", ".join(before.inputs), ", ".join(after.inputs), MISSING),
        ("outputs", ", ".join(before.outputs), ", ".join(after.outputs), MISSING),
        ("digest", before.digest, after.digest, MISSING),
    ]


def _times(latency: Latency) -> Row:
    return (
        format_ms(latency.median_ms),
        _percentile(latency, "p90", latency.p90_ms),
        _percentile(latency, "p99", latency.p99_ms),
        format_ms(latency.load_ms),
        format_ms(latency.first_ms),
        # From nothing loaded to the first answer.
        format_ms(latency.load_ms + latency.first_ms),
        str(latency.batch),
        str(latency.threads),
        ", ".join(map(str, latency.cpus)) or "any",
        format_count(latency.processes),
        format_count(sum(len(process) for process in latency.samples)),
    )


def _percentile(latency: Latency, name: str, value: float | None) -> str:
    return f"{MISSING} ({missing_percentile(latency, name)})" if value is None else format_ms(value)

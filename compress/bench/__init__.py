"""Measuring: the conductor of worker processes, the statistics of paired times, and the machine they were taken on."""

from __future__ import annotations

from compress.bench.conductor import BenchItem, BenchResult, measure
from compress.bench.statistics import compare, percentile, ratio_interval, verdict
from compress.hosts.calls import Description, describe, run_outputs

__all__ = [
    "BenchItem",
    "BenchResult",
    "Description",
    "compare",
    "describe",
    "measure",
    "percentile",
    "ratio_interval",
    "run_outputs",
    "verdict",
]

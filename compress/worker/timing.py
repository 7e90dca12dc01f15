"""The timed loop: warm up, then samples long enough for the clock."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import repeat
from time import perf_counter_ns

MIN_SAMPLES = 3


@dataclass(frozen=True)
class Times:
    """Per-call milliseconds of each sample; a sample is the mean of `calls_per_sample` calls in a row."""

    samples_ms: tuple[float, ...]
    calls_per_sample: int


def time_calls(call: Callable[[], None], *, warmup_s: float, sample_s: float, seconds: float) -> Times:
    """Times a call on the monotonic clock, with the garbage collector off.

    Args:
        call: What is timed, its arguments bound.
        warmup_s: Calls made before, at least one; they also say how many calls a sample needs.
        sample_s: Least length of a sample: shorter calls are repeated within it.
        seconds: Least time of all samples together; there are never fewer than `MIN_SAMPLES`.
    """
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        calls = _calls_per_sample(_warm_up(call, warmup_s), sample_s)
        samples_ns: list[int] = []
        end = perf_counter_ns() + round(seconds * 1e9)
        while len(samples_ns) < MIN_SAMPLES or perf_counter_ns() < end:
            samples_ns.append(_block(call, calls))
    finally:
        if collecting:
            gc.enable()
    return Times(tuple(ns / calls / 1e6 for ns in samples_ns), calls)


def _warm_up(call: Callable[[], None], warmup_s: float) -> int:
    """Returns the fastest call seen, in nanoseconds."""
    fastest = _block(call, 1)
    end = perf_counter_ns() + round(warmup_s * 1e9)
    while perf_counter_ns() < end:
        fastest = min(fastest, _block(call, 1))
    return max(1, fastest)


def _calls_per_sample(call_ns: int, sample_s: float) -> int:
    return max(1, math.ceil(sample_s * 1e9 / call_ns))


def _block(call: Callable[[], None], calls: int) -> int:
    start = perf_counter_ns()
    for _ in repeat(None, calls):
        call()
    return perf_counter_ns() - start

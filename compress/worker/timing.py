"""The timed loop: warm up, then samples long enough for the clock."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import repeat
from time import perf_counter_ns

MIN_SAMPLES = 3
# Reading the clock costs about 50 ns: less than 1 % of a call from here on, so that single calls are timed too.
SINGLE_NS = 20_000
MAX_SINGLES = 512


@dataclass(frozen=True)
class Times:
    """Per-call milliseconds of each sample; a sample is the mean of `calls_per_sample` calls in a row.

    `singles_ms` are times of single calls, for percentiles: of all calls, or evenly spaced ones where there are more
    than `MAX_SINGLES`; empty where a call is too short to be timed alone.
    """

    samples_ms: tuple[float, ...]
    calls_per_sample: int
    singles_ms: tuple[float, ...] = ()


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
        call_ns = warm_up(call, warmup_s)
        calls = calls_per_sample(call_ns, sample_s)
        samples_ns: list[int] = []
        singles_ns: list[int] | None = [] if call_ns >= SINGLE_NS else None
        end = perf_counter_ns() + round(seconds * 1e9)
        while len(samples_ns) < MIN_SAMPLES or perf_counter_ns() < end:
            samples_ns.append(block_ns(call, calls) if singles_ns is None else _singles(call, calls, singles_ns))
    finally:
        if collecting:
            gc.enable()
    return Times(tuple(ns / calls / 1e6 for ns in samples_ns), calls, _thinned(singles_ns or []))


def warm_up(call: Callable[[], None], warmup_s: float) -> int:
    """Calls for a while, at least once, and returns the fastest call seen, in nanoseconds."""
    fastest = block_ns(call, 1)
    end = perf_counter_ns() + round(warmup_s * 1e9)
    while perf_counter_ns() < end:
        fastest = min(fastest, block_ns(call, 1))
    return max(1, fastest)


def calls_per_sample(call_ns: int, sample_s: float) -> int:
    """Returns how many calls of this length fill a sample."""
    return max(1, math.ceil(sample_s * 1e9 / call_ns))


def block_ns(call: Callable[[], None], calls: int) -> int:
    """Returns how long a number of calls in a row take, in nanoseconds."""
    start = perf_counter_ns()
    for _ in repeat(None, calls):
        call()
    return perf_counter_ns() - start


def _singles(call: Callable[[], None], calls: int, times_ns: list[int]) -> int:
    """A block whose every call is timed too: one reading of the clock ends a call and begins the next."""
    start = before = perf_counter_ns()
    for _ in repeat(None, calls):
        call()
        now = perf_counter_ns()
        times_ns.append(now - before)
        before = now
    return before - start


def _thinned(times_ns: list[int]) -> tuple[float, ...]:
    step = max(1, -(-len(times_ns) // MAX_SINGLES))
    return tuple(ns / 1e6 for ns in times_ns[::step])

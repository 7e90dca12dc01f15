"""Two calls timed against each other in one process, in turns so short that what disturbs one disturbs the other."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter_ns, thread_time_ns

from .timing import block_ns, calls_per_sample, warm_up

# Shorter calls are repeated within a turn: the clocks cost a few hundred nanoseconds.
TURN_S = 0.0002
WARMUP_SHARE = 0.1
MIN_QUADS = 3


@dataclass(frozen=True)
class Quads:
    """Turns in the order first, second, second, first (then second, first, first, second), four of them a quad.

    All times are milliseconds a call. `*_wall_ms` is time on the monotonic clock, `*_cpu_ms` the processor time of
    the calling thread; both are means over the two turns of a quad. Each turn begins with an untimed call.
    `*_waits` counts how often a call on average gave the processor away of its own accord: a thread that computes is
    only ever interrupted, one that sleeps, reads a disk or waits for other threads hands over.
    """

    first_wall_ms: tuple[float, ...]
    second_wall_ms: tuple[float, ...]
    first_cpu_ms: tuple[float, ...]
    second_cpu_ms: tuple[float, ...]
    first_waits: float
    second_waits: float
    first_calls: int
    second_calls: int


class _Side:
    """One of the two calls, and what its turns took."""

    def __init__(self, call: Callable[[], None], warmup_s: float) -> None:
        self._call = call
        self.calls = calls_per_sample(warm_up(call, warmup_s), TURN_S)
        self.wall_ns: list[int] = []
        self.cpu_ns: list[int] = []
        self.waits = 0

    def turn(self) -> None:
        # Untimed: it brings back what the other side pushed out of the caches, as a loop of its own would have it.
        self._call()
        waits, cpu = _voluntary_switches(), thread_time_ns()
        wall = block_ns(self._call, self.calls)
        self.cpu_ns.append(thread_time_ns() - cpu)
        self.wall_ns.append(wall)
        self.waits += _voluntary_switches() - waits

    def means_ms(self, times: list[int]) -> tuple[float, ...]:
        return tuple(
            (times[at] + times[at + 1]) / (2 * self.calls * 1e6) for at in range(0, len(times) - len(times) % 2, 2)
        )

    @property
    def waits_per_call(self) -> float:
        return self.waits / (len(self.wall_ns) * self.calls)


def time_duel(first: Callable[[], None], second: Callable[[], None], seconds: float) -> Quads:
    """Times two calls in turns on the monotonic clock, with the garbage collector off.

    Args:
        first: A call, its arguments bound.
        second: The call it is compared with.
        seconds: Least time of all turns together; there are never fewer than `MIN_QUADS` quads.
    """
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        one, two = _Side(first, seconds * WARMUP_SHARE), _Side(second, seconds * WARMUP_SHARE)
        end = perf_counter_ns() + round(seconds * 1e9)
        quads = 0
        while quads < MIN_QUADS or perf_counter_ns() < end:
            inner, outer = (two, one) if quads % 2 == 0 else (one, two)
            for side in (outer, inner, inner, outer):
                side.turn()
            quads += 1
    finally:
        if collecting:
            gc.enable()
    return Quads(
        one.means_ms(one.wall_ns),
        two.means_ms(two.wall_ns),
        one.means_ms(one.cpu_ns),
        two.means_ms(two.cpu_ns),
        one.waits_per_call,
        two.waits_per_call,
        one.calls,
        two.calls,
    )


def _voluntary_switches() -> int:
    try:
        import resource

        return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
    except (ImportError, AttributeError):
        # Where the system does not tell, every turn counts as one that waited: processor time is then not used.
        return perf_counter_ns()

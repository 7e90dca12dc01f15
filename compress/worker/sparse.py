"""The sparse duty cycle: one call now and then, with caches that hold something else by then, as an app sees it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import perf_counter_ns, sleep

import numpy as np

CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
# Where the system does not tell the size of its last cache: more than most have.
UNKNOWN_CACHE_BYTES = 64 << 20
LINE_BYTES = 64


def time_sparse(call: Callable[[], None], *, calls: int, pause_s: float) -> tuple[float, ...]:
    """Times single calls, each after a pause and after the caches were filled with other data.

    Args:
        call: What is timed, its arguments bound; it was called before.
        calls: How many calls.
        pause_s: Between them, at least; filling the caches comes at its end, so that they are cold for the call.

    Returns:
        Milliseconds of each call.
    """
    other = np.zeros(2 * last_cache_bytes(), np.uint8)
    times = []
    for _ in range(calls):
        sleep(pause_s)
        # One byte of every line is written: the lines that the model left are evicted.
        other[::LINE_BYTES] += 1
        start = perf_counter_ns()
        call()
        times.append((perf_counter_ns() - start) / 1e6)
    return tuple(times)


def last_cache_bytes(caches: Path = CACHES) -> int:
    """Returns the size of the largest cache of the first processor."""
    sizes = []
    for path in caches.glob("index*/size"):
        text = path.read_text(encoding="ascii", errors="replace").strip()
        unit = {"K": 1 << 10, "M": 1 << 20}.get(text[-1:], 0)
        if unit and text[:-1].isdigit():
            sizes.append(int(text[:-1]) * unit)
    return max(sizes, default=UNKNOWN_CACHE_BYTES)

from __future__ import annotations

import gc
import time

import pytest

from compress.worker.timing import MAX_SINGLES, MIN_SAMPLES, time_calls


def test_a_short_call_is_repeated_within_a_sample() -> None:
    calls = 0

    def call() -> None:
        nonlocal calls
        calls += 1
        time.sleep(0.0005)

    times = time_calls(call, warmup_s=0.01, sample_s=0.002, seconds=0.03)
    assert 2 <= times.calls_per_sample <= 4
    assert all(sample >= 0.5 for sample in times.samples_ms)
    # The other calls are the warm-up.
    assert calls - len(times.samples_ms) * times.calls_per_sample >= 2


def test_a_long_call_is_timed_alone_and_often_enough() -> None:
    times = time_calls(lambda: time.sleep(0.01), warmup_s=0, sample_s=0.002, seconds=0)
    assert times.calls_per_sample == 1
    assert len(times.samples_ms) == MIN_SAMPLES
    assert all(sample >= 10 for sample in times.samples_ms)


def test_timing_lasts_as_long_as_asked() -> None:
    start = time.perf_counter()
    times = time_calls(lambda: time.sleep(0.001), warmup_s=0.02, sample_s=0.001, seconds=0.05)
    assert time.perf_counter() - start >= 0.07
    assert sum(times.samples_ms) * times.calls_per_sample == pytest.approx(50, rel=0.5)


@pytest.mark.parametrize("enabled", [True, False])
def test_the_garbage_collector_rests_and_is_as_before(enabled: bool) -> None:
    seen = []
    before = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        time_calls(lambda: seen.append(gc.isenabled()), warmup_s=0, sample_s=0, seconds=0)
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if before else gc.disable)()
    assert not any(seen)


def test_single_calls_are_kept_for_percentiles_beside_the_blocks() -> None:
    slow = iter(range(10**6))

    def call() -> None:
        time.sleep(0.01 if next(slow) % 10 == 9 else 0.001)

    times = time_calls(call, warmup_s=0, sample_s=0.02, seconds=0.1)
    assert times.calls_per_sample > 5
    # The block's mean hides the slow call in ten; single calls show it.
    assert max(times.samples_ms) < 8
    assert max(times.singles_ms) >= 10
    assert min(times.singles_ms) < 3
    whole = sum(times.samples_ms) * times.calls_per_sample
    assert sum(times.singles_ms) == pytest.approx(whole, rel=1e-6)


def test_a_call_too_short_for_the_clock_has_no_singles_and_many_are_thinned() -> None:
    assert time_calls(lambda: None, warmup_s=0.001, sample_s=0.0001, seconds=0).singles_ms == ()

    def call() -> None:
        end = time.perf_counter() + 0.00003
        while time.perf_counter() < end:
            pass

    many = time_calls(call, warmup_s=0.001, sample_s=0.001, seconds=0.05).singles_ms
    assert 100 < len(many) <= MAX_SINGLES

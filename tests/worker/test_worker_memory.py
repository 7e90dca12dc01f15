from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from compress.worker import memory
from compress.worker.memory import peak_rss_bytes


def test_the_peak_is_the_high_water_mark(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nVmPeak:\t  900 kB\nVmHWM:\t  321 kB\nVmRSS:\t  300 kB\n")
    assert peak_rss_bytes(status) == 321 * 1024


def test_without_proc_the_system_call_answers(tmp_path: Path) -> None:
    assert peak_rss_bytes(tmp_path / "absent") > 1 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_that_was_freed_still_counts() -> None:
    code = f"""
import runpy
peak = runpy.run_path({memory.__file__!r})["peak_rss_bytes"]
before = peak()
bytearray(b"1") * (64 << 20)
print(before, peak())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    before, after = map(int, done.stdout.split())
    assert 1 << 20 < before < 64 << 20 < after

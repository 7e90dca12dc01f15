from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from compress.worker.arrays import write_arrays

PROGRAM = """
import sys
from compress.hosts.local import LocalHost
artifact, inputs = sys.argv[1:]
job = {"action": "sparse", "runtime": "onnxruntime", "artifact": artifact, "inputs": inputs, "pause_s": 60}
LocalHost().run(job, 100)
"""


def workers_of(scratch: Path) -> list[int]:
    """Processes that work in this folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if scratch in Path(os.readlink(path / "cwd")).parents and (path / "stat").read_text().split()[2] != "Z":
                found.append(int(path.name))
        except OSError:
            continue
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux to end a worker with its parent")
def test_a_worker_ends_with_a_parent_that_was_killed(tmp_path: Path, onnx_file: Path, rows: dict[str, Any]) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    write_arrays(tmp_path / "in.npz", rows)
    environment = {**os.environ, "TMPDIR": str(scratch), "PYTHONPATH": str(Path(__file__).parents[2])}
    arguments = [sys.executable, "-c", PROGRAM, str(onnx_file), str(tmp_path / "in.npz")]
    parent = subprocess.Popen(arguments, env=environment)
    deadline = time.monotonic() + 60
    while not _sleeping(workers_of(scratch)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert workers_of(scratch)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    while workers_of(scratch) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert workers_of(scratch) == []


def _sleeping(workers: list[int]) -> bool:
    """Whether the runtime is loaded: the worker is past its start."""
    for worker in workers:
        try:
            if "onnxruntime" in Path(f"/proc/{worker}/maps").read_text():
                return True
        except OSError:
            continue
    return False

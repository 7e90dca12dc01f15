"""This machine: a worker process of its own for every job."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compress.errors import WorkerError
from compress.hosts.words import answer_of
from compress.target import Target
from compress.worker.launch import run_worker

WORKER = Path(__file__).resolve().parent.parent / "worker"


class LocalHost:
    """Runs workers on this machine with this Python.

    1. Each job has a temporary folder, also the worker's `TMPDIR`, that is removed however the job ends.
    2. A timeout or an interruption ends the worker and all that it started; it is waited for.
    3. It stays on its processors where it can; see `compress.worker.launch`. With `pin=False` it may move.
    4. `launcher` is a program with its arguments that starts Python in its stead.
    """

    tells_time = True
    times_only = ""
    machine = ""

    def __init__(
        self, worker: Path = WORKER, python: str = sys.executable, pin: bool = True, launcher: tuple[str, ...] = ()
    ) -> None:
        self._command = (*launcher, python, "-I", str(worker))
        self._pin = pin

    @classmethod
    def for_target(cls, target: Target) -> LocalHost:
        """Returns the same host for every target."""
        return cls()

    def facts(self) -> dict[str, Any]:
        """Nothing beside what `compress.bench.environment` says of this machine."""
        return {}

    def run(self, job: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """Runs one job in a fresh process; see `Host.run`.

        Raises:
            WorkerError: If the worker crashed, ran longer than `timeout_s`, or left no result.
        """
        with tempfile.TemporaryDirectory(prefix="edge-compress-", ignore_cleanup_errors=True) as folder:
            try:
                ended = run_worker(self._command, job, Path(folder), timeout_s, pin=self._pin)
            except OSError as error:
                raise WorkerError(
                    f"no worker can be started: {self._command[0]}: {error.strerror or error}",
                    "check that this program can be run.",
                ) from error
        return answer_of(ended, job, timeout_s)

"""This machine: a worker process of its own for every job."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compress.errors import WorkerError
from compress.hosts.environments import python_of
from compress.hosts.words import answer_of
from compress.target import Target
from compress.worker.launch import run_worker

WORKER = Path(__file__).resolve().parent.parent / "worker"


class LocalHost:
    """Runs workers on this machine with this Python, or with that of the environment which the runtime needs.

    1. Each job has a temporary folder, also the worker's `TMPDIR`, that is removed however the job ends.
    2. A timeout or an interruption ends the worker and all that it started; it is waited for.
    3. It stays on its processors where it can; see `compress.worker.launch`. With `pin=False` it may move.
    4. `python` is one that runs every runtime's worker instead.
    5. `launcher` is a program with its arguments that starts Python in its stead.
    """

    tells_time = True
    times_only = ""
    machine = ""

    def __init__(
        self, worker: Path = WORKER, python: str | None = None, pin: bool = True, launcher: tuple[str, ...] = ()
    ) -> None:
        self._worker, self._python, self._launcher = worker, python, launcher
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
            WorkerError: If the runtime's environment is not set up, the worker crashed, ran longer than `timeout_s`,
                or left no result.
        """
        python = self._python or str(python_of(str(job.get("runtime", ""))))
        command = (*self._launcher, python, "-I", str(self._worker))
        with tempfile.TemporaryDirectory(prefix="edge-compress-", ignore_cleanup_errors=True) as folder:
            try:
                ended = run_worker(command, job, Path(folder), timeout_s, pin=self._pin)
            except OSError as error:
                raise WorkerError(
                    f"no worker can be started: {command[0]}: {error.strerror or error}",
                    "check that this program can be run.",
                ) from error
        return answer_of(ended, job, timeout_s)

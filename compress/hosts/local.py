"""This machine: a worker process of its own for every job."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from compress.errors import WorkerError
from compress.target import Target
from compress.worker.job import SCHEMA

WORKER = Path(__file__).resolve().parent.parent / "worker"

# What a worker keeps of the caller's environment. Everything else (credentials, PYTHON*, thread counts) stays out.
KEPT = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
    "SYSTEMROOT",
)
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")

# How long after its timeout a worker whose parent died ends itself.
ALARM_GRACE_S = 10.0
STDERR_LINES = 5
STDERR_BYTES = 4096

DOING = {
    "outputs": "computing outputs of",
    "latency": "measuring the latency of",
    "duel": "measuring in turns with its rival",
    "sparse": "measuring rare calls of",
    "profile": "profiling",
    "describe": "describing",
    "empty": "importing its runtime, without",
}


class LocalHost:
    """Runs workers on this machine with this Python.

    1. Each job has a temporary folder, also the worker's `TMPDIR`, that is removed however the job ends.
    2. The worker leads a session of its own: a timeout or an interruption kills all of it, and it is waited for.
    3. Where the system allows it, the worker stays on the last `threads` processors that this process may use: the
       first ones serve most interrupts. With `pin=False`, or if it needs all of them, it may move.
    4. `launcher` is a program with its arguments that starts Python in its stead.
    """

    tells_time = True
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

    def run(self, job: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """Runs one job in a fresh process; see `Host.run`.

        Raises:
            WorkerError: If the worker crashed, ran longer than `timeout_s`, or left no result.
        """
        with tempfile.TemporaryDirectory(prefix="edge-compress-", ignore_cleanup_errors=True) as name:
            folder = Path(name)
            result, request = folder / "result.json", folder / "job.json"
            threads = max(int(job.get("threads", 1)), int(job.get("rival_threads", 0)))
            own = {"result": str(result), "cpus": self._cpus(threads), "limit_s": timeout_s + ALARM_GRACE_S}
            request.write_text(json.dumps({"schema": SCHEMA, **job, **own}), encoding="utf-8")
            with (folder / "stderr").open("w+b") as stderr:
                code = self._start_and_wait(request, folder, stderr, threads, timeout_s)
                if code is None:
                    raise _timed_out(job, timeout_s)
                if not result.exists():
                    raise _no_result(job, code, _tail(stderr))
            return _read(result, job)

    def _cpus(self, threads: int) -> list[int]:
        if not self._pin or not hasattr(os, "sched_getaffinity"):
            return []
        allowed = sorted(os.sched_getaffinity(0))
        return allowed[-threads:] if threads < len(allowed) else []

    def _start_and_wait(
        self, request: Path, folder: Path, stderr: BinaryIO, threads: int, timeout_s: float
    ) -> int | None:
        """Returns the exit code, None if the worker had to be killed."""
        try:
            process = subprocess.Popen(
                [*self._command, str(request)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                cwd=folder,
                env=_environment(folder, threads),
                start_new_session=True,
            )
        except OSError as error:
            raise WorkerError(
                f"no worker can be started: {self._command[0]}: {error.strerror or error}",
                "check that this program can be run.",
            ) from error
        try:
            return process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        finally:
            if process.poll() is None:
                _kill(process)


def _environment(folder: Path, threads: int) -> dict[str, str]:
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    return {**kept, **dict.fromkeys(THREAD_VARIABLES, str(threads)), "TMPDIR": str(folder)}


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Ends the worker and whatever it started, and waits, so that no zombie is left."""
    if hasattr(os, "killpg"):
        # The worker leads its group, and is not waited for yet: the number cannot belong to anyone else.
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def _what(job: Mapping[str, Any]) -> str:
    doing = DOING.get(str(job.get("action")), "working on")
    artifact = Path(str(job.get("artifact", ""))).name or "an artifact"
    return f"{doing} {artifact} in {job.get('runtime')}"


def _timed_out(job: Mapping[str, Any], timeout_s: float) -> WorkerError:
    return WorkerError(
        f"the worker was ended after {timeout_s:g} s while {_what(job)}",
        "raise measure.timeout_s, or use fewer rows.",
    )


def _no_result(job: Mapping[str, Any], code: int, tail: str) -> WorkerError:
    said = f"; its last words:\n{tail}" if tail else ""
    if code >= 0:
        return WorkerError(f"the worker ended with code {code} and no result while {_what(job)}{said}")
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = "the machine may be out of memory: free some, or use a smaller batch." if name == "SIGKILL" else ""
    return WorkerError(f"the worker was killed by {name} while {_what(job)}{said}", hint)


def _tail(stderr: BinaryIO) -> str:
    size = stderr.seek(0, os.SEEK_END)
    stderr.seek(max(0, size - STDERR_BYTES))
    lines = stderr.read().decode("utf-8", errors="replace").splitlines()
    return "\n".join(line.rstrip() for line in lines[-STDERR_LINES:])


def _read(result: Path, job: Mapping[str, Any]) -> dict[str, Any]:
    try:
        values = json.loads(result.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WorkerError(f"the worker left an unreadable result while {_what(job)}: {error}") from error
    if not isinstance(values, dict):
        raise WorkerError(f"the worker left a result that is no JSON object while {_what(job)}")
    return values

"""Starting a worker and waiting for it: one way for this machine and for one that is reached over a network."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from .job import SCHEMA

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
# On a GPU libraries of NVIDIA may round the inputs of float32 products to 10 bits (TF32): float32 stays what it says.
FIXED = {"NVIDIA_TF32_OVERRIDE": "0"}
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")

# How long after its timeout a worker whose parent died ends itself.
ALARM_GRACE_S = 10.0
STDERR_LINES = 5
STDERR_BYTES = 4096


@dataclass(frozen=True)
class Ended:
    """How a worker ended.

    Attributes:
        code: Its exit code, negative for a signal; None where it was ended because its time was up.
        tail: The last lines of its standard error.
        result: What lies in its result file; None where there is none.
    """

    code: int | None
    tail: str
    result: bytes | None


class NobodyWaitsError(Exception):
    """Whoever asked is gone: the worker was ended."""


def run_worker(
    command: Sequence[str],
    job: Mapping[str, Any],
    folder: Path,
    timeout_s: float,
    *,
    pin: bool = True,
    asker: int | None = None,
) -> Ended:
    """Starts a worker, waits for it, and ends it and all that it started where its time is up.

    1. It leads a session of its own and runs in `folder`, which is also its `TMPDIR`.
    2. Where the system allows it, it stays on the last processors that this process may use, as many as it has
       threads, one on each core as far as there are cores: the first ones serve most interrupts, and two threads on
       one core share its units. If it needs all of them, or without `pin`, it may move.

    Args:
        command: The program that runs the worker folder; the job's path is added.
        job: But for `schema`, `result`, `cpus` and `limit_s`.
        folder: For the job, the result and what the worker writes by the way.
        timeout_s: After which it is ended.
        pin: See 2.
        asker: A descriptor that ends, or says something, when nobody waits for the answer any more.

    Raises:
        OSError: If the command cannot be started.
        NobodyWaitsError: See `asker`.
    """
    result, request = folder / "result.json", folder / "job.json"
    threads = max(int(job.get("threads", 1)), int(job.get("rival_threads", 0)))
    own = {"result": str(result), "cpus": _cpus(threads) if pin else [], "limit_s": timeout_s + ALARM_GRACE_S}
    request.write_text(json.dumps({"schema": SCHEMA, **job, **own}), encoding="utf-8")
    with (folder / "stderr").open("w+b") as stderr:
        process = subprocess.Popen(
            [*command, str(request)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            cwd=folder,
            env=_environment(folder, threads),
            start_new_session=True,
        )
        try:
            code = _wait(process, timeout_s, asker)
        finally:
            if process.poll() is None:
                _kill(process)
        return Ended(code, _tail(stderr), result.read_bytes() if result.exists() else None)


def _wait(process: subprocess.Popen[bytes], timeout_s: float, asker: int | None) -> int | None:
    """Returns the exit code, None where the time is up."""
    if asker is None:
        try:
            return process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
    ended = _end_of(process)
    try:
        # No polling: it would disturb what the worker times.
        ready, _, _ = select.select([ended, asker], [], [], timeout_s)
    finally:
        os.close(ended)
    if ended in ready:
        return process.wait()
    if ready:
        raise NobodyWaitsError
    return None


def _end_of(process: subprocess.Popen[bytes]) -> int:
    """A descriptor that can be read when the process has ended."""
    with contextlib.suppress(OSError, AttributeError):
        return os.pidfd_open(process.pid)
    # Linux before 5.3, as on many a phone: a thread waits, and its end closes a pipe.
    ended, writer = os.pipe()

    def wait() -> None:
        process.wait()
        os.close(writer)

    threading.Thread(target=wait, daemon=True).start()
    return ended


def choose_cpus(threads: int, allowed: Sequence[int], root: Path = Path("/")) -> list[int]:
    """Returns the processors that so many threads are to stay on; none where they need all of them.

    Args:
        threads: Of the runtime.
        allowed: Numbers of the processors that may be used.
        root: Where `sys` is found.
    """
    if threads >= len(allowed):
        return []
    chosen: list[int] = []
    siblings: list[int] = []
    cores: set[str] = set()
    for cpu in sorted(allowed, reverse=True):
        core = _core(cpu, root)
        (siblings if core in cores else chosen).append(cpu)
        cores.add(core)
    return sorted([*chosen, *siblings][:threads])


def _core(cpu: int, root: Path) -> str:
    """What processors on one core have in common; each its own where the system does not tell."""
    for name in ("core_cpus_list", "thread_siblings_list"):
        with contextlib.suppress(OSError):
            return (root / f"sys/devices/system/cpu/cpu{cpu}/topology/{name}").read_text(encoding="ascii").strip()
    return str(cpu)


def _cpus(threads: int) -> list[int]:
    return choose_cpus(threads, sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else []


def _environment(folder: Path, threads: int) -> dict[str, str]:
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    return {**kept, **FIXED, **dict.fromkeys(THREAD_VARIABLES, str(threads)), "TMPDIR": str(folder)}


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Ends the worker and whatever it started, and waits, so that no zombie is left."""
    if hasattr(os, "killpg"):
        # The worker leads its group, and is not waited for yet: the number cannot belong to anyone else.
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def _tail(stderr: BinaryIO) -> str:
    size = stderr.seek(0, os.SEEK_END)
    stderr.seek(max(0, size - STDERR_BYTES))
    lines = stderr.read().decode("utf-8", errors="replace").splitlines()
    return "\n".join(line.rstrip() for line in lines[-STDERR_LINES:])

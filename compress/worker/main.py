"""A worker's life: read the job, stay on its processors, do it, write the result."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from .actions import perform
from .errors import JobError
from .job import Job, parse_job, read_json, write_result

# <linux/prctl.h>
_PR_SET_PDEATHSIG = 1


def main(arguments: Sequence[str]) -> int:
    """Runs the job in the file that the only argument names; with `--serve FOLDER`, answers requests; see `serve`.

    Results and errors go to the job's result file, since standard output and error belong to the runtime's own
    messages. A job that cannot be read has no such file; what is wrong with it goes to standard error.

    Returns:
        The exit code: 0, or 1 if the result is an error.
    """
    if len(arguments) == 2 and arguments[0] == "--serve":
        from .serve import serve

        return serve(Path(arguments[1]))
    if len(arguments) != 1:
        print("usage: python -I WORKER_FOLDER JOB.json | --serve FOLDER", file=sys.stderr)
        return 1
    try:
        job = parse_job(read_json(Path(arguments[0])))
    except JobError as error:
        print(f"{error.message} {error.hint}".strip(), file=sys.stderr)
        return 1
    try:
        _settle(job)
        result = perform(job)
    except Exception as error:  # whatever a runtime raises becomes an answer, never a traceback
        write_result(Path(job.result), {"action": job.action, "error": _worded(error)})
        return 1
    write_result(Path(job.result), {"action": job.action, "cpus": _stayed_on(job), **result})
    return 0


def _settle(job: Job) -> None:
    """Sets the alarm, the end and the processors before the runtime starts its threads."""
    _end_with_parent()
    if job.limit_s and hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, job.limit_s)
    if job.cpus and hasattr(os, "sched_setaffinity"):
        # Staying put steadies the times; a machine that forbids it is measured all the same.
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, job.cpus)


def _stayed_on(job: Job) -> list[int]:
    """The processors that this process was bound to; none where it might move, whether asked or not allowed."""
    if not job.cpus or not hasattr(os, "sched_getaffinity"):
        return []
    bound = sorted(os.sched_getaffinity(0))
    return bound if bound == sorted(job.cpus) else []


def _end_with_parent() -> None:
    """Asks Linux to end this process when the one that started it is gone, however that one was killed."""
    if sys.platform != "linux":
        return
    # Without it the alarm still ends a worker that nobody waits for, only later.
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))


def _worded(error: Exception) -> dict[str, str]:
    if isinstance(error, JobError):
        return {"type": "JobError", "message": error.message, "hint": error.hint}
    text = str(error).strip() or "no message"
    return {"type": type(error).__name__, "message": f"{type(error).__name__}: {text}", "hint": ""}

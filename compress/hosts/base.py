"""The contract of a host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

# Keys of a job that name files. A host that runs elsewhere carries them and rewrites these keys.
INPUT_FILES = ("artifact", "rival", "inputs", "rival_inputs")
OUTPUT_FILES = ("outputs",)


class Host(Protocol):
    """Where a worker runs. A class of hosts has a class method `for_target(target)` that makes one without reaching it.

    1. The job holds the keys of `compress.worker.job.Job` but for `schema`, `result`, `cpus` and `limit_s`, which are
       the host's. Its paths are absolute and lie on this machine; `outputs` is there when `run` returns.
    2. A worker that answers with an error has answered: the result holds `error`. `ask` turns it into an exception.
    3. No process and no file that the host made outlives `run`, whichever way it ends; on another machine, none
       outlives the connection.
    """

    @property
    def tells_time(self) -> bool:
        """Whether times taken there are those of the device; a host for which they are not refuses to take any."""

    @property
    def times_only(self) -> str:
        """Why it takes times and gives no answers; empty where it gives answers."""

    @property
    def machine(self) -> str:
        """Names the processor that answers and what stands in for it, for keys of results; empty: this machine's."""

    def facts(self) -> dict[str, Any]:
        """What the machine says of itself now; empty: this machine, or one that does not say."""

    def run(self, job: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """Runs one job in a fresh process and returns its result.

        Raises:
            WorkerError: If the worker crashed, ran longer than `timeout_s`, or left no result.
        """

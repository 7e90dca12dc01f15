"""Another processor on this machine: QEMU runs the unmodified runtime, instruction by instruction."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compress.errors import WorkerError
from compress.hosts.emulation import Emulation, emulation_folder, find_emulation
from compress.hosts.local import WORKER, LocalHost
from compress.processors import PROCESSORS, Processor
from compress.target import Target

# What only takes times. They would be those of an emulator.
TIMED = ("latency", "duel", "sparse", "profile")
_WARNING = "warning: TCG doesn't support requested feature"


class EmulatedHost:
    """Runs workers on an emulated processor. It answers whether decisions are the same there, never how fast.

    1. The worker, the artifact and the rows are read where they lie; everything else is as on `LocalHost`.
    2. Jobs that take times are refused.
    3. What is missing is told when a job is run, with the command that brings it.
    """

    tells_time = False
    times_only = ""

    def __init__(self, processor: Processor, emulation: Emulation | None = None, worker: Path = WORKER) -> None:
        self._processor = processor
        self._emulation = emulation
        self._worker = worker

    @classmethod
    def for_target(cls, target: Target) -> EmulatedHost:
        """Returns the processor that `cpu` names."""
        return cls(PROCESSORS[target.cpu])

    @property
    def machine(self) -> str:
        """The processor, and what stands in for it where that is known."""
        try:
            return f"{self._processor.name} ({self._found(None).identity})"
        except WorkerError:
            return self._processor.name

    def facts(self) -> dict[str, Any]:
        """Nothing: what is emulated has no clock, no battery and no temperature."""
        return {}

    def run(self, job: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """Runs one job in a fresh process; see `Host.run`.

        Raises:
            WorkerError: If the job takes times, emulation is not set up, or the worker crashed, ran longer than
                `timeout_s`, or left no result.
        """
        name = self._processor.name
        if job.get("action") in TIMED:
            raise WorkerError(
                f"an emulated {name} gives answers, not speed: it takes no times",
                "take times on the device itself, or on this machine.",
            )
        found = self._found(str(job.get("runtime", "")))
        host = LocalHost(self._worker, str(found.python), pin=False, launcher=found.launcher)
        try:
            return host.run(job, timeout_s)
        except WorkerError as error:
            raise _on(name, error) from error

    def _found(self, runtime: str | None) -> Emulation:
        return self._emulation or find_emulation(self._processor, emulation_folder(), runtime)


def _on(name: str, error: WorkerError) -> WorkerError:
    """Says where it happened, without QEMU's list of what it leaves out, and what a crash there means."""
    lines = [line for line in error.message.splitlines() if _WARNING not in line]
    if len(lines) == 1:
        lines = [lines[0].removesuffix("; its last words:")]
    hint = error.hint
    if "SIGILL" in lines[0]:
        hint = f"the runtime uses an instruction that {name} does not have: it does not run there."
    elif any("unable to find CPU model" in line for line in lines):
        hint = "this QEMU does not know the processor: install a newer one."
    return WorkerError("\n".join([f"on the emulated {name}: {lines[0]}", *lines[1:]]), hint)

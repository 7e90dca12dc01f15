"""An Android phone, reached by adb: the worker where the phone has Python, else the runtime's own benchmark program."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from typing import Any

from compress.errors import WorkerError
from compress.hosts.adb_client import TELLING, Adb, find_device, helping
from compress.hosts.adb_program import Program
from compress.hosts.adb_state import ABIS, MIN_SDK, SCRIPT, DeviceState, parse_state
from compress.hosts.adb_tools import tool_for
from compress.hosts.emulated import TIMED
from compress.hosts.far import BOOT, Connection, LostError
from compress.target import AdbSettings, Target

# How often a phone that is too warm is looked at, and how often a job is done again that it disturbed.
LOOK_S = 5.0
ATTEMPTS = 3


class AdbHost:
    """Runs jobs on a phone.

    1. Where the target names `adb.python`, the worker runs there and everything is as on a machine over SSH. Where it
       names `adb.benchmark_binary`, that program takes times and memory; it gives no answers.
    2. What lies there is one folder, removed when the connection ends, however it ends; so is what runs.
    3. Times are refused while the phone throttles or its battery is low. It is given `adb.cool_s` seconds to cool;
       times during which it began to throttle are thrown away and taken again, `ATTEMPTS` times in all.
    """

    tells_time = True

    def __init__(self, settings: AdbSettings, runtime: str) -> None:
        self._settings, self._runtime = settings, runtime
        self._adb: Adb | None = None
        self._first: DeviceState | None = None
        self._connection: Connection | None = None
        self._program: Program | None = None

    @classmethod
    def for_target(cls, target: Target) -> AdbHost:
        """Returns the phone that the table `[adb]` names.

        Raises:
            ValueError: If there is none; `Target` refuses such a file.
        """
        if target.adb is None:
            raise ValueError("the target has no table [adb]")
        return cls(target.adb, target.runtime)

    @property
    def times_only(self) -> str:
        """Why it gives no answers: a benchmark program prints times and keeps the outputs to itself."""
        if self._settings.benchmark_binary is None:
            return ""
        return f"{tool_for(self._runtime).name} takes times and gives no outputs"

    @property
    def machine(self) -> str:
        """The phone's model, chip, instruction set and Android version; its serial where it cannot be reached."""
        try:
            self._device()
        except WorkerError:
            return self._settings.serial or "a phone over adb"
        return self._first.title if self._first else ""

    def facts(self) -> dict[str, Any]:
        """Model, chip, clocks, temperatures, battery and thermal status as they are now; nothing out of reach."""
        try:
            device = self._device()
            return {"serial": device.serial, **self._look(device).facts()}
        except WorkerError:
            return {}

    def run(self, job: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """Runs one job there; see `Host.run`.

        Raises:
            WorkerError: If there is no adb or no such device, the connection broke, the phone throttles or its battery
                is low, or the worker or the program failed.
        """
        device = self._device()
        if job.get("action") not in TIMED:
            return self._run(device, job, timeout_s)
        reason = ""
        for _ in range(ATTEMPTS):
            before = self._ready(device)
            answer = self._run(device, job, timeout_s)
            reason = self._look(device).refusal(before, 0)
            if not reason:
                return answer
        raise WorkerError(
            f"on {device.serial}: {reason}, in {ATTEMPTS} attempts", "let it cool, or measure fewer seconds at a time."
        )

    def close(self) -> None:
        """Ends the connection, and with it all that lies there."""
        for part in (self._connection, self._program):
            if part is not None:
                part.close()
        self._connection = self._program = None

    def _device(self) -> Adb:
        if self._adb is None:
            device = find_device(self._settings.serial)
            state = self._look(device)
            if state.sdk < MIN_SDK:
                raise WorkerError(
                    f"on {device.serial}: {state.title}: Android 8 (API level {MIN_SDK}) or newer is needed;"
                    f" it says {state.sdk}",
                    "use a newer phone.",
                )
            if state.abi not in ABIS:
                raise WorkerError(
                    f"on {device.serial}: its instruction set {state.abi!r} is unknown", f"known: {', '.join(ABIS)}."
                )
            self._adb, self._first = device, state
        return self._adb

    def _look(self, device: Adb) -> DeviceState:
        return parse_state(device.shell(SCRIPT).text)

    def _ready(self, device: Adb) -> DeviceState:
        """The phone's state when nothing speaks against taking times; waits for it to cool.

        Raises:
            WorkerError: If it does not cool, or its battery is low.
        """
        end = time.monotonic() + self._settings.cool_s
        while True:
            state = self._look(device)
            reason = state.refusal(self._first, self._settings.min_battery)
            if not reason:
                return state
            if "battery" in reason:
                raise WorkerError(f"on {device.serial}: {reason}", "charge it first.")
            if time.monotonic() >= end:
                raise WorkerError(
                    f"on {device.serial}: {reason}, and did not stop within {self._settings.cool_s:g} s",
                    "let it cool, out of its case and off the charger, or raise adb.cool_s.",
                )
            time.sleep(min(LOOK_S, max(0.0, end - time.monotonic())))

    def _run(self, device: Adb, job: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        if self._settings.benchmark_binary is not None:
            return self._by_program(device, job, timeout_s)
        connection = self._connected(device)
        try:
            return connection.answer(job, timeout_s, device.serial)
        except (OSError, LostError) as error:
            raise self._lost(device, connection, error) from error
        except WorkerError:
            # The worker failed, or a file here cannot be read: the connection is as good as before.
            raise
        except BaseException:
            # An interruption in the middle of a frame: nothing after it could be understood.
            self.close()
            raise

    def _by_program(self, device: Adb, job: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        if self._program is None:
            self._program = Program(device, self._settings, self._runtime, self._first or self._look(device))
        try:
            return self._program.run(job, timeout_s)
        except WorkerError:
            if not self._program.alive:
                self.close()
                # The next job looks for the phone anew: another one may be plugged in.
                self._adb = None
            raise
        except BaseException:
            self.close()
            raise

    def _connected(self, device: Adb) -> Connection:
        if self._connection is None:
            connection = Connection(device.command(self._boot()))
            try:
                connection.greet()
            except (OSError, LostError) as error:
                raise self._lost(device, connection, error) from error
            self._connection = connection
        return self._connection

    def _boot(self) -> str:
        settings = self._settings
        python = shlex.join([str(settings.python), "-I", "-c", BOOT])
        folder = f"TMPDIR={shlex.quote(settings.folder)}"
        if settings.run_as is not None:
            return f"exec run-as {settings.run_as} env {folder} {python}"
        return f"{folder} exec {python}"

    def _lost(self, device: Adb, connection: Connection, error: Exception) -> WorkerError:
        said = connection.said(isinstance(error, OSError), TELLING) or str(error)
        connection.close()
        self._connection = None
        if isinstance(error, LostError):
            return WorkerError(f"on {device.serial}: {said}", helping(said, device.serial))
        # The next job looks for the phone anew: another one may be plugged in.
        self._adb = None
        return device.failure(said)

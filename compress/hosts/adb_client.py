"""adb's command line: which device, what it says, files there and back, and what helps when it fails."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from compress.errors import WorkerError
from compress.hosts.far import CARRY_S

# For what answers at once on a phone that answers at all.
ANSWER_S = 60.0
# The first call may start adb's own server.
SERVER_S = 30.0
MAX_SAID_BYTES = 1 << 24

_MARK = "edge-compress-ended:"
# A part of what adb or the phone says, and what helps.
HINTS = (
    ("unauthorized", "unlock the phone and allow this computer; see docs/targets.md if it does not ask."),
    ("authorizing", "unlock the phone and allow this computer, then try again."),
    ("offline", "plug it in again, or: adb reconnect"),
    ("no permissions", "let this user open it: apt-get install android-sdk-platform-tools-common, then plug in again."),
    ("recovery", "start the phone as usual: adb reboot"),
    ("bootloader", "start the phone as usual: fastboot reboot"),
    ("sideload", "start the phone as usual: adb reboot"),
    ("cannot connect to daemon", "start adb's server by hand, to see what it says: adb start-server"),
    ("No space left", "free some on the phone: adb shell df /data"),
    ("Read-only file system", "name a folder that adb may write to by adb.folder: /data/local/tmp"),
    (
        "Permission denied",
        "name what adb may read and write: adb.folder under /data/local/tmp; adb.run_as for an app's.",
    ),
    ("is not debuggable", "only a debuggable app lets adb in: see docs/targets.md, or use adb.benchmark_binary."),
    ("unknown package", "check adb.run_as against: adb shell pm list packages"),
    ("edge-compress: Python", "name another one by adb.python in the target file."),
    ("inaccessible or not found", "check adb.python or adb.benchmark_binary in the target file."),
    ("No such file or directory", "check adb.python or adb.benchmark_binary in the target file."),
    ("cannot execute", "build it for the phone's processor and for Android: see docs/targets.md"),
    ("not executable", "build it for the phone's processor and for Android: see docs/targets.md"),
    ("CANNOT LINK EXECUTABLE", "put the libraries that it needs beside it, or link it statically."),
    (": not found", "check adb.python or adb.benchmark_binary in the target file."),
    ("not found", "plug it in, and compare adb.serial with what is listed by: adb devices"),
    ("closed", "the cable or the phone let go: plug it in again, and keep the phone awake."),
)
TELLING = tuple(part for part, _ in HINTS)


@dataclass(frozen=True)
class Said:
    """What a command on the phone wrote to its standard output, and its exit code."""

    code: int
    text: str


def helping(said: str, serial: str) -> str:
    """Returns what helps against what adb or the phone said."""
    return next((hint for part, hint in HINTS if part in said), f"try: adb -s {serial} shell")


class Adb:
    """adb for one device."""

    def __init__(self, program: str, serial: str) -> None:
        self.serial = serial
        self._program = program

    def command(self, script: str) -> list[str]:
        """The command that runs a script in the phone's shell, without a terminal: bytes pass as they are."""
        return [self._program, "-s", self.serial, "shell", "-T", script]

    def shell(self, script: str, timeout_s: float = ANSWER_S) -> Said:
        """Runs a script in the phone's shell.

        Raises:
            WorkerError: If adb fails, the phone is lost, or the time is up.
        """
        # Whether the script failed or adb did is told by the mark alone: adb's own code may be either's.
        text, error = _call(self.command(f'{script}\necho "{_MARK}$?"'), timeout_s, self.serial)
        body, found, code = text.rpartition(_MARK)
        if not found or not code.strip().isdecimal():
            raise self.failure(error or text)
        return Said(int(code), body)

    def push(self, path: Path, there: str) -> None:
        """Copies a file to the phone.

        Raises:
            WorkerError: If it does not arrive.
        """
        _, error = _call([self._program, "-s", self.serial, "push", str(path), there], CARRY_S, self.serial, True)
        if error:
            raise self.failure(error)

    def pull(self, there: str, path: Path) -> None:
        """Copies a file from the phone.

        Raises:
            WorkerError: If it does not arrive.
        """
        _, error = _call([self._program, "-s", self.serial, "pull", there, str(path)], CARRY_S, self.serial, True)
        if error:
            raise self.failure(error)

    def failure(self, said: str) -> WorkerError:
        """What adb said, as an error; where the phone is not ready any more, that."""
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        telling = [line for line in lines if any(part in line for part in TELLING)] or lines or ["adb said nothing"]
        state = dict(list_devices(self._program)).get(self.serial, "not found")
        message = telling[-1] if state == "device" else f"{telling[-1]} (the phone is {state})"
        return WorkerError(
            f"on {self.serial}: {message}", helping(telling[-1] if state == "device" else state, self.serial)
        )


def find_device(serial: str | None) -> Adb:
    """Returns adb for the device with a serial, or for the only one.

    Raises:
        WorkerError: If adb is not there, the device is not, it is not ready, or there are several and none is named.
    """
    program = shutil.which("adb")
    if program is None:
        raise WorkerError("there is no adb here", "install it: apt-get install adb, or Android's platform tools.")
    devices = list_devices(program)
    listed = ", ".join(f"{name} ({state})" for name, state in devices) or "none"
    if serial is None:
        if not devices:
            raise WorkerError(
                "adb lists no device", "plug the phone in, turn on USB debugging in its Developer options: adb devices"
            )
        if len(devices) > 1:
            raise WorkerError(
                f"adb lists {len(devices)} devices: {listed}", "name one by adb.serial in the target file."
            )
        serial = devices[0][0]
    state = dict(devices).get(serial)
    if state is None:
        raise WorkerError(
            f"adb lists no device {serial!r}; it lists {listed}",
            "plug it in, or correct adb.serial in the target file.",
        )
    if state != "device":
        raise WorkerError(f"the device {serial} is {state}", helping(state, serial))
    return Adb(program, serial)


def list_devices(program: str) -> list[tuple[str, str]]:
    """Returns the serial and the state of every device that adb lists; a device that is ready is `device`.

    Raises:
        WorkerError: If adb fails.
    """
    _call([program, "start-server"], SERVER_S, "")
    text, error = _call([program, "devices"], SERVER_S, "")
    _, found, listed = text.partition("List of devices attached")
    if not found:
        raise WorkerError(f"adb devices: {(error or text).strip() or 'said nothing'}", helping(error or text, ""))
    found_rows = (re.fullmatch(r"(\S+)\s+(\S.*)", line.strip()) for line in listed.splitlines())
    return [(row[1], row[2].partition(";")[0].strip()) for row in found_rows if row]


def _call(command: list[str], timeout_s: float, serial: str, failed_only: bool = False) -> tuple[str, str]:
    """Standard output and error of an adb command; with `failed_only` the error is empty where it succeeded."""
    # Files, not pipes: adb's server, which the first call leaves running, may keep a pipe open for ever.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as error:
        try:
            code = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=error, timeout=timeout_s, check=False
            ).returncode
        except subprocess.TimeoutExpired as late:
            what = " ".join(command[1:4] if serial else command[1:2])
            raise WorkerError(
                f"adb {what} did not end within {timeout_s:g} s",
                "wake the phone and plug it in again; if that does not help: adb kill-server",
            ) from late
        except OSError as wrong:
            raise WorkerError(
                f"adb cannot be started: {wrong.strerror or wrong}", "check that it can be run."
            ) from wrong
        texts = []
        for stream in (out, error):
            stream.seek(0)
            texts.append(stream.read(MAX_SAID_BYTES).decode(errors="replace").replace("\r\n", "\n"))
    if failed_only:
        return texts[0], "" if code == 0 else "\n".join(reversed(texts)).strip() or f"adb ended with code {code}"
    return texts[0], texts[1]

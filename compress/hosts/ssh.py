"""A machine reached over SSH: the OpenSSH client carries the worker, the files and the answers."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping
from typing import Any

from compress.errors import WorkerError
from compress.hosts.far import BOOT, Connection, LostError
from compress.target import SshSettings, Target

# Asks nothing, trusts no key that is not known yet, forwards nothing, and notices a dead network within half a minute.
OPTIONS = (
    "BatchMode=yes",
    "StrictHostKeyChecking=yes",
    "ClearAllForwardings=yes",
    "ForwardAgent=no",
    "ConnectTimeout=15",
    "ServerAliveInterval=10",
    "ServerAliveCountMax=3",
)

# A part of what ssh says, and what helps.
_HINTS = (
    ("Host key verification failed", "connect once by hand and compare the fingerprint: ssh {address}"),
    ("REMOTE HOST IDENTIFICATION HAS CHANGED", "find out why before anything else: it may be another machine."),
    ("Permission denied", "let it in by key, without a password: ssh-copy-id {address}, and ssh-add for a passphrase."),
    ("Could not resolve hostname", "check ssh.address in the target file."),
    ("Connection refused", "start its ssh server, or check the port in ssh.config."),
    ("timed out", "check that it is on and in this network."),
    ("edge-compress: Python", "name another one by ssh.python in the target file."),
    ("not found", "name its Python by ssh.python in the target file."),
    ("No such file or directory", "name its Python by ssh.python in the target file."),
    ("No space left", "free some there, or let TMPDIR point to another disk."),
)


class SshHost:
    """Runs workers on another machine, with its Python.

    1. One connection carries all jobs of a host. What lies there is one folder: the worker, each file once, by its
       sha256. It is removed when the connection ends, however it ends, and the worker that runs is ended with it.
    2. Who it is must be known already: host keys are verified and never accepted unseen; nothing asks for a password.
    3. A connection that broke is an error of that job; the next one connects again.
    """

    tells_time = True
    times_only = ""

    def __init__(self, settings: SshSettings) -> None:
        self._settings = settings
        self._connection: Connection | None = None
        self._machine: dict[str, Any] = {}

    @classmethod
    def for_target(cls, target: Target) -> SshHost:
        """Returns the machine that the table `[ssh]` names.

        Raises:
            ValueError: If there is none; `Target` refuses such a file.
        """
        if target.ssh is None:
            raise ValueError("the target has no table [ssh]")
        return cls(target.ssh)

    @property
    def machine(self) -> str:
        """Its address, processor and system; only the address where it cannot be reached."""
        try:
            self._connected()
        except WorkerError:
            return self._settings.address
        found = self._machine
        parts = (found["cpu"], found["architecture"], f"Linux {found['kernel']}", f"Python {found['python']}")
        return f"{self._settings.address} ({', '.join(str(part) for part in parts if part)})"

    def facts(self) -> dict[str, Any]:
        """What it says of itself now; nothing where it cannot be reached."""
        try:
            connection = self._connected()
        except WorkerError:
            return {}
        try:
            return {"address": self._settings.address, **connection.machine()}
        except (OSError, LostError) as error:
            self._lost(connection, error)
            return {}

    def run(self, job: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """Runs one job in a fresh process there; see `Host.run`.

        Raises:
            WorkerError: If it cannot be reached, the connection broke, a file does not fit there, or the worker
                crashed, ran longer than `timeout_s`, or left no result.
        """
        connection = self._connected()
        try:
            return connection.answer(job, timeout_s, self._settings.address)
        except (OSError, LostError) as error:
            raise self._lost(connection, error) from error
        except WorkerError:
            # The worker failed, or a file here cannot be read: the connection is as good as before.
            raise
        except BaseException:
            # An interruption in the middle of a frame: nothing after it could be understood.
            self.close()
            raise

    def close(self) -> None:
        """Ends the connection, and with it all that lies there."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connected(self) -> Connection:
        if self._connection is None:
            connection = Connection(_command(self._settings))
            try:
                self._machine = connection.greet()
            except (OSError, LostError) as error:
                raise self._lost(connection, error) from error
            self._connection = connection
        return self._connection

    def _lost(self, connection: Connection, error: Exception) -> WorkerError:
        said = connection.said(isinstance(error, OSError), [part for part, _ in _HINTS]) or str(error)
        connection.close()
        self._connection = None
        address = self._settings.address
        hint = next((text.format(address=address) for part, text in _HINTS if part in said), "try: ssh " + address)
        return WorkerError(f"on {address}: {said}", hint)


def _command(settings: SshSettings) -> list[str]:
    program = shutil.which("ssh")
    if program is None:
        raise WorkerError("there is no ssh here", "install OpenSSH's client: apt-get install openssh-client.")
    command = [program, "-T", *(f"-o{option}" for option in OPTIONS)]
    if settings.config is not None:
        command += ["-F", settings.config]
    return [*command, "--", settings.address, shlex.join([settings.python, "-I", "-c", BOOT])]

"""A machine reached over SSH: the OpenSSH client carries the worker, the files and the answers."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shlex
import shutil
import subprocess
import tarfile
import tempfile
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from compress.errors import WorkerError
from compress.hosts.base import INPUT_FILES
from compress.hosts.local import WORKER
from compress.hosts.words import answer_of
from compress.target import SshSettings, Target
from compress.worker.launch import STDERR_BYTES, Ended

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
CONNECT_S = 60.0
# Beside a job's own time: for what is copied there and back.
CARRY_S = 600.0
MIN_PYTHON = (3, 10)

# What the other side runs first: it unpacks the worker folder, whose hash it checks, and becomes `serve`.
_BOOT = f"""
import hashlib, io, os, shutil, sys, tarfile, tempfile
if sys.version_info < {MIN_PYTHON}:
    sys.exit("edge-compress: Python %d.%d or newer is needed; this is " % {MIN_PYTHON} + sys.version.split()[0])
def read(count):
    data = b""
    while len(data) < count:
        part = os.read(0, count - len(data))
        if not part:
            sys.exit(1)
        data += part
    return data
digest, data = read(64).decode(), read(int(read(12)))
if hashlib.sha256(data).hexdigest() != digest:
    sys.exit("edge-compress: the worker arrived with other bytes")
folder = None
try:
    folder = tempfile.mkdtemp(prefix="edge-compress-")
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            os.makedirs(os.path.join(folder, "worker"), exist_ok=True)
            with open(os.path.join(folder, "worker", os.path.basename(member.name)), "wb") as file:
                file.write(archive.extractfile(member).read())
except OSError as error:
    shutil.rmtree(folder or "", ignore_errors=True)
    sys.exit("edge-compress: " + str(error))
os.execv(sys.executable, [sys.executable, "-I", os.path.join(folder, "worker"), "--serve", folder])
"""

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

    def __init__(self, settings: SshSettings) -> None:
        self._settings = settings
        self._connection: _Connection | None = None
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

    def run(self, job: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """Runs one job in a fresh process there; see `Host.run`.

        Raises:
            WorkerError: If it cannot be reached, the connection broke, a file does not fit there, or the worker
                crashed, ran longer than `timeout_s`, or left no result.
        """
        connection = self._connected()
        try:
            ended = connection.run(job, timeout_s)
        except (OSError, _LostError) as error:
            raise self._lost(connection, error) from error
        except BaseException:
            # An interruption in the middle of a frame: nothing after it could be understood.
            self.close()
            raise
        try:
            return answer_of(ended, job, timeout_s)
        except WorkerError as error:
            raise WorkerError(f"on {self._settings.address}: {error.message}", error.hint) from error

    def close(self) -> None:
        """Ends the connection, and with it all that lies there."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connected(self) -> _Connection:
        if self._connection is None:
            connection = _Connection(self._settings)
            try:
                self._machine = connection.greet()
            except (OSError, _LostError) as error:
                raise self._lost(connection, error) from error
            self._connection = connection
        return self._connection

    def _lost(self, connection: _Connection, error: Exception) -> WorkerError:
        said = connection.said(ended=isinstance(error, OSError)) or str(error)
        connection.close()
        self._connection = None
        address = self._settings.address
        hint = next((text.format(address=address) for part, text in _HINTS if part in said), "try: ssh " + address)
        return WorkerError(f"on {address}: {said}", hint)


class _LostError(Exception):
    """The other side could not do what was asked."""


class _Connection:
    """An ssh process and the frames that go through it; see `compress.worker.serve`."""

    def __init__(self, settings: SshSettings) -> None:
        program = shutil.which("ssh")
        if program is None:
            raise WorkerError("there is no ssh here", "install OpenSSH's client: apt-get install openssh-client.")
        command = [program, "-T", *(f"-o{option}" for option in OPTIONS)]
        if settings.config is not None:
            command += ["-F", settings.config]
        command += ["--", settings.address, shlex.join([settings.python, "-I", "-c", _BOOT])]
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the process)
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr, bufsize=0
        )
        # Also when the program ends without closing: the other side cleans up when its input ends.
        self._finish = weakref.finalize(self, _end, self._process, self._stderr)

    def greet(self) -> dict[str, Any]:
        """Sends the worker and returns what the machine says of itself."""
        data = _worker_archive()
        with self._within(CONNECT_S):
            self._write(hashlib.sha256(data).hexdigest().encode() + f"{len(data):012d}".encode() + data)
            found: dict[str, Any] = self._read()[0]["machine"]
        return found

    def run(self, job: Mapping[str, Any], timeout_s: float) -> Ended:
        """Carries the files that are not there yet, runs the job, and writes its outputs here."""
        given = {key: Path(str(job[key])) for key in INPUT_FILES if job.get(key)}
        with self._within(CARRY_S):
            files = {key: (_sha256(path), path) for key, path in given.items()}
            missing = self._ask({"do": "have", "sha256": sorted({name for name, _ in files.values()})})[0]["missing"]
            for name, path in dict(files.values()).items():
                if name in missing:
                    self._put(name, path)
        request = {
            "do": "run",
            "job": {key: value for key, value in job.items() if key not in given},
            "files": {key: (name, path.name) for key, (name, path) in files.items()},
            "timeout_s": timeout_s,
        }
        with self._within(timeout_s + CARRY_S):
            answer, body = self._ask(request)
        if body and job.get("outputs"):
            Path(str(job["outputs"])).write_bytes(body)
        result = answer["result"]
        return Ended(answer["code"], answer["tail"], None if result is None else result.encode())

    def said(self, ended: bool) -> str:
        """The line that tells most of what ssh, or the start of the other side, wrote to standard error.

        Args:
            ended: Whether the process is known to end: it may still be saying why.
        """
        if ended:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
        self._stderr.seek(0)
        lines = self._stderr.read(STDERR_BYTES).decode(errors="replace").splitlines()
        kept = [line.strip() for line in lines if line.strip() and "Permanently added" not in line]
        telling = [line for line in kept if any(part in line for part, _ in _HINTS)]
        return (telling or kept or [""])[0]

    def close(self) -> None:
        """Ends it and waits."""
        self._finish()

    def _put(self, name: str, path: Path) -> None:
        self._write(json.dumps({"do": "put", "sha256": name, "size": path.stat().st_size}).encode() + b"\n")
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                self._write(chunk)
        self._answer()

    def _ask(self, request: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
        self._write(json.dumps(request).encode() + b"\n")
        return self._answer()

    def _answer(self) -> tuple[dict[str, Any], bytes]:
        answer, body = self._read()
        if "error" in answer:
            raise _LostError(str(answer["error"]))
        return answer, body

    def _write(self, data: bytes) -> None:
        stream: IO[bytes] | None = self._process.stdin
        left = memoryview(data)
        while left and stream is not None:
            left = left[stream.write(left) :]

    def _read(self) -> tuple[dict[str, Any], bytes]:
        line = bytearray()
        while not line.endswith(b"\n"):
            line += self._receive(1)
        try:
            answer: dict[str, Any] = json.loads(line)
            size = int(answer["size"])
        except (ValueError, KeyError, TypeError) as error:
            said = bytes(line[:80]).decode(errors="replace").strip()
            raise _LostError(f"its login shell says {said!r} where an answer is expected") from error
        body = bytearray()
        while len(body) < size:
            body += self._receive(size - len(body))
        return answer, bytes(body)

    def _receive(self, most: int) -> bytes:
        stream = self._process.stdout
        found = stream.read(most) if stream is not None else b""
        if not found:
            raise ConnectionError("the connection was cut")
        return found

    def _within(self, seconds: float) -> _Limit:
        return _Limit(self._process, seconds)


class _Limit:
    """Ends the ssh process where a block takes too long: what is read from it then ends."""

    def __init__(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        self._timer = threading.Timer(seconds, process.kill)
        self._timer.daemon = True

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *exception: object) -> None:
        self._timer.cancel()


def _end(process: subprocess.Popen[bytes], stderr: IO[bytes]) -> None:
    """Lets the other side end by itself, which cleans up; then makes sure."""
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    stderr.close()


def _worker_archive() -> bytes:
    """The worker folder as a tar, the same bytes every time."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in sorted(WORKER.glob("*.py")):
            member = tarfile.TarInfo(path.name)
            data = path.read_bytes()
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WorkerError(f"{path}: cannot be read: {error.strerror or error}") from error

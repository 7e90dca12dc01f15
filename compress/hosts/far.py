"""The near end of a connection: a program such as ssh or adb starts Python elsewhere, and frames go through it."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import subprocess
import tarfile
import tempfile
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from compress.errors import WorkerError
from compress.hosts.base import INPUT_FILES
from compress.hosts.local import WORKER
from compress.hosts.words import answer_of
from compress.worker.launch import STDERR_BYTES, Ended

CONNECT_S = 60.0
# Beside a job's own time: for what is copied there and back.
CARRY_S = 600.0
MIN_PYTHON = (3, 10)

# What the other side runs first: it unpacks the worker folder, whose hash it checks, and becomes `serve`.
BOOT = f"""
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


class LostError(Exception):
    """The other side could not do what was asked."""


class Connection:
    """A process whose standard input and output reach `compress.worker.serve` on another machine.

    1. What lies there is one folder: the worker, each file once, by its sha256. It is removed when the connection
       ends, however it ends, and the worker that runs is ended with it.
    2. A file is read for its hash once, as long as it stays as it is.
    """

    def __init__(self, command: Sequence[str]) -> None:
        """Starts the process.

        Args:
            command: What starts `python -I -c BOOT` on the other machine.
        """
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the process)
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr, bufsize=0
        )
        self._hashes: dict[tuple[object, ...], str] = {}
        # Also when the program ends without closing: the other side cleans up when its input ends.
        self._finish = weakref.finalize(self, end_process, self._process, self._stderr)

    def greet(self) -> dict[str, Any]:
        """Sends the worker and returns what the machine says of itself."""
        data = _worker_archive()
        with self._within(CONNECT_S):
            self._write(hashlib.sha256(data).hexdigest().encode() + f"{len(data):012d}".encode() + data)
            found: dict[str, Any] = self._read()[0]["machine"]
        return found

    def machine(self) -> dict[str, Any]:
        """What the machine says of itself now."""
        with self._within(CONNECT_S):
            found: dict[str, Any] = self._ask({"do": "machine"})[0]["machine"]
        return found

    def answer(self, job: Mapping[str, Any], timeout_s: float, where: str) -> dict[str, Any]:
        """Runs a job, and returns what the worker answered; `where` names the machine in errors.

        Raises:
            OSError: If the connection is cut.
            LostError: If the other side cannot do it.
            WorkerError: If a file here cannot be read, or the worker failed.
        """
        ended = self.run(job, timeout_s)
        try:
            return answer_of(ended, job, timeout_s)
        except WorkerError as error:
            raise WorkerError(f"on {where}: {error.message}", error.hint) from error

    def run(self, job: Mapping[str, Any], timeout_s: float) -> Ended:
        """Carries the files that are not there yet, runs the job, and writes its outputs here."""
        given = {key: Path(str(job[key])) for key in INPUT_FILES if job.get(key)}
        with self._within(CARRY_S):
            files = {key: (self._sha256(path), path) for key, path in given.items()}
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

    def said(self, ended: bool, telling: Sequence[str]) -> str:
        """The line that tells most of what the program, or the start of the other side, wrote to standard error.

        Args:
            ended: Whether the process is known to end: it may still be saying why.
            telling: Parts of lines that tell most.
        """
        if ended:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
        self._stderr.seek(0)
        lines = self._stderr.read(STDERR_BYTES).decode(errors="replace").splitlines()
        kept = [line.strip() for line in lines if line.strip() and "Permanently added" not in line]
        return ([line for line in kept if any(part in line for part in telling)] or kept or [""])[0]

    def close(self) -> None:
        """Ends it and waits."""
        self._finish()

    def _put(self, name: str, path: Path) -> None:
        self._write(json.dumps({"do": "put", "sha256": name, "size": path.stat().st_size}).encode() + b"\n")
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                self._write(chunk)
        self._answer()

    def _sha256(self, path: Path) -> str:
        state = file_state(path)
        if state not in self._hashes:
            self._hashes[state] = sha256_of(path)
        return self._hashes[state]

    def _ask(self, request: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
        self._write(json.dumps(request).encode() + b"\n")
        return self._answer()

    def _answer(self) -> tuple[dict[str, Any], bytes]:
        answer, body = self._read()
        if "error" in answer:
            raise LostError(str(answer["error"]))
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
            raise LostError(f"its login shell says {said!r} where an answer is expected") from error
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
    """Ends the process where a block takes too long: what is read from it then ends."""

    def __init__(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        self._timer = threading.Timer(seconds, process.kill)
        self._timer.daemon = True

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *exception: object) -> None:
        self._timer.cancel()


def end_process(process: subprocess.Popen[bytes], stderr: IO[bytes]) -> None:
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


def file_state(path: Path) -> tuple[object, ...]:
    """Returns what changes when a file does, so that its hash need not be taken anew.

    Raises:
        WorkerError: If it cannot be read.
    """
    try:
        found = os.stat(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    return (str(path), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def sha256_of(path: Path) -> str:
    """Returns the sha256 of a file.

    Raises:
        WorkerError: If it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> WorkerError:
    return WorkerError(f"{path}: cannot be read: {error.strerror or error}")


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

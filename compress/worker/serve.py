"""Answers requests for as long as whoever asks stays connected: the far end of a host that is reached over a network.

Both directions are frames: a line of JSON, then as many bytes as its `size` says. The first frame is the greeting.
Requests:

- `{"do": "have", "sha256": [...]}` -> `{"missing": [...]}`
- `{"do": "put", "sha256": ..., "size": ...}` and the file -> `{}`
- `{"do": "machine"}` -> `{"machine": ...}`, what the machine says of itself now
- `{"do": "run", "job": {...}, "files": {key: [sha256, name]}, "timeout_s": ...}` -> how the worker ended, and the file
  that it wrote, if the job has `outputs`

An answer with `error` is a request that could not be met. Everything lies in one folder, which is removed at the end;
when the connection is cut, the worker that runs is ended first.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import select
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .launch import NobodyWaitsError, run_worker

PROTOCOL = 1
# An asker that says nothing for so long is gone, even if the network never said so.
IDLE_S = 1800.0
_LINE_BYTES = 1 << 20
_CHUNK = 1 << 20
_IN, _OUT = 0, 1
_CLOCK = "/sys/devices/system/cpu/cpu0/cpufreq"


class _GoneError(Exception):
    """The connection ended."""


def serve(folder: Path) -> int:
    """Answers until the connection ends, then removes the folder. Returns the exit code.

    Args:
        folder: Holds the worker folder; everything else is put there, too.
    """
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        _send({"protocol": PROTOCOL, "machine": machine()})
        server = _Server(folder)
        while True:
            server.answer(*_receive())
    except (_GoneError, NobodyWaitsError, BrokenPipeError):
        return 0
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Server:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = folder / "files"
        self._files.mkdir()
        self._worker = folder / "worker"

    def answer(self, request: Mapping[str, Any], size: int) -> None:
        """Meets one request, whose body has not been read yet."""
        try:
            if request["do"] == "have":
                _send({"missing": [name for name in request["sha256"] if not (self._files / name).exists()]})
            elif request["do"] == "put":
                self._put(str(request["sha256"]), size)
                _send({})
            elif request["do"] == "machine":
                _send({"machine": machine()})
            elif request["do"] == "run":
                self._run(request)
            else:
                _send({"error": f"unknown request {request['do']!r}"})
        except OSError as error:
            free = shutil.disk_usage(self._folder).free
            _send({"error": f"{error.strerror or error} in {self._folder} ({free:,} bytes free)"})

    def _put(self, name: str, size: int) -> None:
        path, partial = self._files / name, self._files / f"{name}.partial"
        digest, failed = hashlib.sha256(), None
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(partial.open("wb"))
            while size:
                chunk = _read(min(size, _CHUNK))
                size -= len(chunk)
                digest.update(chunk)
                # What is on its way is read to its end: the next request stands behind it.
                if failed is None:
                    try:
                        file.write(chunk)
                        file.flush()
                    except OSError as error:
                        failed = error
        if failed is not None:
            partial.unlink(missing_ok=True)
            raise failed
        if digest.hexdigest() != name:
            partial.unlink()
            raise OSError(f"the file {name[:12]}… arrived with other bytes")
        os.replace(partial, path)

    def _run(self, request: Mapping[str, Any]) -> None:
        with tempfile.TemporaryDirectory(dir=self._folder, prefix="job-") as name:
            place = Path(name)
            job = dict(request["job"])
            for key, (sha256, title) in request["files"].items():
                # Under its own name, which is what errors tell, in a folder of its own: two may be called alike.
                (place / key).mkdir()
                given = place / key / Path(title).name
                given.symlink_to(self._files / sha256)
                job[key] = str(given)
            made = place / "outputs.npz"
            if "outputs" in job:
                job["outputs"] = str(made)
            command = (sys.executable, "-I", str(self._worker))
            ended = run_worker(command, job, place, float(request["timeout_s"]), asker=_IN)
            body = made.read_bytes() if made.exists() else b""
        # The job's folder is gone before its asker goes on.
        result = None if ended.result is None else ended.result.decode("utf-8", errors="replace")
        _send({"code": ended.code, "tail": ended.tail, "result": result}, body)


def machine() -> dict[str, Any]:
    """Returns what this machine is and how it stands now; empty or 0 where it does not tell.

    Processor, cores, memory, kernel and the like; governor, the highest clock that is allowed now and that the
    processor has, in kHz, and the warmest sensor, in degrees Celsius.
    """
    model = _first("/proc/device-tree/model").rstrip("\0") or _cpu()
    return {
        "cpu": model,
        "architecture": platform.machine(),
        "cores": os.cpu_count() or 0,
        "memory_bytes": _memory_bytes(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "governor": _first(f"{_CLOCK}/scaling_governor"),
        "allowed_khz": _number(f"{_CLOCK}/scaling_max_freq"),
        "highest_khz": _number(f"{_CLOCK}/cpuinfo_max_freq"),
        "warmest_c": max((_number(str(path)) for path in Path("/sys/class/thermal").glob("*/temp")), default=0) / 1000,
    }


def _cpu() -> str:
    for line in _text("/proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor()


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return 0


def _first(path: str) -> str:
    return _text(path).partition("\n")[0].strip()


def _number(path: str) -> int:
    said = _first(path)
    return int(said) if said.isdecimal() else 0


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _send(values: Mapping[str, Any], body: bytes = b"") -> None:
    data = memoryview(json.dumps({**values, "size": len(body)}).encode() + b"\n" + body)
    while data:
        data = data[os.write(_OUT, data) :]


def _receive() -> tuple[dict[str, Any], int]:
    """The next request and the size of its body, which is still to be read."""
    ready, _, _ = select.select([_IN], [], [], IDLE_S)
    if not ready:
        raise _GoneError
    line = bytearray()
    while not line.endswith(b"\n"):
        # Byte by byte: what follows the line is the body, and must not lie in a buffer when a worker runs.
        line += _read(1)
        if len(line) > _LINE_BYTES:
            raise _GoneError
    values: dict[str, Any] = json.loads(line)
    return values, int(values.get("size", 0))


def _read(most: int) -> bytes:
    found = os.read(_IN, most)
    if not found:
        raise _GoneError
    return found

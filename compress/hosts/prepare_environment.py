"""Sets up a runtime's own Python environment: pinned wheels, compared with their hashes, and nothing else.

It is built aside, the runtime's empty worker is started in it, and then it is put in place in one step; a failure
leaves the old one. Nothing is installed outside the folder.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from compress.errors import CompressError, WorkerError
from compress.hosts.calls import ask
from compress.hosts.environments import OWN_PYTHONS, OwnPython, python_of
from compress.hosts.folders import Say, alone, put_in_place, scratch_folder
from compress.hosts.local import LocalHost
from compress.hosts.wheels import pip
from compress.store.atomic import write_atomic

_START_S = 60
_MAKE_S = 120


def prepare_environment(folder: Path, runtime: str, say: Say) -> None:
    """Sets up the environment of a runtime, unless it is there as this version wants it, and starts the runtime in it.

    Args:
        folder: As `environments_folder` gives it.
        runtime: One of `OWN_PYTHONS`.
        say: Told what is happening, a line at a time.

    Raises:
        CompressError: If there is no Python for it, a wheel cannot be fetched or has another hash, or the runtime does
            not start.
    """
    own = OWN_PYTHONS[runtime]
    try:
        _start(python_of(runtime, folder), runtime)
        say(f"{own.name} is there")
        return
    except CompressError:
        # Not there, of another version, or its Python is gone: it is made again.
        pass
    with alone(folder):
        python = _base_python(own)
        with scratch_folder(folder, own.name) as scratch:
            _run([python, "-m", "venv", "--without-pip", str(scratch)], f"{python} cannot make an environment")
            wanted = scratch / "requirements.txt"
            write_atomic(wanted, own.requirements.encode())
            names = ", ".join(f"{name} {item.version}" for name, item in sorted(own.wheels.items()))
            say(f"fetching {names}")
            options = ("--require-hashes", "--no-deps", "--only-binary=:all:", "--requirement", str(wanted))
            pip("install", *options, python=scratch / "bin" / "python")

            def check(made: Path) -> None:
                say(f"starting {runtime}")
                _start(made / "bin" / "python", runtime)

            manifest = {"python": _version_of(python), "requirements": own.requirements}
            put_in_place(folder, own.name, scratch, manifest, check)


def _start(python: Path, runtime: str) -> None:
    """Starts the runtime's empty worker: installed is not the same as working."""
    try:
        ask(LocalHost(python=str(python)), {"action": "empty", "runtime": runtime}, _START_S)
    except WorkerError as error:
        raise CompressError(f"{runtime} does not start: {error.message}", error.hint) from error


def _base_python(own: OwnPython) -> str:
    """This Python where there are wheels for it, else one on the search path."""
    found = [sys.executable, *(path for item in own.pythons if (path := shutil.which(f"python{item}")))]
    for python in found:
        if _version_of(python) in own.pythons:
            return python
    raise CompressError(
        f"{own.name} has wheels for Python {' and '.join(own.pythons)} only, and none of them is here",
        f"install python{own.pythons[0]} beside this one, and run the same command again.",
    )


def _version_of(python: str) -> str:
    """As in `3.11`; empty where it cannot be started."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        return _run([python, "-I", "-c", code], python).strip()
    except CompressError:
        return ""


def _run(command: list[str], problem: str) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_MAKE_S, stdin=subprocess.DEVNULL, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or "").strip().splitlines()
        raise CompressError(f"{problem}: {said[-1] if said else error}", "check that this Python works.") from error
    return done.stdout

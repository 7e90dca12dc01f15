"""Wheels of Python packages for another architecture, fetched and unpacked with pip; nothing of them is run."""

from __future__ import annotations

import hashlib
import importlib.metadata
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from compress.errors import CompressError
from compress.store.atomic import write_atomic

_TIMEOUT_S = 1800
# The oldest C library that a wheel may be named for.
_OLDEST_GLIBC = 17


@dataclass(frozen=True)
class Platform:
    """Where wheels must run: the architecture, Python as in `3.11`, and the minor version of the C library."""

    architecture: str
    python: str
    glibc: int

    @property
    def options(self) -> list[str]:
        """For pip: every tag that a wheel for this platform may have."""
        tags = [f"manylinux_2_{minor}_{self.architecture}" for minor in range(self.glibc, _OLDEST_GLIBC - 1, -1)]
        tags.append(f"manylinux2014_{self.architecture}")
        chosen = [part for tag in tags for part in ("--platform", tag)]
        return [*chosen, "--python-version", self.python, "--only-binary=:all:"]


def fetch_wheels(wanted: Sequence[str], platform: Platform, folder: Path) -> list[Path]:
    """Fetches packages with all that they need, in the versions that are installed here.

    Args:
        wanted: As `name==version`.
        platform: Where they must run.
        folder: Gets a folder for each set of wheels, in which an interrupted fetch goes on.

    Returns:
        The wheels' paths.

    Raises:
        CompressError: If one is not there for the platform, or cannot be fetched.
    """
    pins = sorted(
        f"{item.metadata['Name']}=={item.version}"
        for item in importlib.metadata.distributions()
        # A version of a local build is on no index.
        if item.metadata["Name"] and "+" not in item.version
    )
    name = hashlib.sha256("\n".join([*wanted, *platform.options, *pins]).encode()).hexdigest()[:12]
    place = folder / f"wheels-{platform.architecture}-{name}"
    constraints = place / "constraints.txt"
    write_atomic(constraints, ("\n".join(pins) + "\n").encode())
    pip("download", "--dest", str(place), "--constraint", str(constraints), *platform.options, *wanted)
    return sorted(place.glob("*.whl"))


def unpack_wheels(wheels: Sequence[Path], platform: Platform, place: Path) -> None:
    """Unpacks wheels into a folder of packages.

    Raises:
        CompressError: If one is no wheel for the platform.
    """
    offline = ("--no-index", "--no-deps", "--no-compile")
    pip("install", "--target", str(place), *offline, *platform.options, *map(str, wheels))


def pip(*arguments: str, python: Path | None = None) -> None:
    """Runs pip, for this Python's packages or for those of another one, which needs no pip of its own.

    Raises:
        CompressError: If it fails or does not end.
    """
    place = () if python is None else ("--python", str(python))
    command = [sys.executable, "-m", "pip", *place, *arguments, "--quiet", "--disable-pip-version-check"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired as error:
        raise CompressError(f"pip {arguments[0]} took longer than {_TIMEOUT_S} s", "try again.") from error
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise CompressError(
            f"pip {arguments[0]} failed: {' '.join(said[-2:]).strip() or 'no message'}",
            "check the network and pip's index, and run the same command again; what was fetched is kept.",
        )

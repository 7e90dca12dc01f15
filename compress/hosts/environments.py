"""Python environments of their own, for runtimes whose packages cannot be installed beside those of this one.

```
FOLDER/tflite-runtime -> tflite-runtime-<digest>   the last finished one; the only thing that changes, in one step
FOLDER/tflite-runtime-<digest>/bin/python          an interpreter of this machine
                              /manifest.json       its Python, and what was asked of pip
```
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from compress.errors import WorkerError
from compress.hosts.folders import cache_folder, read_manifest


@dataclass(frozen=True)
class Wheels:
    """One version of a distribution, and the sha256 of each wheel of it that may be used."""

    version: str
    sha256: tuple[str, ...]


@dataclass(frozen=True)
class OwnPython:
    """An environment that one runtime has for itself.

    Attributes:
        name: Of its folder, and for `doctor --setup`.
        pythons: Versions of Python for which there are wheels, the preferred first.
        wheels: Distribution -> what is installed of it; nothing else is.
    """

    name: str
    pythons: tuple[str, ...]
    wheels: Mapping[str, Wheels]

    @property
    def requirements(self) -> str:
        """What pip is asked for: exact versions, with their hashes."""
        lines = [
            " ".join([f"{name}=={item.version}", *(f"--hash=sha256:{sha}" for sha in item.sha256)])
            for name, item in sorted(self.wheels.items())
        ]
        return "\n".join(lines) + "\n"

    @property
    def command(self) -> str:
        """What sets it up."""
        return f"edge-compress doctor --setup {self.name}"


# Runtime -> its environment. The hashes are those of the wheels for x86-64 and Arm64, Python 3.10 and 3.11.
OWN_PYTHONS = {
    "tflite_runtime": OwnPython(
        "tflite-runtime",
        ("3.11", "3.10"),
        {
            # It was built against numpy 1, whose interface numpy 2 does not have.
            "numpy": Wheels(
                "1.26.4",
                (
                    "666dbfb6ec68962c033a450943ded891bed2d54e6755e35e5835d63f4f6931d5",
                    "7ab55401287bfec946ced39700c053796e7cc0e3acbef09993a9ad2adba6ca6e",
                    "ffa75af20b44f8dba823498024771d5ac50620e6915abac414251bd971b4529f",
                    "d209d8969599b27ad20994c8e41936ee0964e6da07478d6c35016bc386b66ad4",
                ),
            ),
            "tflite-runtime": Wheels(
                "2.14.0",
                (
                    "195ab752e7e57329a68e54dd3dd5439fad888b9bff1be0f0dc042a3237a90e4d",
                    "ce9fa5d770a9725c746dcbf6f59f3178233b3759f09982e8b2db8d2234c333b0",
                    "bb11df4283e281cd609c621ac9470ad0cb5674408593272d7593a2c6bde8a808",
                    "d38c6885f5e9673c11a61ccec5cad7c032ab97340718d26b17794137f398b780",
                ),
            ),
        },
    )
}


def environments_folder() -> Path:
    """Returns where environments are kept, in the cache folder."""
    return cache_folder("environments")


def python_of(runtime: str | None, folder: Path | None = None) -> Path:
    """Returns the Python that runs a runtime's worker on this machine: this one, or that of its own environment.

    Args:
        runtime: Its name; None for none in particular.
        folder: Where environments are kept; None for `environments_folder`.

    Raises:
        WorkerError: If its environment is not set up, or not as this version wants it; the hint has the command.
    """
    own = OWN_PYTHONS.get(runtime or "")
    if own is None:
        return Path(sys.executable)
    place = (folder or environments_folder()) / own.name
    manifest = read_manifest(place)
    if manifest is None:
        raise WorkerError(f"{runtime} runs in an environment of its own, which is not set up", f"{own.command}.")
    if manifest.get("requirements") != own.requirements:
        raise WorkerError(f"the environment of {runtime} in {place} is that of another version", f"{own.command}.")
    return place / "bin" / "python"


def installed_version(distribution: str) -> str:
    """Returns the version of a distribution here, or in the environment that holds it; `not installed` without one."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        pass
    for runtime, own in OWN_PYTHONS.items():
        if distribution in own.wheels:
            try:
                python_of(runtime)
            except WorkerError:
                continue
            return own.wheels[distribution].version
    return "not installed"

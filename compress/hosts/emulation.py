"""What emulation needs and where it lies: QEMU, and for another architecture a system with the same runtimes.

```
FOLDER/qemu/usr/bin/qemu-…            only where none is installed
FOLDER/aarch64 -> aarch64-<digest>    the last finished system; the only thing that changes, in one step
FOLDER/aarch64-<digest>/root/         Debian's Python and libraries, and the wheels of the runtimes
                       /processors/   one root a processor: links into root/, and its own /proc/cpuinfo
                       /manifest.json every file that went into it, with its sha256
FOLDER/downloads/                     kept so that an interrupted set-up resumes; may be deleted
```
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from compress.errors import WorkerError
from compress.hosts.environments import python_of
from compress.hosts.folders import cache_folder, read_manifest
from compress.processors import Processor, this_architecture

SETUP = "edge-compress doctor --setup emulated"
# Runtime -> the distribution that runs it and has a wheel for Arm that needs nothing else of the machine.
RUNTIMES = {"onnxruntime": "onnxruntime", "litert": "ai-edge-litert"}
_QEMU_HINT = f"{SETUP} (needs no root), or as root: apt-get install qemu-user-static."


@dataclass(frozen=True)
class Emulation:
    """How to start Python on another processor.

    Attributes:
        launcher: QEMU with its arguments.
        python: The Python that it runs.
        identity: QEMU's version and the system's digest: what answers depend on beside the processor.
        runtimes: Runtime -> version there; None where they are those of this Python.
    """

    launcher: tuple[str, ...]
    python: Path
    identity: str
    runtimes: Mapping[str, str] | None = None


def emulation_folder() -> Path:
    """Returns where it is kept, in the cache folder."""
    return cache_folder("emulation")


def find_emulation(processor: Processor, folder: Path, runtime: str | None = None) -> Emulation:
    """Finds what is needed to run a runtime on a processor.

    A processor of this machine's architecture runs this machine's Python with its packages; another one runs the
    Python of the system that was set up for it.

    Args:
        processor: Which one.
        folder: As `emulation_folder` gives it.
        runtime: Which runtime must be there; None: none in particular.

    Raises:
        WorkerError: If something is missing, or not of the versions that are installed here; the hint has the command.
    """
    if not processor.qemu:
        raise WorkerError(f"{processor.name} cannot be emulated: QEMU lacks its instructions")
    qemu = find_qemu(processor.architecture, folder)
    if qemu is None:
        raise WorkerError(f"qemu-{processor.architecture}-static is not installed", _QEMU_HINT)
    if processor.architecture == this_architecture():
        return Emulation((str(qemu), "-cpu", processor.qemu), python_of(runtime), qemu_version(qemu))
    return in_system(processor, qemu, folder / processor.architecture, runtime)


def in_system(processor: Processor, qemu: Path, system: Path, runtime: str | None = None) -> Emulation:
    """Finds Python and runtimes in a system of another architecture.

    Raises:
        WorkerError: If the system is not whole, or not of the versions that are installed here.
    """
    manifest = read_manifest(system)
    if manifest is None:
        raise WorkerError(f"there is no {processor.architecture} system to run {processor.name} in", f"{SETUP}.")
    runtimes: dict[str, str] = manifest["runtimes"]
    if runtime is not None:
        _check_runtime(runtime, runtimes, processor)
    root = system / "processors" / processor.name
    python = system / "root" / "usr" / "bin" / f"python{manifest['python']}"
    if not root.is_dir() or not python.exists():
        raise WorkerError(f"the {processor.architecture} system in {system} lacks {processor.name}", f"{SETUP}.")
    launcher = (str(qemu), "-cpu", processor.qemu, "-L", str(root))
    return Emulation(launcher, python, f"{qemu_version(qemu)}, system {manifest['digest'][:12]}", runtimes)


def qemu_names(architecture: str) -> tuple[str, ...]:
    """Returns what distributions call the emulator of an architecture, the preferred one first."""
    return f"qemu-{architecture}-static", f"qemu-{architecture}"


def find_qemu(architecture: str, folder: Path) -> Path | None:
    """Returns the emulator of an architecture: an installed one, else the one that was set up."""
    names = qemu_names(architecture)
    installed = next((found for name in names if (found := shutil.which(name))), None)
    if installed is not None:
        return Path(installed)
    ours = (folder / "qemu" / "usr" / "bin" / name for name in names)
    return next((path for path in ours if os.access(path, os.X_OK)), None)


@functools.cache
def qemu_version(qemu: Path) -> str:
    """Returns the first words of what `qemu --version` says.

    Raises:
        WorkerError: If it cannot be started.
    """
    try:
        said = subprocess.run([str(qemu), "--version"], capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise WorkerError(f"{qemu} cannot be run: {error}", _QEMU_HINT) from error
    first, _, _ = said.partition("\n")
    return first.strip()


def installed_runtimes() -> dict[str, str]:
    """Returns the runtimes installed here that a system can hold, with their versions."""
    found = {}
    for runtime, distribution in RUNTIMES.items():
        try:
            found[runtime] = version(distribution)
        except PackageNotFoundError:
            continue
    return found


def _check_runtime(runtime: str, there: Mapping[str, str], processor: Processor) -> None:
    here = installed_runtimes().get(runtime)
    if runtime not in RUNTIMES:
        raise WorkerError(
            f"{runtime} cannot be emulated on {processor.name}: its {processor.architecture} packages need libraries "
            "that the emulated system does not hold",
            f"processors of this machine's architecture run it; on {processor.architecture}: {', '.join(RUNTIMES)}.",
        )
    if there.get(runtime) != here:
        raise WorkerError(
            f"the {processor.architecture} system holds {runtime} {there.get(runtime) or '(none)'}, here is "
            f"{here or 'none'}: answers would be compared across versions",
            f"{SETUP}.",
        )

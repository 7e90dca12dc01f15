"""Sets emulation up: fetches QEMU where there is none, and a system for each other architecture, into a folder.

1. Nothing is installed and no root is needed: packages and wheels are unpacked.
2. Every file is compared with the hash that its index states, and its sha256 stands in the manifest.
3. What was fetched stays until a system is finished, so an interrupted set-up resumes. A system is built aside, tried
   with every runtime on every processor, and then put in place in one step; a failure leaves the old one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from compress.errors import CompressError, WorkerError
from compress.hosts.calls import ask
from compress.hosts.debian import Apt, Package, link_merged, unpack
from compress.hosts.emulated import EmulatedHost
from compress.hosts.emulation import (
    RUNTIMES,
    find_emulation,
    find_qemu,
    in_system,
    installed_runtimes,
    qemu_names,
)
from compress.hosts.folders import Say, alone, put_in_place, read_manifest, scratch_folder
from compress.hosts.wheels import Platform, fetch_wheels, unpack_wheels
from compress.processors import Processor, emulated, this_architecture
from compress.store.atomic import write_atomic
from compress.store.cache import digest

# Python, and the C++ library that the runtimes link to.
_PACKAGES = ("python3", "libstdc++6")
# More than one, so that a runtime with several threads finds them.
_CORES = 4
_START_S = 300


def prepare(folder: Path, say: Say, sources: Path | None = None) -> None:
    """Sets up everything that is missing or of other versions than those installed here.

    Args:
        folder: As `emulation_folder` gives it.
        say: Told what is happening, a line at a time.
        sources: A `sources.list` for apt instead of the machine's.

    Raises:
        CompressError: If something cannot be fetched, or a runtime does not start in what was built.
    """
    architectures = {item.architecture for item in emulated()}
    with alone(folder):
        for architecture in sorted(architectures):
            _prepare_qemu(folder, architecture, say, sources)
        for architecture in sorted(architectures - {this_architecture()}):
            _prepare_system(folder, architecture, say, sources)
        for processor in emulated(this_architecture()):
            for runtime in installed_runtimes():
                _start(EmulatedHost(processor, find_emulation(processor, folder)), processor, runtime, say)


def is_current(folder: Path, architecture: str) -> bool:
    """Returns whether a whole system is there with the runtimes that are installed here."""
    manifest = read_manifest(folder / architecture)
    if manifest is None or manifest["runtimes"] != installed_runtimes():
        return False
    return all((folder / architecture / "processors" / item.name).is_dir() for item in emulated(architecture))


def cpuinfo(processor: Processor) -> str:
    """Returns what `/proc/cpuinfo` says on such an Arm core: runtimes read from it what they may use.

    Its features must be those of the emulated core, or a kernel is chosen that is an illegal instruction there.
    """
    midr = processor.midr
    lines = (
        f"Features\t: {' '.join(processor.features)}",
        f"CPU implementer\t: {midr >> 24:#x}",
        "CPU architecture: 8",
        f"CPU variant\t: {midr >> 20 & 0xF:#x}",
        f"CPU part\t: {midr >> 4 & 0xFFF:#x}",
        f"CPU revision\t: {midr & 0xF}",
    )
    return "".join("\n".join((f"processor\t: {core}", "BogoMIPS\t: 100.00", *lines, "", "")) for core in range(_CORES))


def _prepare_qemu(folder: Path, architecture: str, say: Say, sources: Path | None) -> None:
    if find_qemu(architecture, folder) is not None:
        return
    say("fetching qemu-user-static")
    apt = Apt(folder / "downloads", this_architecture(), sources)
    packages = apt.fetch(["qemu-user-static"])
    with scratch_folder(folder, "qemu") as scratch:
        for package in packages:
            # It is linked statically: what its package depends on beside QEMU itself is not needed.
            if package.file.startswith("qemu-user"):
                unpack(apt.files / package.file, scratch)
        # Of the emulators of every architecture there is, a few are needed.
        names = {name for item in emulated() for name in qemu_names(item.architecture)}
        for path in (scratch / "usr" / "bin").glob("*"):
            if path.name not in names:
                path.unlink()
        put_in_place(folder, "qemu", scratch, {"packages": _listed(packages)})
    if find_qemu(architecture, folder) is None:
        raise CompressError(
            f"the package qemu-user-static holds no qemu-{architecture}-static", "install QEMU by other means."
        )


def _prepare_system(folder: Path, architecture: str, say: Say, sources: Path | None) -> None:
    if is_current(folder, architecture):
        say(f"the {architecture} system is there")
        return
    runtimes = installed_runtimes()
    if not runtimes:
        raise CompressError(
            f"no runtime is installed here that the {architecture} system could hold",
            "pip install 'edge-compress[onnxruntime,litert]'",
        )
    say(f"fetching Python for {architecture}")
    apt = Apt(folder / "downloads", architecture, sources)
    packages = apt.fetch(_PACKAGES)
    with scratch_folder(folder, architecture) as scratch:
        root = scratch / "root"
        for package in packages:
            unpack(apt.files / package.file, root)
        link_merged(root)
        python = _python_of(root)
        say(f"fetching {', '.join(f'{name} {version}' for name, version in runtimes.items())} for {architecture}")
        wanted = [f"{RUNTIMES[name]}=={version}" for name, version in runtimes.items()]
        platform = Platform(architecture, python, _glibc_of(packages))
        wheels = fetch_wheels(wanted, platform, folder / "downloads")
        unpack_wheels(wheels, platform, root / "usr" / "lib" / "python3" / "dist-packages")
        for processor in emulated(architecture):
            _processor_root(scratch / "processors" / processor.name, root, processor)
        manifest = {
            "python": python,
            "runtimes": runtimes,
            "packages": _listed(packages),
            "wheels": {path.name: digest(path.read_bytes()) for path in wheels},
        }
        put_in_place(
            folder, architecture, scratch, manifest, lambda system: _try(folder, architecture, system, runtimes, say)
        )


def _try(folder: Path, architecture: str, system: Path, runtimes: Mapping[str, str], say: Say) -> None:
    qemu = find_qemu(architecture, folder)
    if qemu is None:
        raise CompressError(f"qemu-{architecture}-static vanished", "run the same command again.")
    for processor in emulated(architecture):
        for runtime in runtimes:
            _start(EmulatedHost(processor, in_system(processor, qemu, system, runtime)), processor, runtime, say)


def _start(host: EmulatedHost, processor: Processor, runtime: str, say: Say) -> None:
    """Starts a runtime's empty worker there: unpacked is not the same as working."""
    say(f"starting {runtime} on {processor.name}")
    try:
        ask(host, {"action": "empty", "runtime": runtime}, _START_S)
    except WorkerError as error:
        raise CompressError(f"{runtime} does not start: {error.message}", error.hint) from error


def _processor_root(place: Path, root: Path, processor: Processor) -> None:
    """The root that QEMU shows a processor: the system's folders, and what the kernel says of that processor."""
    place.mkdir(parents=True)
    for path in sorted(root.iterdir()):
        (place / path.name).symlink_to(os.path.relpath(path, place))
    if not processor.midr:
        return
    cores = f"0-{_CORES - 1}\n".encode()
    write_atomic(place / "proc" / "cpuinfo", cpuinfo(processor).encode())
    for name in ("possible", "present", "online"):
        write_atomic(place / "sys" / "devices" / "system" / "cpu" / name, cores)


def _python_of(root: Path) -> str:
    """The version of the system's Python, as in `3.11`."""
    link = root / "usr" / "bin" / "python3"
    found = re.fullmatch(r"python(3\.\d+)", os.readlink(link)) if link.is_symlink() else None
    if found is None:
        raise CompressError(f"{link}: the packages brought no Python", "report it, with the distribution's name.")
    return found[1]


def _glibc_of(packages: tuple[Package, ...]) -> int:
    """The minor version of the system's C library: wheels for a newer one do not load there."""
    found = next((match for item in packages if (match := re.match(r"libc6_2\.(\d+)", item.file))), None)
    if found is None:
        raise CompressError("the packages brought no C library", "report it, with the distribution's name.")
    return int(found[1])


def _listed(packages: tuple[Package, ...]) -> dict[str, dict[str, str]]:
    return {item.file: {"url": item.url, "sha256": item.sha256} for item in packages}

"""Stand-ins for QEMU and for a system of another architecture: what is around emulation, without emulating anything."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path

import pytest

from compress.hosts import emulation, prepare
from compress.hosts.emulation import installed_runtimes
from compress.hosts.folders import SCHEMA

# Notes its arguments, then starts what it was to emulate: the first argument that is no option of QEMU's, and the rest.
QEMU = """#!/bin/sh
if [ "$1" = --version ]; then echo "qemu-stand-in version 9.9"; echo "Copyright"; exit 0; fi
echo "$@" >> {log}
echo "qemu: warning: TCG doesn't support requested feature: CPUID.01H:ECX.pcid [bit 17]" >&2
while [ "${{1#-}}" != "$1" ]; do shift 2; done
{do}
"""


def put_qemu(folder: Path, do: str = 'exec "$@"', architectures: tuple[str, ...] = ("x86_64", "aarch64")) -> Path:
    """Writes stand-ins where a set-up puts QEMU; returns the file in which they note their arguments."""
    log = folder / "qemu.log"
    for architecture in architectures:
        write_program(
            folder / "qemu" / "usr" / "bin" / f"qemu-{architecture}-static",
            QEMU.format(log=shlex.quote(str(log)), do=do),
        )
    emulation.qemu_version.cache_clear()
    return log


def put_system(folder: Path, architecture: str = "aarch64", processors: tuple[str, ...] = ("cortex-a53",)) -> Path:
    """Makes a system whose Python is the one that runs the test."""
    system = folder / f"{architecture}-0123456789ab"
    for name in processors:
        (system / "processors" / name).mkdir(parents=True)
    (system / "root" / "usr" / "bin").mkdir(parents=True)
    (system / "root" / "usr" / "bin" / "python3.11").symlink_to(sys.executable)
    write_manifest(system, runtimes=installed_runtimes())
    (folder / architecture).symlink_to(system.name)
    return system


def write_manifest(system: Path, **values: object) -> None:
    manifest = {"schema": SCHEMA, "digest": "0" * 64, "python": "3.11", "runtimes": {}, **values}
    (system / "manifest.json").write_text(json.dumps(manifest))


def write_program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def on_x86(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An x86 machine without QEMU, whose emulation lies in a folder of the test."""
    place = folder / "cache" / "emulation"
    monkeypatch.setenv("EDGE_COMPRESS_CACHE", str(place.parent))
    # Nothing installed is found; the shell of the stand-ins has an absolute path.
    monkeypatch.setenv("PATH", str(folder / "empty"))
    for module in (emulation, prepare):
        monkeypatch.setattr(module, "this_architecture", lambda: "x86_64")
    assert not os.path.exists(place)
    return place

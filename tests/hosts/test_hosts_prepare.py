"""Setting emulation up, with stand-ins for apt, pip and QEMU: what is put in place, and what stays if it fails."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from stand_in_qemu import on_x86, put_qemu, write_program

from compress.errors import CompressError, StoreError
from compress.hosts import emulation
from compress.hosts import prepare as module
from compress.hosts.debian import Apt, Package
from compress.hosts.emulation import find_emulation, installed_runtimes
from compress.hosts.folders import alone, read_manifest
from compress.hosts.prepare import cpuinfo, is_current, prepare
from compress.hosts.wheels import Platform
from compress.processors import PROCESSORS, cpu_features, emulated

LIBC = Package("libc6_2.36-9_arm64.deb", "http://mirror/libc6.deb", 1, "ab" * 32)
QEMU = Package("qemu-user-static_7.2_amd64.deb", "http://mirror/qemu.deb", 1, "ab" * 32)


class Kitchen:
    """Where a set-up happens: an x86 machine whose apt and pip hand out what the test put there."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.said: list[str] = []
        self.fetched: list[str] = []
        self.python = f'#!/bin/sh\nexec {sys.executable} "$@"\n'
        self.wheel = b"wheel"

        def fetch(apt: Apt, names: Sequence[str]) -> tuple[Package, ...]:
            self.fetched += names
            found = QEMU if names[0].startswith("qemu") else LIBC
            apt.files.mkdir(parents=True, exist_ok=True)
            (apt.files / found.file).write_bytes(b"package")
            return (found,)

        def unpack(package: Path, root: Path) -> None:
            if package.name == QEMU.file:
                put_qemu(root.parent / "made", architectures=("x86_64", "aarch64", "mips"))
                os.rename(root.parent / "made" / "qemu" / "usr", root / "usr")
                return
            write_program(root / "usr" / "bin" / "python3.11", self.python)
            (root / "usr" / "bin" / "python3").symlink_to("python3.11")
            (root / "usr" / "lib").mkdir()

        def fetch_wheels(wanted: Sequence[str], platform: Platform, folder: Path) -> list[Path]:
            self.fetched += wanted
            assert (platform.architecture, platform.python, platform.glibc) == ("aarch64", "3.11", 36)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "x.whl").write_bytes(self.wheel)
            return [folder / "x.whl"]

        monkeypatch.setattr(Apt, "fetch", fetch)
        monkeypatch.setattr(module, "unpack", unpack)
        monkeypatch.setattr(module, "fetch_wheels", fetch_wheels)
        monkeypatch.setattr(module, "unpack_wheels", lambda wheels, platform, place: place.mkdir(parents=True))

    def prepare(self) -> None:
        prepare(self.folder, self.said.append)


@pytest.fixture
def kitchen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kitchen:
    return Kitchen(on_x86(tmp_path, monkeypatch), monkeypatch)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Runtimes are not started; who would have been is noted."""
    started: list[tuple[str, str]] = []

    def start(host: object, processor: object, runtime: str, say: Callable[[str], None]) -> None:
        started.append((processor.name, runtime))  # type: ignore[attr-defined]

    monkeypatch.setattr(module, "_start", start)
    return started


def test_everything_is_fetched_started_and_put_in_place(kitchen: Kitchen, quick: list[tuple[str, str]]) -> None:
    kitchen.prepare()
    runtimes = installed_runtimes()
    assert kitchen.fetched[0] == "qemu-user-static"
    assert kitchen.fetched[1:3] == ["python3", "libstdc++6"]
    assert f"ai-edge-litert=={runtimes['litert']}" in kitchen.fetched
    assert set(quick) == {(item.name, runtime) for item in emulated() for runtime in runtimes}
    tools = kitchen.folder / "qemu" / "usr" / "bin"
    assert sorted(path.name for path in tools.iterdir()) == ["qemu-aarch64-static", "qemu-x86_64-static"]
    system = kitchen.folder / "aarch64"
    manifest = read_manifest(system)
    assert manifest is not None
    assert manifest["packages"][LIBC.file]["url"] == LIBC.url
    assert len(manifest["packages"][LIBC.file]["sha256"]) == len(manifest["wheels"]["x.whl"]) == 64
    assert manifest["runtimes"] == runtimes
    assert is_current(kitchen.folder, "aarch64")
    core = system / "processors" / "cortex-a53"
    assert (core / "usr").resolve() == (system / "root" / "usr").resolve()
    assert (core / "lib").resolve() == (system / "root" / "usr" / "lib").resolve()
    assert (core / "sys/devices/system/cpu/possible").read_text() == "0-3\n"
    assert find_emulation(PROCESSORS["cortex-a53"], kitchen.folder, "litert").launcher[1:3] == ("-cpu", "cortex-a53")
    assert sorted(path.name for path in kitchen.folder.iterdir() if path.name.startswith(".")) == [".lock"]


def test_a_runtime_is_really_started_before_the_system_is_put_in_place(kitchen: Kitchen) -> None:
    put_qemu(kitchen.folder)
    kitchen.prepare()
    assert "starting onnxruntime on cortex-a76" in kitchen.said
    assert is_current(kitchen.folder, "aarch64")


def test_a_second_set_up_fetches_nothing(kitchen: Kitchen, quick: list[tuple[str, str]]) -> None:
    kitchen.prepare()
    kitchen.fetched.clear()
    kitchen.prepare()
    assert kitchen.fetched == []
    assert "the aarch64 system is there" in kitchen.said


def test_other_versions_are_fetched_anew_and_the_old_system_goes(
    kitchen: Kitchen, quick: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    kitchen.prepare()
    before = (kitchen.folder / "aarch64").resolve()
    for place in (module, emulation):
        monkeypatch.setattr(place, "installed_runtimes", lambda: {"onnxruntime": "99.0"})
    assert not is_current(kitchen.folder, "aarch64")
    kitchen.prepare()
    after = (kitchen.folder / "aarch64").resolve()
    assert after != before
    assert not before.exists()
    assert json.loads((after / "manifest.json").read_bytes())["runtimes"] == {"onnxruntime": "99.0"}


def test_a_runtime_that_does_not_start_leaves_the_old_system(
    kitchen: Kitchen, quick: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    kitchen.prepare()
    before = (kitchen.folder / "aarch64").resolve()
    kitchen.wheel = b"a broken wheel"
    monkeypatch.setattr(module, "is_current", lambda *_: False)

    def start(*_: object) -> None:
        raise CompressError("onnxruntime does not start: on the emulated cortex-a53: the worker was killed by SIGILL")

    monkeypatch.setattr(module, "_start", start)
    with pytest.raises(CompressError, match="onnxruntime does not start: on the emulated cortex-a53"):
        kitchen.prepare()
    assert (kitchen.folder / "aarch64").resolve() == before
    assert is_current(kitchen.folder, "aarch64")
    assert not list(kitchen.folder.glob(".*.tmp"))


def test_what_does_not_start_is_an_error_with_its_last_words(kitchen: Kitchen) -> None:
    put_qemu(kitchen.folder)
    kitchen.python = "#!/bin/sh\necho 'wrong ELF class' >&2\nexit 126\n"
    with pytest.raises(CompressError) as error:
        kitchen.prepare()
    assert error.value.message.startswith("onnxruntime does not start: on the emulated cortex-a53: the worker ended")
    assert "wrong ELF class" in error.value.message
    assert not (kitchen.folder / "aarch64").exists()


def test_a_killed_set_up_is_swept_by_the_next(kitchen: Kitchen, quick: list[tuple[str, str]]) -> None:
    left = kitchen.folder / ".aarch64.0123abcd.tmp" / "root"
    left.mkdir(parents=True)
    kitchen.prepare()
    assert not left.exists()


def test_two_set_ups_do_not_meet(kitchen: Kitchen) -> None:
    with alone(kitchen.folder), pytest.raises(StoreError, match="another set-up is running"):
        kitchen.prepare()


def test_without_a_runtime_there_is_nothing_to_hold(kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "installed_runtimes", dict)
    with pytest.raises(CompressError, match="no runtime is installed here") as error:
        kitchen.prepare()
    assert "pip install" in error.value.hint


def test_packages_without_python_are_an_error(kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch) -> None:
    put_qemu(kitchen.folder)
    monkeypatch.setattr(module, "unpack", lambda package, root: (root / "usr" / "bin").mkdir(parents=True))
    with pytest.raises(CompressError, match="the packages brought no Python"):
        kitchen.prepare()


@pytest.mark.parametrize("name", [item.name for item in emulated("aarch64")])
def test_a_core_is_described_as_linux_does(tmp_path: Path, name: str) -> None:
    processor = PROCESSORS[name]
    text = cpuinfo(processor)
    assert text.count("processor\t: ") == 4
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text(text)
    assert ("asimddp" in cpu_features(tmp_path)) is processor.has_dot_product
    assert f"CPU part\t: {processor.midr >> 4 & 0xFFF:#x}\n" in text
    assert "CPU implementer\t: 0x41\n" in text


def test_the_cores_are_told_apart_by_their_numbers() -> None:
    # The numbers of Arm's manuals, as libraries know them.
    assert "CPU part\t: 0xd03\nCPU revision\t: 4\n" in cpuinfo(PROCESSORS["cortex-a53"])
    assert "CPU variant\t: 0x4\nCPU part\t: 0xd0b\nCPU revision\t: 1\n" in cpuinfo(PROCESSORS["cortex-a76"])


def test_pip_is_told_every_tag_that_fits() -> None:
    options = Platform("aarch64", "3.11", 36).options
    assert options[:2] == ["--platform", "manylinux_2_36_aarch64"]
    assert "manylinux_2_17_aarch64" in options and "manylinux2014_aarch64" in options
    assert "manylinux_2_37_aarch64" not in options and "manylinux_2_16_aarch64" not in options
    assert options[-3:] == ["--python-version", "3.11", "--only-binary=:all:"]

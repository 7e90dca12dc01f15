"""Wheels for another architecture, with a stand-in for pip that notes what it is asked."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest
from stand_in_qemu import write_program

from compress.errors import CompressError
from compress.hosts import wheels
from compress.hosts.wheels import Platform, fetch_wheels, unpack_wheels

ARM = Platform("aarch64", "3.11", 36)
PIP = """#!/bin/sh
echo "$@" >> {log}
while [ "$1" != --dest ] && [ $# -gt 0 ]; do shift; done
[ $# -gt 0 ] && : > "$2/numpy-2.0-cp311-cp311-manylinux_2_28_aarch64.whl"
{end}
"""


def stand_in_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str = "exit 0") -> Path:
    log = tmp_path / "pip.log"
    write_program(tmp_path / "python", PIP.format(log=log, end=end))
    monkeypatch.setattr(wheels.sys, "executable", str(tmp_path / "python"))
    return log


def test_versions_are_those_installed_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = stand_in_pip(tmp_path, monkeypatch)
    (found,) = fetch_wheels(["numpy==2.0"], ARM, tmp_path / "downloads")
    assert found.name.startswith("numpy-2.0")
    asked = log.read_text().split()
    assert asked[:3] == ["-m", "pip", "download"]
    assert asked[asked.index("--python-version") + 1] == "3.11"
    assert {"manylinux_2_28_aarch64", "--only-binary=:all:", "numpy==2.0"} <= set(asked)
    pins = Path(asked[asked.index("--constraint") + 1]).read_text().splitlines()
    assert f"click=={importlib.metadata.version('click')}" in pins
    assert not [line for line in pins if "+" in line]


def test_another_set_of_wheels_has_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in_pip(tmp_path, monkeypatch)
    places = {
        fetch_wheels([wanted], platform, tmp_path)[0].parent
        for wanted in ("numpy==2.0", "numpy==2.1")
        for platform in (ARM, Platform("aarch64", "3.12", 36))
    }
    assert len(places) == 4
    # The same set goes on where it was interrupted.
    assert fetch_wheels(["numpy==2.0"], ARM, tmp_path)[0].parent in places


def test_they_are_unpacked_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = stand_in_pip(tmp_path, monkeypatch)
    unpack_wheels([tmp_path / "a.whl", tmp_path / "b.whl"], ARM, tmp_path / "place")
    asked = log.read_text().split()
    assert asked[2:5] == ["install", "--target", str(tmp_path / "place")]
    assert {"--no-index", "--no-deps", "--no-compile", str(tmp_path / "b.whl")} <= set(asked)


def test_what_pip_complains_of_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in_pip(tmp_path, monkeypatch, "echo 'WARNING: x' >&2; echo 'ERROR: no matching distribution' >&2; exit 1")
    with pytest.raises(CompressError) as error:
        fetch_wheels(["numpy==2.0"], ARM, tmp_path)
    assert error.value.message == "pip download failed: ERROR: no matching distribution"
    assert "what was fetched is kept" in error.value.hint


def test_pip_that_says_nothing_is_an_error_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in_pip(tmp_path, monkeypatch, "exit 1")
    with pytest.raises(CompressError, match="pip install failed: no message"):
        unpack_wheels([tmp_path / "a.whl"], ARM, tmp_path / "place")

"""A runtime's own environment: found, refused, set up, and what stays if that fails. The wheels are stand-ins."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from compress.errors import CompressError, StoreError, WorkerError
from compress.hosts import prepare_environment as module
from compress.hosts.environments import OWN_PYTHONS, environments_folder, installed_version, python_of
from compress.hosts.folders import alone, read_manifest
from compress.hosts.local import LocalHost
from compress.hosts.prepare_environment import prepare_environment

RUNTIME = "tflite_runtime"
OWN = OWN_PYTHONS[RUNTIME]


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Nothing is fetched: the empty worker answers where pip was asked."""
    asked: list[tuple[str, ...]] = []

    def install(*arguments: str, python: Path | None = None) -> None:
        asked.append(arguments)
        assert python is not None and python.exists()

    def start(_: LocalHost, job: Any, timeout_s: float) -> dict[str, Any]:
        assert (job["action"], job["runtime"]) == ("empty", RUNTIME)
        return {"schema": 1, "peak_rss_bytes": 1, "version": "2.14.0"}

    monkeypatch.setattr(module, "pip", install)
    monkeypatch.setattr(LocalHost, "run", start)
    return asked


def test_other_runtimes_run_in_this_python(tmp_path: Path) -> None:
    for runtime in ("onnxruntime", "litert", None):
        assert python_of(runtime, tmp_path) == Path(sys.executable)


def test_without_it_the_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_COMPRESS_CACHE", str(tmp_path))
    assert environments_folder() == tmp_path / "environments"
    with pytest.raises(
        WorkerError, match="tflite_runtime runs in an environment of its own, which is not set"
    ) as caught:
        LocalHost().run({"action": "empty", "runtime": RUNTIME}, 10)
    assert caught.value.hint == "edge-compress doctor --setup tflite-runtime."
    assert installed_version("tflite-runtime") == "not installed"
    assert installed_version("numpy") == pytest.importorskip("numpy").__version__


def test_only_pinned_wheels_are_asked_for() -> None:
    for line in OWN.requirements.splitlines():
        assert re.fullmatch(r"[a-z-]+==[\d.]+( --hash=sha256:[0-9a-f]{64})+", line)
    assert {line.split("==")[0] for line in OWN.requirements.splitlines()} == {"numpy", "tflite-runtime"}
    hashes = re.findall(r"[0-9a-f]{64}", OWN.requirements)
    assert len(hashes) == len(set(hashes)) == 8


def test_it_is_made_once(tmp_path: Path, pip: list[tuple[str, ...]]) -> None:
    said: list[str] = []
    prepare_environment(tmp_path, RUNTIME, said.append)
    python = python_of(RUNTIME, tmp_path)
    assert python.exists() and python.parent.parent == tmp_path / "tflite-runtime"
    ((*_, flag, wanted),) = pip
    assert {"--require-hashes", "--no-deps", "--only-binary=:all:"} <= set(pip[0]) and flag == "--requirement"
    assert (tmp_path / "tflite-runtime" / Path(wanted).name).read_text() == OWN.requirements
    assert said == ["fetching numpy 1.26.4, tflite-runtime 2.14.0", "starting tflite_runtime"]
    prepare_environment(tmp_path, RUNTIME, said.append)
    assert len(pip) == 1 and said[-1] == "tflite-runtime is there"
    # Nothing but the environment, the link to it and the lock.
    assert {path.name.partition("-")[0] for path in tmp_path.iterdir()} == {"tflite", ".lock"}


def test_that_of_another_version_is_refused_and_made_again(tmp_path: Path, pip: list[tuple[str, ...]]) -> None:
    prepare_environment(tmp_path, RUNTIME, lambda _: None)
    manifest = tmp_path / "tflite-runtime" / "manifest.json"
    manifest.write_text(manifest.read_text().replace("2.14.0", "2.13.0"))
    with pytest.raises(WorkerError, match="that of another version") as caught:
        python_of(RUNTIME, tmp_path)
    assert "doctor --setup" in caught.value.hint
    prepare_environment(tmp_path, RUNTIME, lambda _: None)
    assert len(pip) == 2 and python_of(RUNTIME, tmp_path).exists()


@pytest.mark.parametrize("fails", ["pip", "start"])
def test_a_failure_leaves_the_old_one(
    tmp_path: Path, pip: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    prepare_environment(tmp_path, RUNTIME, lambda _: None)
    old = os.readlink(tmp_path / "tflite-runtime")
    text = (tmp_path / old / "manifest.json").read_text()
    (tmp_path / old / "manifest.json").write_text(text.replace("2.14.0", "2.13.0"))

    def refuse(*_: Any, **__: Any) -> None:
        raise (CompressError if fails == "pip" else WorkerError)("THESE PACKAGES DO NOT MATCH THE HASHES", "stop.")

    monkeypatch.setattr(*((module, "pip") if fails == "pip" else (LocalHost, "run")), refuse)
    with pytest.raises(CompressError, match="DO NOT MATCH"):
        prepare_environment(tmp_path, RUNTIME, lambda _: None)
    assert os.readlink(tmp_path / "tflite-runtime") == old
    assert read_manifest(tmp_path / "tflite-runtime") is not None
    assert not list(tmp_path.glob("*.tmp")) and not list(tmp_path.glob(".*.tmp"))


def test_two_at_a_time_are_refused(tmp_path: Path, pip: list[tuple[str, ...]]) -> None:
    with alone(tmp_path), pytest.raises(StoreError, match="another set-up is running"):
        prepare_environment(tmp_path, RUNTIME, lambda _: None)


def test_a_machine_without_such_a_python_says_which_it_needs(
    tmp_path: Path, pip: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_version_of", lambda python: "3.13")
    with pytest.raises(CompressError, match=r"wheels for Python 3\.11 and 3\.10 only") as caught:
        prepare_environment(tmp_path, RUNTIME, lambda _: None)
    assert "install python3.11" in caught.value.hint
    assert not pip


def test_a_python_that_cannot_be_started_is_none() -> None:
    assert module._version_of("/no/python") == ""
    assert module._version_of(sys.executable) == f"{sys.version_info[0]}.{sys.version_info[1]}"

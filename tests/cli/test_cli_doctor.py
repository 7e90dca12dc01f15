"""`edge-compress doctor`: which runtimes run here, and what to do about the others."""

from __future__ import annotations

import importlib.metadata
import json
import re
from pathlib import Path
from typing import Any

import pytest
from cli_command import Command

from compress.cli import doctor
from compress.errors import CompressError, WorkerError
from compress.hosts import emulation, prepare
from compress.hosts.local import LocalHost

# What the tests' own environment holds; the others may be there or not.
INSTALLED = ("torch", "onnxruntime", "litert", "executorch")
RUNTIMES = ("torch", "onnxruntime", "litert", "tflite_runtime", "executorch", "tensorrt")


def test_what_runs_here(command: Command) -> None:
    said = command("doctor", "--json")
    assert (said.code, said.err) == (0, "")
    answer = json.loads(said.out)
    found = {item["runtime"]: item for item in answer["runtimes"]}
    assert tuple(found) == RUNTIMES
    assert all(found[name]["works"] and not found[name]["why_not"] for name in INSTALLED)
    assert all(item["works"] or item["remedy"] for item in found.values())
    assert found["onnxruntime"]["packages"]["onnxruntime"] == importlib.metadata.version("onnxruntime")
    assert {"cpu", "features", "cores", "python"} <= answer["machine"].keys()


def test_it_starts_every_runtime_in_a_worker(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def broken(_: LocalHost, job: Any, timeout_s: float) -> Any:
        asked.append((job["runtime"], job["action"]))
        raise WorkerError(f"the worker was killed by SIGILL while importing its runtime, without [{job['runtime']}]")

    monkeypatch.setattr(LocalHost, "run", broken)
    monkeypatch.setenv("COLUMNS", "250")
    said = command("doctor")
    assert said.code == 0
    assert asked[:2] == [("onnxruntime", "empty"), ("litert", "empty")]
    lines = {line.split()[0]: line for line in said.out.splitlines() if line}
    assert re.search(r"no .*killed by SIGILL.*\[onnxruntime\].*pip install --force-reinstall", lines["onnxruntime"])


@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="there is a GPU")
def test_every_provider_says_why_it_does_not_run_here(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    answer = json.loads(command("doctor", "--json").out)
    assert [(item["runtime"], item["provider"]) for item in answer["providers"]] == [
        ("onnxruntime", "cuda"),
        ("onnxruntime", "tensorrt"),
        ("onnxruntime", "nv-tensorrt-rtx"),
        ("torch", "cuda"),
    ]
    tensorrt = next(item for item in answer["runtimes"] if item["runtime"] == "tensorrt")
    for item in (tensorrt, *answer["providers"]):
        assert item["works"] is False
        assert "no NVIDIA GPU here" in item["why_not"] and "apt-get install nvidia-driver" in item["remedy"]
    shown = command("doctor").out
    assert "onnxruntime, nv-tensorrt-rtx" in shown
    # Once for TensorRT and once for all providers.
    assert shown.count("no NVIDIA GPU here") == 2


def test_what_is_not_installed_names_the_extra(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name == "ai-edge-quantizer":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(doctor.importlib.metadata, "version", version)
    monkeypatch.setenv("COLUMNS", "200")
    said = command("doctor")
    assert "litert" in said.out
    # The brackets are no markup.
    assert "not installed: ai-edge-quantizer: pip install 'edge-compress[litert]'" in said.out
    found = {item["runtime"]: item for item in json.loads(command("doctor", "--json").out)["runtimes"]}
    assert found["litert"]["works"] is False
    assert found["litert"]["remedy"] == "pip install 'edge-compress[litert]'"


def test_emulated_processors_are_looked_for_and_the_command_is_named(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_COMPRESS_CACHE", str(tmp_path))
    monkeypatch.setattr(emulation.shutil, "which", lambda _: None)
    monkeypatch.setenv("COLUMNS", "200")
    said = command("doctor", "--json")
    found = {item["processor"]: item for item in json.loads(said.out)["emulated"]}
    assert found.keys() >= {"haswell", "cortex-a53", "cortex-a76"}
    assert not any(item["ready"] for item in found.values())
    assert all("is not installed" in item["why_not"] for item in found.values())
    table = command("doctor").out
    assert re.search(
        r"cortex-a53 +no +qemu-aarch64-static is not installed: edge-compress doctor --setup emulated", table
    )


def test_set_up_tells_what_it_does_and_leaves_standard_output_alone(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_COMPRESS_CACHE", str(tmp_path))
    sources = tmp_path / "ports.list"
    sources.touch()
    asked: list[Any] = []

    def prepared(folder: Path, say: Any, given: Path | None) -> None:
        asked.append((folder, given))
        say("fetching Python for aarch64")

    monkeypatch.setattr(prepare, "prepare", prepared)
    said = command("doctor", "--setup", "emulated", "--sources", sources, "--json")
    assert said.code == 0
    assert json.loads(said.out)["emulated"]
    assert f"setting up emulation in {tmp_path / 'emulation'}\n  fetching Python for aarch64\n" in said.err
    assert asked == [(tmp_path / "emulation", sources)]


def test_a_set_up_that_fails_is_an_error(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise CompressError("apt-get for arm64: E: no network", "check it.")

    monkeypatch.setattr(prepare, "prepare", refused)
    said = command("doctor", "--setup", "emulated")
    assert said.code == 2
    assert "apt-get for arm64: E: no network" in said.err
    assert "check it." in said.err


def test_a_runtime_with_an_environment_of_its_own_names_the_command(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_COMPRESS_CACHE", str(tmp_path))
    found = {item["runtime"]: item for item in json.loads(command("doctor", "--json").out)["runtimes"]}
    assert not found["tflite_runtime"]["works"]
    assert "environment of its own, which is not set up" in found["tflite_runtime"]["why_not"]
    assert found["tflite_runtime"]["remedy"] == "edge-compress doctor --setup tflite-runtime"


def test_an_environment_that_is_there_is_shown(command: Command, tflite_runtime: None) -> None:
    said = command("doctor", "--setup", "tflite-runtime", "--json")
    assert said.code == 0 and "tflite-runtime is there" in said.err
    found = {item["runtime"]: item for item in json.loads(said.out)["runtimes"]}
    assert found["tflite_runtime"]["works"]
    assert found["tflite_runtime"]["packages"]["tflite-runtime"] == "2.14.0 in an environment of its own"


@pytest.mark.parametrize(
    ("arguments", "words"), [(("--setup", "moon"), "'moon'"), (("--sources", __file__), "belongs to --setup")]
)
def test_wrong_options_are_named(command: Command, arguments: tuple[str, ...], words: str) -> None:
    said = command("doctor", *arguments)
    assert said.code == 2
    assert words in said.err

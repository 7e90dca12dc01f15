"""`edge-compress doctor`: which runtimes run here, and what to do about the others."""

from __future__ import annotations

import importlib.metadata
import json
import re
from typing import Any

import pytest
from cli_command import Command

from compress.cli import doctor
from compress.errors import WorkerError
from compress.hosts.local import LocalHost

# What the tests' own environment holds; the others may be there or not.
INSTALLED = ("torch", "onnxruntime", "litert")
RUNTIMES = (*INSTALLED, "executorch")


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

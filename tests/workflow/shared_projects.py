"""Fixtures that the tests of the workflow and of the command line share; what is slow is made once a session."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tiny_project import Project, make

from compress.hosts.local import LocalHost

# Milliseconds that the canned worker answers, by what the artifact was lowered to.
CANNED_MS = {"float": 0.8, "int8": 0.4}


@functools.cache
def _made(base: Path) -> Project:
    return make(base / "tiny")


@functools.cache
def _finished(base: Path) -> Project:
    project = _made(base).copy_to(base / "tiny-finished")
    project.run()
    return project


@functools.cache
def _on_both(base: Path) -> Project:
    project = _finished(base).copy_to(base / "tiny-on-both")
    project.change(targets=["onnxruntime-cpu", "litert-cpu"]).run()
    return project


@pytest.fixture
def project(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Project:
    """A project that has not run."""
    return _made(tmp_path_factory.getbasetemp()).copy_to(tmp_path / "project")


@pytest.fixture
def finished(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Project:
    """A project that ran on ONNX Runtime, with everything really measured."""
    return _finished(tmp_path_factory.getbasetemp()).copy_to(tmp_path / "finished")


@pytest.fixture
def on_both(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Project:
    """A project that ran on ONNX Runtime and LiteRT, with everything really measured."""
    return _on_both(tmp_path_factory.getbasetemp()).copy_to(tmp_path / "both")


@pytest.fixture
def canned_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times come from a table instead of from workers: quick, and int8 is always twice as fast."""
    real = LocalHost.run

    def answer(host: LocalHost, job: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        if job["action"] == "empty" and "provider" not in job:
            return {"schema": 1, "peak_rss_bytes": 30_000_000}
        if job["action"] != "latency":
            return real(host, job, timeout_s)
        return {
            "schema": 1,
            "samples_ms": [CANNED_MS[job["precision"]]] * 10,
            "calls_per_sample": 1,
            "load_ms": 3.0,
            "first_ms": 1.0,
            "peak_rss_bytes": 31_000_000,
        }

    monkeypatch.setattr(LocalHost, "run", answer)


@pytest.fixture
def fails_for(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Exception], None]:
    """Lets the worker fail for every job that works on the artifact with this sha256."""

    def install(sha: str, error: Exception) -> None:
        before = LocalHost.run

        def answer(host: LocalHost, job: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
            if Path(str(job.get("artifact", ""))).name == sha:
                raise error
            return before(host, job, timeout_s)

        monkeypatch.setattr(LocalHost, "run", answer)

    return install

"""A GPU that is this machine's memory: a driver compiled for the tests, and a package `tensorrt` beside it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from compress.worker import cuda

SOURCE = Path(__file__).parent / "fake_driver.c"


def compiled_driver(folder: Path) -> str:
    """Gives the path of the compiled driver; skips the test where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler here")
    made = folder / "libcuda.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(made), str(SOURCE)], check=True, timeout=60)
    return str(made)


def use_driver(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    """Lets the program find this driver."""
    monkeypatch.setattr(cuda.Driver.__init__, "__defaults__", (library,))

"""tflite-runtime in the environment that `doctor --setup tflite-runtime` makes; set up once, in pytest's cache."""

from __future__ import annotations

import atexit
import functools
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from numpy.typing import NDArray

from compress.errors import CompressError, StoreError
from compress.hosts.environments import python_of
from compress.hosts.prepare_environment import prepare_environment

# Of `EDGE_COMPRESS_CACHE`; set by the conftest.
cache = Path(tempfile.gettempdir()) / "edge-compress-tests"
# Runtime and scheme: its DEQUANTIZE knows no 4-bit integers.
WITHOUT = {("tflite_runtime", "int4-weights")}
# Where there is no network the reason is told soon.
_IMPATIENT = {"PIP_RETRIES": "0", "PIP_DEFAULT_TIMEOUT": "10"}
# Opens a file, feeds it one row after the other, and says so, for as long as it is asked.
_LOOP = """
import sys
import numpy as np
from tflite_runtime.interpreter import Interpreter
for line in sys.stdin:
    folder = line.strip()
    try:
        run = Interpreter(model_path=folder + "/model.tflite", num_threads=1).get_signature_runner()
        rows = np.load(folder + "/rows.npz")
        kinds = {name: item["dtype"] for name, item in run.get_input_details().items()}
        made = [
            run(**{name: rows[name][row : row + 1].astype(kind) for name, kind in kinds.items()})
            for row in range(len(rows[rows.files[0]]))
        ]
        np.savez(folder + "/made.npz", **{name: np.concatenate([row[name] for row in made]) for name in made[0]})
        print("done", flush=True)
    except Exception as error:
        print(" ".join(str(error).split()), flush=True)
"""


def python() -> Path:
    """Gives the environment's Python, or skips the test with the reason why there is none."""
    found = _set_up()
    if isinstance(found, str):
        pytest.skip(found)
    return found


def answers(data: bytes, arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Runs a file in one process that answers all tests."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "model.tflite").write_bytes(data)
        np.savez(Path(folder, "rows.npz"), allow_pickle=False, **arrays)
        process = _process(python())
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(f"{folder}\n")
        process.stdin.flush()
        said = process.stdout.readline().strip()
        if not said:
            _process.cache_clear()
        if said != "done":
            raise RuntimeError(said or f"it ended with {process.wait()}")
        with np.load(Path(folder, "made.npz"), allow_pickle=False) as made:
            return dict(made)


@functools.cache
def _set_up() -> Path | str:
    folder = cache / "environments"
    end = time.monotonic() + 60
    with mock.patch.dict(os.environ, _IMPATIENT):
        while True:
            try:
                prepare_environment(folder, "tflite_runtime", lambda line: None)
                return python_of("tflite_runtime", folder)
            except StoreError as error:
                # Another process of the same tests is at it.
                if time.monotonic() > end:
                    return str(error)
                time.sleep(0.2)
            except CompressError as error:
                return f"tflite-runtime cannot be had: {error}"


@functools.cache
def _process(interpreter: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [str(interpreter), "-I", "-c", _LOOP],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    atexit.register(process.kill)
    return process

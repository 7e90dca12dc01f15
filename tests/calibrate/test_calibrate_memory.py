"""Peak memory of calibration in a process of its own: of many rows as of few."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import compress

# 2,048 rows whose values, kept, would be 1.6 GB: a process of 0.4 GB would show a tenth of them.
CODE = """
import resource, sys
import numpy as np, torch
from torch import nn
from compress.calibrate import Method, calibrate
from compress.model.core import TensorInfo
from compress.model.factory import export_module

module = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()).eval()
model = export_module(module, [TensorInfo("input", (3, 40, 40), "float32")], (), "test")
method, rows = sys.argv[1], int(sys.argv[2])
random = np.random.default_rng(0)
batches = ({"input": random.standard_normal((8, 3, 40, 40)).astype(np.float32)} for _ in range(rows // 8))
calibrate(model, batches, Method(method))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux")
@pytest.mark.parametrize("method", ["min-max", "mse"])
def test_many_rows_peak_as_few_do(method):
    environment = {**os.environ, "PYTHONPATH": str(Path(compress.__file__).parents[1]), "OMP_NUM_THREADS": "1"}

    def peak(rows):
        command = [sys.executable, "-c", CODE, method, str(rows)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return int(done.stdout.split()[-1])

    assert peak(2048) <= 1.1 * peak(64)

"""The GPU driver, through ctypes: against a driver of the tests' own that keeps to its form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gpu_kit import compiled_driver

from compress.worker.cuda import Driver
from compress.worker.errors import JobError


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    return compiled_driver(tmp_path_factory.mktemp("driver"))


def test_it_tells_what_the_gpu_is(library: str) -> None:
    assert str(Driver(library).gpu) == "Fake GPU, compute capability 8.7, driver for CUDA 12.8"


def test_arrays_go_there_and_come_back(library: str) -> None:
    driver = Driver(library)
    driver.start()
    driver.start()
    stream = driver.stream()
    here, pinned = driver.pinned((3, 5), "float32")
    here[...] = np.random.default_rng(0).standard_normal((3, 5))
    back, other = driver.pinned((3, 5), "float32")
    there = driver.allocate(here.nbytes)
    driver.to_gpu(there, here, stream)
    driver.from_gpu(back, there, stream)
    driver.wait(stream)
    np.testing.assert_array_equal(back, here)
    driver.free(there)
    del here, back
    driver.unpin(pinned)
    driver.unpin(other)


def test_what_the_driver_refuses_is_told(library: str) -> None:
    driver = Driver(library)
    driver.start()
    with pytest.raises(JobError, match=r"failed in cuMemAlloc_v2: out of memory \(CUDA error 2\)"):
        driver.allocate(1 << 50)


def test_a_machine_without_a_driver_or_a_gpu_says_so(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        JobError, match=r"no NVIDIA GPU here: there is no driver \(libno-such.so.1 is missing\)"
    ) as error:
        Driver("libno-such.so.1")
    assert "--gpus all" in error.value.hint
    monkeypatch.setenv("FAKE_CUINIT", "100")
    with pytest.raises(JobError, match=r"the driver says no CUDA-capable device .*\(CUDA error 100\)"):
        Driver(library)
    monkeypatch.setenv("FAKE_CUINIT", "0")
    monkeypatch.setenv("FAKE_GPUS", "0")
    with pytest.raises(JobError, match="no NVIDIA GPU here: the driver lists none"):
        Driver(library)


def test_the_library_is_the_drivers_own_file(library: str) -> None:
    assert Path(library).name == "libcuda.so.1"

"""Execution providers of ONNX Runtime: what is asked for runs, or the reason is told; nothing stands in silently."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime
import pytest

from compress.errors import WorkerError
from compress.hosts.calls import ask
from compress.hosts.local import LocalHost
from compress.worker import onnxruntime_providers as providers
from compress.worker.cuda import Gpu
from compress.worker.errors import JobError
from compress.worker.onnxruntime_session import OnnxRuntimeSession

NAMES = ["cuda", "tensorrt", "nv-tensorrt-rtx"]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "first_gpu", lambda: Gpu("Fake GPU", "8.9", "12.8"))


@pytest.mark.parametrize("provider", NAMES)
def test_without_a_gpu_a_worker_says_so(provider: str) -> None:
    if Path("/dev/nvidia0").exists():
        pytest.skip("there is a GPU")
    with pytest.raises(WorkerError, match="no NVIDIA GPU here") as error:
        ask(LocalHost(), {"action": "empty", "runtime": "onnxruntime", "provider": provider}, 60)
    assert "driver" in error.value.hint


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_build_without_the_provider_names_the_package(
    provider: str, onnx_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(JobError, match=r"is a build without .*ExecutionProvider \(it has CPU") as error:
        OnnxRuntimeSession(onnx_file, 1, provider)
    assert "pip install onnxruntime-gpu" in error.value.hint


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_provider_whose_libraries_do_not_load_is_not_replaced(
    provider: str, onnx_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime then opens the file on the CPU, and says so in its log alone."""
    real, asked = onnxruntime.InferenceSession, []
    name = providers.PROVIDERS[provider].name

    def silently(path: str, options: Any, **settings: Any) -> Any:
        asked.append(settings)
        return real(path, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [name, "CPUExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    monkeypatch.setattr(onnxruntime, "InferenceSession", silently)
    with pytest.raises(JobError, match=rf"fell back to CPUExecutionProvider: {name} could not be loaded"):
        OnnxRuntimeSession(onnx_file, 1, provider)
    assert asked[0]["providers"][0][0] == name and asked[0]["enable_fallback"] == 0


@pytest.mark.usefixtures("gpu")
def test_integers_are_allowed_to_tensorrt_where_the_file_has_them(
    onnx_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = providers._options(providers.PROVIDERS["tensorrt"], onnx_file)
    assert options == {}
    marked = tmp_path / "qdq.onnx"
    marked.write_bytes(onnx_file.read_bytes() + b"DequantizeLinear")
    assert providers._options(providers.PROVIDERS["tensorrt"], marked) == {"trt_int8_enable": "1"}


@pytest.mark.usefixtures("gpu")
def test_a_plugin_that_is_missing_or_does_not_load_is_named(
    onnx_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime_ep_nv_tensorrt_rtx", None)
    with pytest.raises(JobError, match="NvTensorRTRTXExecutionProvider is not installed") as error:
        OnnxRuntimeSession(onnx_file, 1, "nv-tensorrt-rtx")
    assert error.value.hint == "pip install onnxruntime-ep-nv-tensorrt-rtx-cu13"
    library = tmp_path / "libprovider.so"
    library.write_bytes(b"no library")
    package = SimpleNamespace(get_library_path=lambda: str(library))
    monkeypatch.setitem(sys.modules, "onnxruntime_ep_nv_tensorrt_rtx", package)
    with pytest.raises(JobError, match="cannot load NvTensorRTRTXExecutionProvider"):
        OnnxRuntimeSession(onnx_file, 1, "nv-tensorrt-rtx")


def test_a_file_of_which_nothing_runs_there_is_refused() -> None:
    with pytest.raises(JobError, match="none of the operators runs on CUDAExecutionProvider; they run on CPUExecution"):
        providers.refuse_absence("cuda", {"CPUExecutionProvider"})
    providers.refuse_absence("cuda", {"CUDAExecutionProvider", "CPUExecutionProvider"})


def test_an_unknown_provider_lists_the_known_ones(onnx_file: Path) -> None:
    with pytest.raises(JobError, match="no provider 'rocm'") as error:
        OnnxRuntimeSession(onnx_file, 1, "rocm")
    assert "nv-tensorrt-rtx" in error.value.hint

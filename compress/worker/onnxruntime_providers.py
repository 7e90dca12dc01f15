"""ONNX Runtime's execution providers: the one that a job asks for, whether it works here, and nothing in its stead."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnxruntime

from .cuda import first_gpu
from .errors import JobError

CPU = "CPUExecutionProvider"
# Behind the first four bytes of an `.ort` file.
ORT_MARK = b"ORTM"


@dataclass(frozen=True)
class Provider:
    """One execution provider.

    Attributes:
        name: ONNX Runtime's name of it.
        install: The command that brings it.
        plugin: Package that holds it as a library of its own; empty where it is part of ONNX Runtime's package.
        options: How it is opened.
        beside: Providers that take what it does not, before the CPU.
    """

    name: str
    install: str
    plugin: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    beside: tuple[str, ...] = ()


# The CUDA build is another package of the same import name, so the CPU build has to go first.
_GPU_BUILD = "pip uninstall -y onnxruntime && pip install onnxruntime-gpu"
PROVIDERS = {
    "cpu": Provider(CPU, ""),
    # TF32 would round the inputs of float32 products to 10 bits: float32 stays what it says.
    "cuda": Provider("CUDAExecutionProvider", _GPU_BUILD, options={"use_tf32": "0"}),
    "tensorrt": Provider("TensorrtExecutionProvider", f"{_GPU_BUILD} tensorrt-cu12", beside=("CUDAExecutionProvider",)),
    "nv-tensorrt-rtx": Provider(
        "NvTensorRTRTXExecutionProvider",
        "pip install onnxruntime-ep-nv-tensorrt-rtx-cu13",
        plugin="onnxruntime_ep_nv_tensorrt_rtx",
    ),
}


def check(provider: str) -> str:
    """Returns the GPU that a provider computes on, empty for the CPU.

    Raises:
        JobError: If there is no such provider, its package is missing, or there is no GPU.
    """
    wanted = _known(provider)
    if provider == "cpu":
        return ""
    gpu = first_gpu()
    if wanted.plugin:
        _devices(wanted)
    elif wanted.name not in onnxruntime.get_available_providers():
        raise JobError(
            f"ONNX Runtime {onnxruntime.__version__} is a build without {wanted.name}"
            f" (it has {', '.join(onnxruntime.get_available_providers())})",
            wanted.install,
        )
    return f"{gpu}, {wanted.name}"


def open_file(artifact: Path, options: Any, provider: str) -> Any:
    """Opens a file on a provider and on no other in its stead.

    ONNX Runtime goes on with the CPU where a provider's libraries cannot be loaded, and says so in its log alone.

    Raises:
        JobError: If the provider does not work here, or the file cannot be opened.
    """
    wanted = _known(provider)
    check(provider)
    try:
        with artifact.open("rb") as file:
            if file.read(8)[4:] == ORT_MARK:
                # It would go by the file's ending.
                options.add_session_config_entry("session.load_model_format", "ORT")
        if wanted.plugin:
            options.add_provider_for_devices(_devices(wanted), dict(wanted.options))
            session = onnxruntime.InferenceSession(str(artifact), options)
        else:
            if provider != "cpu" and hasattr(onnxruntime, "preload_dlls"):
                # CUDA and cuDNN out of the packages that pip installs beside ONNX Runtime.
                onnxruntime.preload_dlls()
            beside = [(name, dict(PROVIDERS["cuda"].options)) for name in wanted.beside]
            asked = [(wanted.name, _options(wanted, artifact)), *beside]
            session = onnxruntime.InferenceSession(
                str(artifact), options, providers=asked if provider != "cpu" else [CPU], enable_fallback=0
            )
    except Exception as error:  # onnxruntime's own exceptions share no base class
        raise JobError(f"{artifact}: ONNX Runtime {onnxruntime.__version__} cannot open it: {error}") from error
    if wanted.name not in session.get_providers():
        raise JobError(
            f"ONNX Runtime fell back to {', '.join(session.get_providers())}: {wanted.name} could not be loaded"
            " (a CUDA, cuDNN or TensorRT library of the version that it was built for is missing)",
            'see which: python -c "import onnxruntime as o; o.preload_dlls(); o.print_debug_info()"; or install'
            f" matching ones: {wanted.install}",
        )
    return session


def refuse_absence(provider: str, ran: set[str]) -> None:
    """Refuses a file of which no operator ran on the provider.

    Raises:
        JobError: If only other providers took its operators.
    """
    wanted = _known(provider)
    if wanted.name not in ran:
        raise JobError(
            f"none of the operators runs on {wanted.name}; they run on {', '.join(sorted(ran)) or 'nothing'}",
            f'use provider = "cpu" for this file, or another scheme: {wanted.name} has no kernel for its operators.',
        )


def _known(provider: str) -> Provider:
    if provider not in PROVIDERS:
        raise JobError(f"ONNX Runtime has no provider {provider!r}", f"known: {', '.join(PROVIDERS)}.")
    return PROVIDERS[provider]


def _options(wanted: Provider, artifact: Path) -> dict[str, str]:
    options = dict(wanted.options)
    if wanted.name == "TensorrtExecutionProvider" and b"DequantizeLinear" in artifact.read_bytes():
        # Before TensorRT 11 integers have to be allowed; where a file has none, this would make it look for ranges.
        options["trt_int8_enable"] = "1"
    return options


def _devices(wanted: Provider) -> list[Any]:
    """The GPUs of a provider that is a library of its own; registers the library once a process."""
    found = _listed(wanted)
    if found:
        return found
    try:
        package = importlib.import_module(wanted.plugin)
    except ImportError as error:
        raise JobError(
            f"{wanted.name} is not installed: there is no package {wanted.plugin!r}", wanted.install
        ) from error
    try:
        onnxruntime.register_execution_provider_library(wanted.name, package.get_library_path())
    except Exception as error:
        raise JobError(
            f"ONNX Runtime {onnxruntime.__version__} cannot load {wanted.name}: {error}",
            "see that the driver is new enough for the package (CUDA 13): nvidia-smi",
        ) from error
    found = _listed(wanted)
    if not found:
        raise JobError(
            f"{wanted.name} finds no GPU that it supports", "it needs an RTX GPU, Ampere or later: nvidia-smi -L"
        )
    return found


def _listed(wanted: Provider) -> list[Any]:
    return [device for device in onnxruntime.get_ep_devices() if device.ep_name == wanted.name]

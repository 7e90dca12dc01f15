"""From an `.onnx` file to a TensorRT engine for the GPU of this machine. TensorRT 10 or newer.

The network is strongly typed: float32, halves and int8 are where the file has them, and TensorRT chooses kernels, not
precisions. (Version 11 knows nothing else; its predecessors are asked for it.)
"""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .cuda import Driver
from .errors import JobError

MANIFEST, PLAN, TIMINGS = "manifest.json", "engine.plan", "timing.cache"
OLDEST = 10
SCHEMA = 1
# All that decides which kernels are considered and how they are timed. TF32 would round float32 products to 10 bits.
FLAGS: Mapping[str, int | bool] = {
    "strongly_typed": True,
    "tf32": False,
    "builder_optimization_level": 3,
    "avg_timing_iterations": 8,
    "workspace_bytes": 1 << 30,
}
_INSTALL = (
    "pip install 'edge-compress[tensorrt]' there; on a Jetson it is part of JetPack: apt-get install python3-libnvinfer"
)


@dataclass(frozen=True)
class Engine:
    """A built engine, what it was built for, and how long each kernel took, for the next build."""

    plan: bytes
    manifest: Mapping[str, Any]
    timings: bytes = b""

    def pack(self) -> bytes:
        """Returns it as an uncompressed zip archive, the same bytes every time."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, data in (
                (MANIFEST, json.dumps(self.manifest, indent=1, sort_keys=True).encode()),
                (PLAN, self.plan),
                (TIMINGS, self.timings),
            ):
                if data:
                    archive.writestr(zipfile.ZipInfo(name), data)
        return buffer.getvalue()


def tensorrt() -> Any:
    """Returns the package.

    Raises:
        JobError: If it is missing, has no libraries, or is too old.
    """
    try:
        found = importlib.import_module("tensorrt")
    except ImportError as error:
        raise JobError(f"TensorRT cannot be imported here: {error}", _INSTALL) from error
    if int(found.__version__.partition(".")[0]) < OLDEST:
        raise JobError(f"TensorRT {found.__version__} is too old: {OLDEST} or newer is needed", _INSTALL)
    return found


def logger(trt: Any) -> Any:
    """Returns a logger that keeps what TensorRT says of errors, in `said`."""

    class Log(trt.ILogger):  # type: ignore[misc]  # the package has no types
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.said: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.said.append(msg)

    return Log()


def build(artifact: Path, batch: int, timings: Path | None = None) -> Engine:
    """Builds an engine for one row up to a batch, tuned for the batch.

    Args:
        artifact: An `.onnx` file whose batch is free.
        batch: The largest number of rows a call.
        timings: The timing cache of an earlier build on the same kind of GPU: kernels in it are not timed again.

    Raises:
        JobError: If there is no GPU or no TensorRT, or it refuses the network; names the nodes.
    """
    driver = Driver()
    trt = tensorrt()
    driver.start()
    said = logger(trt)
    builder = trt.Builder(said)
    typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(typed)
    parser = trt.OnnxParser(network, said)
    data = artifact.read_bytes()
    if not parser.parse(data):
        errors = [parser.get_error(number) for number in range(parser.num_errors)]
        nodes = "; ".join(f"{item.node_operator()} ({item.node_name()}): {item.desc()}" for item in errors[:5])
        raise JobError(f"{artifact}: TensorRT {trt.__version__} refuses the network: {nodes}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, FLAGS["workspace_bytes"])
    config.builder_optimization_level = FLAGS["builder_optimization_level"]
    config.avg_timing_iterations = FLAGS["avg_timing_iterations"]
    config.clear_flag(trt.BuilderFlag.TF32)
    known = timings.read_bytes() if timings is not None else b""
    if not config.set_timing_cache(config.create_timing_cache(known), ignore_mismatch=False):
        # Timings of another GPU or version: it begins anew.
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)
    profile = builder.create_optimization_profile()
    for number in range(network.num_inputs):
        tensor = network.get_input(number)
        bounds = shapes(tuple(tensor.shape), batch)
        if bounds is not None:
            profile.set_shape(tensor.name, *bounds)
    config.add_optimization_profile(profile)
    made = builder.build_serialized_network(network, config)
    if made is None:
        raise JobError(f"{artifact}: TensorRT {trt.__version__} cannot build the engine: {' '.join(said.said[-3:])}")
    plan, gpu = bytes(made), driver.gpu
    manifest = {
        "schema": SCHEMA,
        "gpu": gpu.name,
        "compute_capability": gpu.compute_capability,
        "tensorrt": trt.__version__,
        "batch": batch,
        "flags": dict(FLAGS),
        "plan_sha256": hashlib.sha256(plan).hexdigest(),
        "onnx_sha256": hashlib.sha256(data).hexdigest(),
        "timings_known_sha256": hashlib.sha256(known).hexdigest() if known else "",
    }
    return Engine(plan, manifest, bytes(config.get_timing_cache().serialize()))


def shapes(sizes: tuple[int, ...], batch: int) -> tuple[tuple[int, ...], ...] | None:
    """Returns the smallest, the usual and the largest shape of an input; None where it has no free dimension.

    Args:
        sizes: -1 where a dimension is free.
        batch: The largest number of rows a call, and the usual one.

    Raises:
        JobError: If more than the batch is free: there is no saying how large it gets.
    """
    if -1 in sizes[1:]:
        raise JobError(f"an input has a free dimension besides its batch: {list(sizes)}")
    if not sizes or sizes[0] != -1:
        return None
    return (1, *sizes[1:]), (batch, *sizes[1:]), (batch, *sizes[1:])


def unpack(artifact: Path) -> Engine:
    """Reads a packed engine.

    Raises:
        JobError: If it is damaged.
    """
    try:
        with zipfile.ZipFile(artifact) as archive:
            manifest = json.loads(archive.read(MANIFEST))
            plan = archive.read(PLAN)
            stated = manifest["plan_sha256"]
    except (OSError, KeyError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise JobError(
            f"{artifact}: it is no engine of this program: {error}", "build it again: edge-compress run"
        ) from error
    if hashlib.sha256(plan).hexdigest() != stated:
        raise JobError(
            f"{artifact}: the engine is not the one that its manifest names", "build it again: edge-compress run"
        )
    return Engine(plan, manifest)

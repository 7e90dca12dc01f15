"""TensorRT engines, through TensorRT's own runtime and the GPU driver; nothing else has to be installed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .arrays import Array
from .base_session import BaseSession
from .cuda import Driver
from .errors import JobError
from .session import Operators, OperatorTime, Placement, TensorSpec
from .tensorrt_build import Engine, build, logger, tensorrt, unpack

_AGAIN = "an engine is for one kind of GPU and one version of TensorRT: build it there: edge-compress run"


class TensorRtSession(BaseSession):
    """One engine, as `build` packs it. Its batch has an upper bound; more rows are run in portions."""

    def __init__(self, artifact: Path, threads: int, provider: str = "cuda") -> None:
        self._artifact = artifact
        self._driver = Driver()
        self._driver.start()
        trt = self._trt = tensorrt()
        engine = unpack(artifact)
        _refuse_elsewhere(engine, self._driver, trt, artifact)
        self._log = logger(trt)
        self._runtime = trt.Runtime(self._log)
        self._engine: Any = self._runtime.deserialize_cuda_engine(engine.plan)
        if self._engine is None:
            raise JobError(
                f"{artifact}: TensorRT {trt.__version__} cannot open it: {' '.join(self._log.said[-3:])}", _AGAIN
            )
        self._context: Any = self._engine.create_execution_context()
        if self._context is None:
            raise JobError(f"{artifact}: no room for it on the GPU: {' '.join(self._log.said[-3:])}", "see: nvidia-smi")
        self._most = int(engine.manifest["batch"])
        self._stream = self._driver.stream()
        names = [self._engine.get_tensor_name(number) for number in range(self._engine.num_io_tensors)]
        kinds = {name: self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT for name in names}
        self.inputs = {name: self._spec(name) for name in names if kinds[name]}
        self.outputs = {name: self._spec(name) for name in names if not kinds[name]}

    def __enter__(self) -> TensorRtSession:
        """Returns the session itself."""
        return self

    @classmethod
    def processor(cls, provider: str) -> str:
        """Returns the GPU and the version of TensorRT.

        Raises:
            JobError: If there is no GPU, or no TensorRT.
        """
        driver = Driver()
        version = tensorrt().__version__
        driver.start()
        return f"{driver.gpu}, TensorRT {version}"

    @classmethod
    def build(cls, artifact: Path, batch: int, timings: Path | None, made: Path) -> dict[str, Any]:
        """Builds the engine of an `.onnx` file and writes it with its manifest, which is returned.

        Raises:
            JobError: If there is no GPU or no TensorRT, or it refuses the network.
        """
        engine = build(artifact, batch, timings)
        made.write_bytes(engine.pack())
        return dict(engine.manifest)

    def close(self) -> None:
        """Frees the engine."""
        # In this order: what is made of something goes before it.
        self._context = self._engine = self._runtime = None

    def placement(self, precision: str, inputs: Mapping[str, Array] | None = None) -> Placement:
        """Returns the engine's layers: all run on the GPU, and each is what TensorRT made of one or several nodes."""
        inspector = self._engine.create_engine_inspector()
        told = json.loads(inspector.get_engine_information(self._trt.LayerInformationFormat.JSON))
        names = [layer if isinstance(layer, str) else str(layer.get("Name", "")) for layer in told.get("Layers", ())]
        counts = Counter("fused layer" if "+" in name or "ForeignNode" in name else "layer" for name in names)
        return Placement(
            "TensorRT engine", tuple(Operators(name, count, True) for name, count in sorted(counts.items()))
        )

    def profile(self, inputs: Mapping[str, Array], calls: int) -> tuple[OperatorTime, ...]:
        """Returns the time of every layer of the engine by TensorRT's own profiler, without the first call."""
        trt = self._trt

        class Profiler(trt.IProfiler):  # type: ignore[misc, name-defined]  # the package has no types
            def __init__(self) -> None:
                trt.IProfiler.__init__(self)
                self.times_ms: dict[str, float] = {}

            def report_layer_time(self, layer_name: str, ms: float) -> None:
                self.times_ms[layer_name] = self.times_ms.get(layer_name, 0.0) + ms

        profiler = Profiler()
        self._context.profiler = profiler
        call = self.prepare({name: array[: self._most] for name, array in inputs.items()})
        profiler.times_ms.clear()
        for _ in range(calls):
            call()
        return tuple(OperatorTime(name, "layer", total / calls) for name, total in profiler.times_ms.items())

    def _call(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        bound = _Bound(self, feed)
        try:
            bound.call()
            return {name: array.copy() for name, array in bound.outputs.items()}
        finally:
            bound.free()

    def _bind(self, feed: Mapping[str, Array]) -> Callable[[], None]:
        """The inputs are copied to the GPU and the outputs back in every call, as where rows come from memory."""
        bound = _Bound(self, feed)
        bound.call()
        return bound.call

    def _spec(self, name: str) -> TensorSpec:
        shape = tuple(None if size < 0 else int(size) for size in self._engine.get_tensor_shape(name))
        return TensorSpec(shape, np.dtype(self._trt.nptype(self._engine.get_tensor_dtype(name))).name)


class _Bound:
    """One call's rows in pinned memory, memory on the GPU for what goes in and out, and the call."""

    def __init__(self, session: TensorRtSession, feed: Mapping[str, Array]) -> None:
        self._session, self._driver = session, session._driver
        self._there: dict[str, int] = {}
        self._pinned: list[int] = []
        self._shapes = {name: array.shape for name, array in feed.items()}
        self.inputs: dict[str, Array] = {}
        self.outputs: dict[str, Array] = {}
        context = session._context
        for name, array in feed.items():
            if not context.set_input_shape(name, array.shape):
                raise JobError(f"{session._artifact}: the engine takes no input {name!r} of shape {list(array.shape)}")
            self.inputs[name] = self._memory(name, array.shape, array.dtype.name)
            self.inputs[name][...] = array
        for name, spec in session.outputs.items():
            self.outputs[name] = self._memory(name, tuple(context.get_tensor_shape(name)), spec.dtype)

    def call(self) -> None:
        """Copies in, computes, copies out, and waits."""
        session, driver, stream = self._session, self._driver, self._session._stream
        context = session._context
        # Another call of the same session may have other rows.
        for name, shape in self._shapes.items():
            context.set_input_shape(name, shape)
        for name, address in self._there.items():
            context.set_tensor_address(name, address)
        for name, array in self.inputs.items():
            driver.to_gpu(self._there[name], array, stream)
        if not context.execute_async_v3(stream):
            raise JobError(f"{session._artifact}: TensorRT cannot run it: {' '.join(session._log.said[-3:])}")
        for name, array in self.outputs.items():
            driver.from_gpu(array, self._there[name], stream)
        driver.wait(stream)

    def free(self) -> None:
        """Frees what lies on the GPU and what is pinned; the arrays must not be used any more."""
        self.inputs, self.outputs = {}, {}
        for address in self._there.values():
            self._driver.free(address)
        for address in self._pinned:
            self._driver.unpin(address)

    def _memory(self, name: str, shape: tuple[int, ...], dtype: str) -> Array:
        array, address = self._driver.pinned(shape, dtype)
        self._pinned.append(address)
        self._there[name] = self._driver.allocate(array.nbytes)
        return array


def _refuse_elsewhere(engine: Engine, driver: Driver, trt: Any, artifact: Path) -> None:
    gpu, built = driver.gpu, engine.manifest
    wanted = (built["gpu"], built["compute_capability"])
    if wanted != (gpu.name, gpu.compute_capability):
        raise JobError(
            f"{artifact}: the engine was built for {wanted[0]} (compute capability {wanted[1]});"
            f" here is {gpu.name} (compute capability {gpu.compute_capability})",
            _AGAIN,
        )
    if built["tensorrt"] != trt.__version__:
        raise JobError(
            f"{artifact}: the engine was built by TensorRT {built['tensorrt']}; here is {trt.__version__}", _AGAIN
        )

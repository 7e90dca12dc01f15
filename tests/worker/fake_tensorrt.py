"""A package `tensorrt` that computes with ONNX Runtime on the addresses that it is given.

It has what `compress.worker` calls of TensorRT 10 and 11, in its form, and nothing else.
"""

from __future__ import annotations

import ctypes
import enum
import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime

__version__ = "10.9.0"


class ILogger:
    class Severity(enum.IntEnum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2


class IProfiler:
    pass


class NetworkDefinitionCreationFlag(enum.IntEnum):
    STRONGLY_TYPED = 1


class BuilderFlag(enum.IntEnum):
    TF32 = 7


class MemoryPoolType(enum.IntEnum):
    WORKSPACE = 0


class TensorIOMode(enum.IntEnum):
    INPUT = 1
    OUTPUT = 2


class LayerInformationFormat(enum.IntEnum):
    JSON = 1


class _Network:
    def __init__(self, flags: int) -> None:
        assert flags == 2, "the network is strongly typed"
        self.data = b""

    @property
    def _inputs(self) -> list[Any]:
        return list(onnx.load_from_string(self.data).graph.input)

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    def get_input(self, number: int) -> Any:
        item = self._inputs[number]
        sizes = [size.dim_value or -1 for size in item.type.tensor_type.shape.dim]
        return SimpleNamespace(name=item.name, shape=tuple(sizes))


class OnnxParser:
    def __init__(self, network: _Network, logger: Any) -> None:
        self._network, self._errors = network, []

    def parse(self, data: bytes) -> bool:
        self._network.data = data
        self._errors = [node for node in onnx.load_from_string(data).graph.node if node.op_type == "Det"]
        return not self._errors

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, number: int) -> Any:
        node = self._errors[number]
        return SimpleNamespace(
            node_operator=lambda: node.op_type, node_name=lambda: node.name, desc=lambda: "no importer registered"
        )


class _Timings:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def serialize(self) -> bytes:
        return self.data + b"+timed"


class _Config:
    def __init__(self) -> None:
        self.builder_optimization_level = self.avg_timing_iterations = 0
        self.cleared: list[Any] = []
        self.profiles: list[Any] = []

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        assert (pool, size) == (MemoryPoolType.WORKSPACE, 1 << 30)

    def clear_flag(self, flag: Any) -> None:
        self.cleared.append(flag)

    def create_timing_cache(self, data: bytes) -> _Timings:
        return _Timings(data)

    def set_timing_cache(self, cache: _Timings, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self._cache = cache
        return cache.data != b"of another GPU"

    def get_timing_cache(self) -> _Timings:
        return self._cache

    def add_optimization_profile(self, profile: Any) -> None:
        self.profiles.append(profile)


class _Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, Any] = {}

    def set_shape(self, name: str, least: Any, usual: Any, most: Any) -> None:
        self.shapes[name] = (least, usual, most)


class Builder:
    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def create_network(self, flags: int) -> _Network:
        return _Network(flags)

    def create_builder_config(self) -> _Config:
        return _Config()

    def create_optimization_profile(self) -> _Profile:
        return _Profile()

    def build_serialized_network(self, network: _Network, config: _Config) -> bytes | None:
        assert config.cleared == [BuilderFlag.TF32]
        (profile,) = config.profiles
        if any(node.op_type == "Sin" for node in onnx.load_from_string(network.data).graph.node):
            self._logger.log(ILogger.Severity.WARNING, "not this")
            self._logger.log(ILogger.Severity.ERROR, "Could not find any implementation for node Sin.")
            return None
        return json.dumps({"shapes": profile.shapes, "onnx": network.data.hex()}).encode()


class Runtime:
    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def deserialize_cuda_engine(self, plan: bytes) -> Any:
        try:
            return _Engine(json.loads(plan))
        except ValueError:
            self._logger.log(ILogger.Severity.ERROR, "Magic tag does not match.")
            return None


def nptype(dtype: str) -> Any:
    return {"tensor(float)": np.float32, "tensor(int64)": np.int64}[dtype]


class _Engine:
    def __init__(self, plan: dict[str, Any]) -> None:
        self.session = onnxruntime.InferenceSession(bytes.fromhex(plan["onnx"]), providers=["CPUExecutionProvider"])
        self.shapes = plan["shapes"]
        self.items = {item.name: (TensorIOMode.INPUT, item) for item in self.session.get_inputs()}
        self.items |= {item.name: (TensorIOMode.OUTPUT, item) for item in self.session.get_outputs()}

    @property
    def num_io_tensors(self) -> int:
        return len(self.items)

    def get_tensor_name(self, number: int) -> str:
        return list(self.items)[number]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return self.items[name][0]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(size if isinstance(size, int) else -1 for size in self.items[name][1].shape)

    def get_tensor_dtype(self, name: str) -> str:
        return str(self.items[name][1].type)

    def create_execution_context(self) -> Any:
        return _Context(self)

    def create_engine_inspector(self) -> Any:
        layers = ["first_layer + active", "second_layer"]
        return SimpleNamespace(get_engine_information=lambda kind: json.dumps({"Layers": layers, "Bindings": []}))


class _Context:
    def __init__(self, engine: _Engine) -> None:
        self._engine = engine
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self.profiler: Any = None

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        least, _, most = self._engine.shapes[name]
        if not all(low <= size <= high for low, size, high in zip(least, shape, most, strict=True)):
            return False
        self._shapes[name] = tuple(shape)
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        rows = next(iter(self._shapes.values()))[0]
        return tuple(rows if size < 0 else size for size in self._engine.get_tensor_shape(name))

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == 5
        feed = {name: self._view(name, shape).copy() for name, shape in self._shapes.items()}
        names = [name for name, (mode, _) in self._engine.items.items() if mode == TensorIOMode.OUTPUT]
        for name, made in zip(names, self._engine.session.run(names, feed), strict=True):
            self._view(name, made.shape)[...] = made
        if self.profiler is not None:
            self.profiler.report_layer_time("first_layer + active", 0.5)
            self.profiler.report_layer_time("second_layer", 0.25)
        return True

    def _view(self, name: str, shape: tuple[int, ...]) -> Any:
        dtype = np.dtype(nptype(self._engine.get_tensor_dtype(name)))
        count = int(np.prod(shape))
        memory = (ctypes.c_byte * (count * dtype.itemsize)).from_address(self._addresses[name])
        return np.frombuffer(memory, dtype, count).reshape(shape)

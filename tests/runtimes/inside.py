"""Looks into lowered files: which weights they hold, and in what precision."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.model.core import Model, state
from compress.model.layers import Layer


def constants(runtime: str, data: bytes) -> list[NDArray[Any]]:
    """Gives every constant tensor of a file, in its own dtype."""
    return {"onnxruntime": _onnx, "litert": _tflite, "executorch": _pte}[runtime](data)


def holds(runtime: str, data: bytes, model: Model, layer: Layer, dtype: type | str) -> bool:
    """Whether a file holds a layer's weight in a dtype, in whatever order, scaled by whatever constant.

    Integers are compared to the weight over the largest value of its channel, or of all; those of 4 bits by their
    correlation with it, whatever shares a scale.
    """
    weight = state(model.program)[layer.weight].detach().numpy().astype(np.float64)
    if dtype == "int4":
        over = weight / np.abs(weight).max(axis=tuple(range(1, weight.ndim)), keepdims=True)
        return any(
            steps.size == weight.size and np.corrcoef(steps.reshape(-1), each.reshape(-1))[0, 1] > 0.9
            for steps in {"onnxruntime": _onnx_int4, "litert": _tflite_int4}[runtime](data)
            for each in (weight, over)
        )
    wanted = [_over(weight, None)]
    if dtype == np.int8:
        wanted += [_over(weight, tuple(axis for axis in range(weight.ndim) if axis != kept)) for kept in (0, 1)]
    tolerance = {np.float32: 1e-5, np.float16: 2e-3, np.int8: 3e-2}[dtype]
    with np.errstate(invalid="ignore"):  # bytes of another type, read as floats
        return any(
            np.abs(_over(constant.astype(np.float64), None) - each).max() < tolerance
            for constant in constants(runtime, data)
            if constant.dtype == dtype and constant.size == weight.size
            for each in wanted
        )


def _over(values: NDArray[np.float64], axes: tuple[int, ...] | None) -> NDArray[np.float64]:
    """The sorted values over the largest along some axes: the same for every layout and gain."""
    return np.sort((values / np.maximum(np.abs(values).max(axis=axes, keepdims=True), 1e-8)).reshape(-1))


def _onnx(data: bytes) -> list[NDArray[Any]]:
    import onnx
    from onnx import numpy_helper

    return [numpy_helper.to_array(item) for item in onnx.load_from_string(data).graph.initializer]


def _tflite(data: bytes) -> list[NDArray[Any]]:
    from compress.runtimes.litert.flatbuffer import read

    kinds = {0: np.float32, 1: np.float16, 2: np.int32, 4: np.int64, 9: np.int8}
    flat = read(data)
    return [
        np.frombuffer(np.asarray(flat.buffers[tensor.buffer].data, np.uint8).tobytes(), kinds[tensor.type])
        for tensor in flat.subgraphs[0].tensors
        if tensor.type in kinds
        and flat.buffers[tensor.buffer].data is not None
        and len(flat.buffers[tensor.buffer].data)
    ]


def _pte(data: bytes) -> list[NDArray[Any]]:
    """Each block of bytes as every type that it can be: what is inside a delegated part has no type outside of it."""
    from executorch.exir._serialize._program import deserialize_pte_binary

    read = deserialize_pte_binary(data)
    held = [*read.named_data.buffers] if read.named_data else []
    held += [bytes(item.storage) for item in read.program.constant_buffer]
    kinds: tuple[type, ...] = (np.float32, np.float16, np.int8)
    return [np.frombuffer(block, kind) for block in held for kind in kinds if len(block) % np.dtype(kind).itemsize == 0]


def _onnx_int4(data: bytes) -> list[NDArray[Any]]:
    import onnx
    from onnx import numpy_helper

    from compress.runtimes.onnxruntime.blocks import unpack

    graph = onnx.load_from_string(data).graph
    held = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    return [
        unpack(held[node.input[1]], held[node.input[2]], next(item.i for item in node.attribute if item.name == "K"))
        for node in graph.node
        if node.op_type == "MatMulNBits"
    ]


def _tflite_int4(data: bytes) -> list[NDArray[Any]]:
    from compress.runtimes.litert.flatbuffer import read

    flat, found = read(data), []
    for tensor in flat.subgraphs[0].tensors:
        held = flat.buffers[tensor.buffer].data
        if tensor.type == 17 and held is not None:
            pairs = np.asarray(held, np.uint8)
            steps = np.stack([pairs & 15, pairs >> 4], axis=-1).reshape(-1)[: int(np.prod(tensor.shape))]
            found.append(np.where(steps > 7, steps.astype(np.int64) - 16, steps.astype(np.int64)))
    return found

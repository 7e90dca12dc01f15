"""Integer biases that do not fit, corrected in a quantized `.tflite`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.runtimes.litert.flatbuffer import INT8, INT32, WEIGHTED, code, constant, read, write

# Half of what an int32 holds: the other half is room for the sum of products.
_LARGEST = 2**30


def fit_biases(quantized: bytes, original: bytes) -> bytes:
    """Returns the file with coarser weight scales where a bias overflows its 32 bits.

    A bias is stored in steps of `input scale * weight scale` (Jacob et al. 2018, arXiv:1712.05877, equation 11). In a
    channel whose weights are zero or close to it, as a dead batch normalisation leaves them, that step is so small
    that the bias saturates and the channel answers something else. There the weight scale grows until the bias fits;
    weights that small then round to zero, and their products were lost beside the bias anyway.

    Args:
        quantized: What the quantizer made of `original`.
        original: The float32 file.
    """
    flat, before = read(quantized), read(original)
    graph = flat.subgraphs[0]
    needed: dict[int, NDArray[np.float64]] = {}
    readers = []
    # The quantizer adds operators around the weighted ones, and tensors for a bias that two of them share.
    for operator, source in zip(_weighted(flat), _weighted(before), strict=True):
        if len(operator.inputs) < 3 or operator.inputs[2] < 0 or graph.tensors[operator.inputs[2]].type != INT32:
            continue
        if graph.tensors[operator.inputs[1]].type != INT8:
            continue
        bias = constant(before, source.inputs[2])
        if bias is None:
            continue
        at_weight = int(operator.inputs[1])
        scales = np.asarray(graph.tensors[at_weight].quantization.scale, np.float64)
        peaks = np.abs(bias.astype(np.float64))
        smallest = (
            (peaks if len(scales) == len(peaks) else peaks.max(keepdims=True)) / _LARGEST / _step(graph, operator)
        )
        needed[at_weight] = np.maximum(needed.get(at_weight, scales), smallest)
        readers.append((operator, source, bias))
    changed = {
        index
        for index, scales in needed.items()
        if (scales > np.asarray(graph.tensors[index].quantization.scale)).any()
    }
    for operator, source, bias in readers:
        at_weight = int(operator.inputs[1])
        if at_weight not in changed:
            continue
        weight = graph.tensors[at_weight]
        values = constant(before, source.inputs[1])
        if values is None:
            continue
        along = [1] * len(weight.shape)
        along[int(weight.quantization.quantizedDimension)] = len(needed[at_weight])
        steps = np.rint(values.reshape(weight.shape) / needed[at_weight].reshape(along))
        _store(flat, at_weight, np.clip(steps, -127, 127).astype(np.int8), needed[at_weight])
        scales = needed[at_weight] * _step(graph, operator)
        _store(flat, int(operator.inputs[2]), np.rint(bias / scales).astype(np.int32), scales)
    return write(flat) if changed else quantized


def _weighted(flat: Any) -> list[Any]:
    return [operator for operator in flat.subgraphs[0].operators if code(flat, operator) in WEIGHTED]


def _step(graph: Any, operator: Any) -> float:
    return float(graph.tensors[operator.inputs[0]].quantization.scale[0])


def _store(flat: Any, index: int, values: NDArray[Any], scales: NDArray[np.float64]) -> None:
    tensor = flat.subgraphs[0].tensors[index]
    tensor.quantization.scale = scales.astype(np.float32)
    flat.buffers[tensor.buffer].data = np.frombuffer(values.tobytes(), np.uint8)

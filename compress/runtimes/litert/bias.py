"""Integer biases that do not fit, corrected in a quantized `.tflite`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.runtimes.litert.flatbuffer import WEIGHTED, code, constant, read, write

_INT8, _INT32 = 9, 2
# Half of what an int32 holds: the other half is room for the sum of products.
_LARGEST = 2**30


def fit_biases(quantized: bytes, original: bytes) -> bytes:
    """Returns the file with coarser weight scales where a bias overflows its 32 bits.

    A bias is stored in steps of `input scale * weight scale` (Jacob et al. 2018, arXiv:1712.05877, equation 11). In a
    channel whose weights are zero or close to it, as a dead batch normalisation leaves them, that step is so small
    that the bias saturates and the channel answers something else. There the weight scale grows until the bias fits;
    weights that small then round to zero, and their products were lost beside the bias anyway.

    Args:
        quantized: What the quantizer made of `original`; the tensors of `original` keep their positions.
        original: The float32 file.
    """
    flat, before = read(quantized), read(original)
    graph = flat.subgraphs[0]
    changed = False
    for operator in graph.operators:
        known = WEIGHTED.get(code(flat, operator))
        if known is None or len(operator.inputs) < 3 or operator.inputs[2] < 0:
            continue
        at_input, at_weight, at_bias = (int(index) for index in operator.inputs[:3])
        weight, bias = graph.tensors[at_weight], graph.tensors[at_bias]
        exact = constant(before, at_bias) if bias.type == _INT32 and weight.type == _INT8 else None
        if exact is None:
            continue
        steps = np.asarray(bias.quantization.scale, np.float64)
        fitting = np.maximum(steps, _peaks(exact, len(steps)) / _LARGEST)
        if np.array_equal(fitting, steps):
            continue
        source = constant(before, at_weight)
        if source is None:
            continue
        scales = fitting / float(graph.tensors[at_input].quantization.scale[0])
        axis = int(weight.quantization.quantizedDimension)
        values = source.reshape(weight.shape) / _along(scales, axis, len(weight.shape))
        _store(flat, weight, np.clip(np.rint(values), -127, 127).astype(np.int8), scales)
        _store(flat, bias, np.rint(exact / fitting).astype(np.int32), fitting)
        changed = True
    return write(flat) if changed else quantized


def _peaks(bias: NDArray[np.float32], scales: int) -> NDArray[np.float64]:
    """The largest bias under each scale: of each channel, or of all."""
    peaks = np.abs(bias.astype(np.float64))
    return peaks if scales == len(peaks) else peaks.max(keepdims=True)


def _along(scales: NDArray[np.float64], axis: int, dimensions: int) -> NDArray[np.float64]:
    shape = [1] * dimensions
    shape[axis] = len(scales)
    return scales.reshape(shape)


def _store(flat: Any, tensor: Any, values: NDArray[Any], scales: NDArray[np.float64]) -> None:
    tensor.quantization.scale = scales.astype(np.float32)
    flat.buffers[tensor.buffer].data = np.frombuffer(values.tobytes(), np.uint8)

"""Reading, naming and writing `.tflite` flatbuffers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Builtin operator codes of the TFLite schema that read a weight: code -> (name, position of the weight).
WEIGHTED = {
    3: ("CONV_2D", 1),
    4: ("DEPTHWISE_CONV_2D", 1),
    7: ("EMBEDDING_LOOKUP", 1),
    9: ("FULLY_CONNECTED", 1),
    36: ("GATHER", 0),
}
DEQUANTIZE = 6
# ReLU, ReLU between -1 and 1, ReLU6, by the schema's numbers.
_BOUNDS = {1: (0.0, float(np.finfo(np.float32).max)), 2: (-1.0, 1.0), 3: (0.0, 6.0)}
# Tensor types of the schema.
INT32, INT8 = 2, 9
# Those of them that look up rows of it by index.
LOOK_UPS = ("EMBEDDING_LOOKUP", "GATHER")


def read(data: bytes) -> Any:
    """Returns the mutable object form of a flatbuffer."""
    from ai_edge_litert.tools import flatbuffer_utils

    return flatbuffer_utils.read_model_from_bytearray(bytearray(data))


def write(flat: Any) -> bytes:
    """Returns the bytes of an object form."""
    from ai_edge_litert.tools import flatbuffer_utils

    return bytes(flatbuffer_utils.convert_object_to_bytearray(flat))


def code(flat: Any, operator: Any) -> int:
    """Returns an operator's builtin code; small codes of old files live in a field of their own."""
    entry = flat.operatorCodes[operator.opcodeIndex]
    return int(max(entry.builtinCode, entry.deprecatedBuiltinCode))


def constant(flat: Any, index: int) -> NDArray[np.float32] | None:
    """Returns a float32 constant tensor, or None for anything else."""
    tensor = flat.subgraphs[0].tensors[index]
    data = flat.buffers[tensor.buffer].data
    if tensor.type != 0 or data is None or not len(data):
        return None
    return np.frombuffer(np.asarray(data, dtype=np.uint8).tobytes(), dtype=np.float32)


def fused_activation(operator: Any) -> tuple[float, float] | None:
    """Bounds of the clipping activation that is part of the operator; None where there is none."""
    return _BOUNDS.get(int(getattr(operator.builtinOptions, "fusedActivationFunction", 0)))


def text(name: bytes | str | None) -> str:
    """A name as text, whichever way the schema holds it."""
    return name.decode() if isinstance(name, bytes) else (name or "")

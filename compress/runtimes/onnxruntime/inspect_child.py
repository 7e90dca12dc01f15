"""A process of its own for onnx's native graph code, which a crafted file can crash, stall or make fill the memory.

Usage: `python -P inspect_child.py inline|infer MAX_MEMORY_BYTES`, a model on standard input, the result on standard
output. Imports nothing of the project, so that it starts at once.
"""

from __future__ import annotations

import resource
import sys

# What functions and shapes may add to a model whose weights were taken out.
MAX_RESULT_BYTES = 256 << 20


def run(action: str, data: bytes) -> bytes:
    """Returns the serialized model with local functions inlined (`inline`) or with the shapes of its values (`infer`).

    Raises:
        ValueError: If the result is larger than any real model's.
    """
    import onnx
    import onnx.inliner
    import onnx.shape_inference

    model = onnx.load_model_from_string(data)
    if action == "inline":
        result = onnx.inliner.inline_local_functions(model)
    else:
        result = onnx.shape_inference.infer_shapes(model, check_type=False, strict_mode=False, data_prop=True)
    if result.ByteSize() > MAX_RESULT_BYTES:
        raise ValueError(f"the model grew to {result.ByteSize()} bytes")
    serialized: bytes = result.SerializeToString()
    return serialized


if __name__ == "__main__":
    max_memory_bytes = int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_AS, (max_memory_bytes, max_memory_bytes))
    sys.stdout.buffer.write(run(sys.argv[1], sys.stdin.buffer.read()))

"""Which schemes the conformance kit asks of no runtime's file, and why."""

from __future__ import annotations

import old_interpreter

_REDUCED = {"float16", "int8-static", "int8-dynamic", "int8-weights", "int4-weights", "int4-dynamic"}
# Torch has halves on a GPU only: see test_runtimes_torch.py.
ON_A_GPU = {("torch", "float16")}
# Runtime and scheme: that of an old interpreter, of torch, which has no integers, of engines that read integers out of
# the file, and of ExecuTorch, whose quantizer has static and dynamic integers alone.
WITHOUT = {
    *old_interpreter.WITHOUT,
    *(("torch", name) for name in _REDUCED),
    *(("executorch", name) for name in _REDUCED - {"int8-static", "int8-dynamic"}),
    *(("tensorrt", name) for name in _REDUCED - {"float16", "int8-static"}),
}

"""Shapes of an ONNX graph's values for one row: every dynamic dimension is 1."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from compress.model.fileinfo import Value
from compress.model.onnx_beside import dtype_name, text
from compress.runtimes.onnxruntime.inspect_tensors import MAX_RANK, graphs_of, shape_of

Shape = tuple[int | None, ...]
Shapes = Mapping[str, Shape]
# (action, serialized model) -> serialized model, None where onnx fails; see inspect_child.py.
Native = Callable[[str, bytes], bytes | None]

_TIMEOUT_S = 20
_MAX_MEMORY_BYTES = 2 << 30
# Operators of ONNX Runtime as standard ones of the same shape: name -> (standard name, which inputs are kept).
_STAND_INS: dict[str, tuple[str, tuple[int, ...]]] = {
    "BiasGelu": ("Identity", (0,)),
    "FastGelu": ("Identity", (0,)),
    "Gelu": ("Identity", (0,)),
    "QuickGelu": ("Identity", (0,)),
    "BiasSoftmax": ("Identity", (0,)),
    "SkipLayerNormalization": ("Identity", (0,)),
    "SimplifiedLayerNormalization": ("Identity", (0,)),
    "SkipSimplifiedLayerNormalization": ("Identity", (0,)),
    "MultiHeadAttention": ("Identity", (0,)),
    "DequantizeLinear": ("Identity", (0,)),
    "QuantizeLinear": ("Identity", (0,)),
    "QLinearLeakyRelu": ("Identity", (0,)),
    "QLinearSigmoid": ("Identity", (0,)),
    "QLinearSoftmax": ("Identity", (0,)),
    "QLinearAdd": ("Add", (0, 3)),
    "QLinearMul": ("Mul", (0, 3)),
    "QLinearGlobalAveragePool": ("GlobalAveragePool", (0,)),
    "FusedConv": ("Conv", (0, 1, 2)),
    "FusedGemm": ("Gemm", (0, 1, 2)),
    "QGemm": ("Gemm", (0, 3)),
    "DynamicQuantizeMatMul": ("MatMul", (0, 1)),
    "MatMulIntegerToFloat": ("MatMul", (0, 1)),
}


def native(action: str, data: bytes) -> bytes | None:
    """Runs onnx's graph code in a process of its own: bounded in memory and time, None where it fails."""
    command = [sys.executable, "-P", str(Path(__file__).with_name("inspect_child.py")), action, str(_MAX_MEMORY_BYTES)]
    try:
        done = subprocess.run(
            command,
            input=data,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
            # numpy reserves memory for each of its threads, and needs none of them here.
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
    except (subprocess.TimeoutExpired, OSError):
        return None
    return done.stdout if done.returncode == 0 else None


def one_row(model: Any, run: Native = native) -> Any | None:
    """Returns a copy of a model with the shapes of its values for one row, None where onnx cannot infer them.

    Args:
        model: Without the content of its weights (`drop_weights`).
        run: What runs onnx's shape inference.
    """
    copy = type(model)()
    copy.CopyFrom(model)
    held = {tensor.name for tensor in copy.graph.initializer}
    for value in copy.graph.input:
        if value.name not in held:
            for dim in value.type.tensor_type.shape.dim:
                if not dim.HasField("dim_value") or dim.dim_value <= 0:
                    dim.dim_value = 1
    _forget_shapes(copy.graph)
    _stand_in(copy.graph)
    if not any(item.domain in ("", "ai.onnx") for item in copy.opset_import):
        copy.opset_import.add().version = 1
    data = run("infer", copy.SerializeToString())
    return None if data is None else type(model).FromString(data)


def shapes_of(graph: Any, outer: Shapes) -> Shapes:
    """Returns the known shapes of one graph's values; `outer` are those of the graphs around it."""
    own: dict[str, Shape] = {}
    for value in (*graph.value_info, *graph.output, *graph.input):
        shape = _known(value)
        if shape is not None:
            own[value.name] = shape
    for tensor in graph.initializer:
        own[tensor.name] = shape_of(tensor)
    return ChainMap(own, *(outer.maps if isinstance(outer, ChainMap) else [dict(outer)]))


def dynamic_names(graph: Any) -> list[str]:
    """Returns the dynamic dimensions of the inputs that are not the first one: they too are counted as 1."""
    names: list[str] = []
    for value in real_inputs(graph):
        for size in (described(value).shape or ())[1:]:
            if isinstance(size, str) and size not in names:
                names.append(size)
    return names


def real_inputs(graph: Any) -> Iterator[Any]:
    """Yields the inputs that are fed; old files list their initializers among them."""
    held = {tensor.name for tensor in graph.initializer}
    yield from (value for value in graph.input if value.name not in held)


def described(value: Any) -> Value:
    """Returns an input or output as the file declares it."""
    kind = value.type.WhichOneof("value")
    if kind not in ("tensor_type", "sparse_tensor_type"):
        return Value(text(value.name), None, _nested(value.type))
    declared = getattr(value.type, kind)
    shape = None
    if declared.HasField("shape"):
        shape = tuple(_size(dim, axis) for axis, dim in enumerate(declared.shape.dim))
    return Value(text(value.name), shape, dtype_name(declared.elem_type))


def _size(dim: Any, axis: int) -> int | str:
    if dim.HasField("dim_value") and dim.dim_value >= 0:
        return int(dim.dim_value)
    name = text(dim.dim_param)
    # Exporters number the symbols that nobody named; the first dimension is the batch.
    anonymous = not name or name.removeprefix("s").isdigit() or name.startswith("unk__")
    return ("batch" if axis == 0 else name or "?") if anonymous else name


def _nested(kind: Any) -> str:
    which = kind.WhichOneof("value")
    if which == "tensor_type":
        return dtype_name(kind.tensor_type.elem_type)
    if which == "sequence_type":
        return f"sequence({_nested(kind.sequence_type.elem_type)})"
    if which == "optional_type":
        return f"optional({_nested(kind.optional_type.elem_type)})"
    if which == "map_type":
        return f"map({dtype_name(kind.map_type.key_type)}, {_nested(kind.map_type.value_type)})"
    return "unknown"


def _known(value: Any) -> Shape | None:
    declared = value.type.tensor_type
    if not declared.HasField("shape") or len(declared.shape.dim) > MAX_RANK:
        return None
    return tuple(int(dim.dim_value) if dim.HasField("dim_value") else None for dim in declared.shape.dim)


def _forget_shapes(graph: Any) -> None:
    """Takes out what the file says of the values inside: it holds for another batch, and onnx would believe it."""
    del graph.value_info[:]
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")
    for inner in graphs_of(graph.node):
        for value in inner.input:
            value.type.tensor_type.ClearField("shape")
        _forget_shapes(inner)


def _stand_in(graph: Any) -> None:
    """Puts standard operators in the place of ONNX Runtime's own, whose shapes onnx does not know."""
    for node in graph.node:
        if node.domain == "com.microsoft" and node.op_type == "MatMulNBits":
            _widen(graph, node)
        elif node.domain == "com.microsoft" and node.op_type == "FusedMatMul":
            _spell_out(node)
        elif node.domain == "com.microsoft" and node.op_type in _STAND_INS:
            name, kept = _STAND_INS[node.op_type]
            inputs = [node.input[index] for index in kept if index < len(node.input)]
            node.op_type, node.domain = name, ""
            del node.input[:]
            node.input.extend(inputs)
            del node.output[1:]
    for inner in graphs_of(graph.node):
        _stand_in(inner)


def _spell_out(node: Any) -> None:
    """Puts an Einsum in the place of a product that reads its matrices transposed."""
    flags = {item.name: bool(item.i) for item in node.attribute}
    left = "...ji" if flags.get("transA") else "...ij"
    right = "...kj" if flags.get("transB") else "...jk"
    node.op_type, node.domain = "Einsum", ""
    del node.attribute[:]
    node.attribute.add(name="equation", type=3, s=f"{left},{right}->...ik".encode())


def _widen(graph: Any, node: Any) -> None:
    """Puts a plain product in the place of one whose weight is packed, `[K, N]` by its attributes."""
    sizes = {item.name: int(item.i) for item in node.attribute}
    value = graph.value_info.add(name=f"{text(node.output[0])}.unpacked")
    value.type.tensor_type.elem_type = 1
    for size in (sizes.get("K", 0), sizes.get("N", 0)):
        value.type.tensor_type.shape.dim.add().dim_value = size
    inputs = [node.input[0], value.name]
    node.op_type, node.domain = "MatMul", ""
    del node.input[:], node.attribute[:]
    node.input.extend(inputs)

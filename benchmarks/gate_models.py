"""The models of the gate's benchmark: one of about 1.5 ms, and the same with real work added."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CHANNELS, SIZE, BLOCKS = 64, 28, 20
# Extra depthwise layers; each costs about one percent. What each variant really costs is measured, not assumed.
EXTRA = {"equal": 0, "plus2": 2, "plus3": 3, "plus5": 5, "plus10": 11}


def write_models(folder: Path) -> dict[str, Path]:
    """Writes every variant once and returns where; `base` is the baseline, `equal` a twin with other bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {"base": folder / "base.onnx"} | {name: folder / f"{name}.onnx" for name in EXTRA}
    if not paths["base"].exists():
        _write(paths["base"], 0, "base")
    for name, extra in EXTRA.items():
        if not paths[name].exists():
            _write(paths[name], extra, name)
    paths["int8"], paths["fallback"] = folder / "int8.onnx", folder / "fallback.onnx"
    if not paths["fallback"].exists():
        _quantize(paths["base"], paths["int8"], float_blocks=0)
        _quantize(paths["base"], paths["fallback"], float_blocks=BLOCKS // 2)
    return paths


def rows() -> dict[str, np.ndarray]:
    """One row for timing."""
    return {"x": np.random.default_rng(0).standard_normal((1, 3, SIZE, SIZE)).astype(np.float32)}


def _write(path: Path, extra: int, note: str) -> None:
    random = np.random.default_rng(0)
    nodes, weights, last = [], [], "x"

    def convolve(name: str, ins: int, outs: int, kernel: int, groups: int = 1) -> None:
        nonlocal last
        scale = np.sqrt(2 / (ins // groups * kernel * kernel))
        weight = random.standard_normal((outs, ins // groups, kernel, kernel)) * scale
        weights.append(numpy_helper.from_array(weight.astype(np.float32), f"{name}_w"))
        border = [kernel // 2] * 4
        nodes.append(helper.make_node("Conv", [last, f"{name}_w"], [name], name, pads=border, group=groups))
        nodes.append(helper.make_node("Relu", [name], [f"{name}_r"], f"{name}_relu"))
        last = f"{name}_r"

    convolve("stem", 3, CHANNELS, 3)
    for block in range(BLOCKS):
        convolve(f"deep{block}", CHANNELS, CHANNELS, 3, CHANNELS)
        convolve(f"point{block}", CHANNELS, CHANNELS, 1)
    for layer in range(extra):
        convolve(f"extra{layer}", CHANNELS, CHANNELS, 3, CHANNELS)
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["score"]),
    ]
    graph = helper.make_graph(
        nodes,
        "gate",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["batch", CHANNELS])],
        weights,
        doc_string=note,
    )
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), path)


def _quantize(source: Path, path: Path, float_blocks: int) -> None:
    """Dynamic int8; with `float_blocks`, the pointwise layers of that many blocks stay in float: a forced fallback."""
    # Advice about other models than these.
    logging.getLogger().setLevel(logging.ERROR)
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Rows(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = [rows()]

        def get_next(self) -> dict[str, np.ndarray] | None:
            return self.left.pop() if self.left else None

    quantize_static(
        str(source),
        str(path),
        Rows(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=[f"point{block}" for block in range(float_blocks)],
    )

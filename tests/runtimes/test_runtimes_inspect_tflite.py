"""What is said of a `.tflite` file: figures with known answers, tensors that lie, damaged files."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compress.errors import CompressError, ModelError
from compress.model.core import Model, TensorInfo
from compress.model.cost import cost
from compress.model.factory import export_module
from compress.model.fileinfo import FileInfo, Value
from compress.runtimes.litert import inspect_reader
from compress.runtimes.litert.export import export
from compress.runtimes.litert.flatbuffer import read, write
from compress.runtimes.litert.inspect import describe_tflite


class Small(torch.nn.Module):
    """A convolution, a depthwise one, a fully connected layer and a product of two activations."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(2, 4, 3)
        self.second = torch.nn.Conv2d(4, 4, 3, groups=4)
        self.third = torch.nn.Linear(16, 5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        found = self.third(torch.relu(self.second(torch.relu(self.first(image)))).flatten(2))
        return torch.matmul(found, found.transpose(1, 2))


@pytest.fixture(scope="session")
def small() -> Model:
    torch.manual_seed(0)
    return export_module(Small().eval(), [TensorInfo("image", (2, 8, 8), "float32")], ("pairs",), "small")


@pytest.fixture(scope="session")
def converted(small: Model) -> bytes:
    return export(small).data


def described(data: bytes, folder: Path) -> FileInfo:
    path = folder / "model.tflite"
    path.write_bytes(data)
    return describe_tflite(path)


def test_a_converted_model_has_the_figures_of_its_graph(small: Model, converted: bytes, tmp_path: Path) -> None:
    info = described(converted, tmp_path)
    total = cost(small)
    assert info.kind == "tflite"
    assert info.inputs == (Value("image", (1, 2, 8, 8), "float32"),)
    assert info.outputs == (Value("pairs", (1, 4, 4), "float32"),)
    assert (info.macs, info.unknown_macs) == (total.macs, 0)
    assert info.parameters == total.parameters
    assert info.precision.summary == "float32"
    # With one row, the product of two activations becomes a fully connected layer without a weight of its own.
    products = {"CONV_2D": 1, "DEPTHWISE_CONV_2D": 1, "FULLY_CONNECTED": 2}
    assert {kind: count for kind, count in info.operators.items() if kind in products} == products
    assert list(info.operators.values()) == sorted(info.operators.values(), reverse=True)
    assert sum(row.parameters for row in info.layers) == total.parameters


# Files written by hand: one operator, chosen shapes and types.

TYPES = {"float32": schema.TensorType.FLOAT32, "float16": schema.TensorType.FLOAT16, "int8": schema.TensorType.INT8}
TYPES |= {"int4": schema.TensorType.INT4, "int32": schema.TensorType.INT32}
BYTES = {"float32": 4.0, "float16": 2.0, "int8": 1.0, "int4": 0.5, "int32": 4.0}


class Writer:
    """Puts a flatbuffer together, tensor by tensor."""

    def __init__(self) -> None:
        self.flat = schema.ModelT()
        self.flat.version = 3
        self.flat.buffers = [schema.BufferT()]
        self.flat.operatorCodes = []
        self.graph = schema.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        self.flat.subgraphs = [self.graph]
        self.flat.signatureDefs = []

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        dtype: str = "float32",
        held: bool = False,
        scales: int = 0,
        free: bool = False,
    ) -> int:
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name.encode(), list(shape), TYPES[dtype], 0
        if free:
            tensor.shapeSignature = [-1, *shape[1:]]
        if scales:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = np.full(scales, 0.1, np.float32)
        if held:
            buffer = schema.BufferT()
            buffer.data = np.zeros(int(np.ceil(np.prod(shape) * BYTES[dtype])), np.uint8)
            tensor.buffer = len(self.flat.buffers)
            self.flat.buffers.append(buffer)
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def operator(self, kind: str, inputs: Sequence[int], outputs: Sequence[int], custom: str = "") -> Any:
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, kind)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.customCode = custom.encode() or None
        operator = schema.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = (
            len(self.flat.operatorCodes),
            list(inputs),
            list(outputs),
        )
        self.flat.operatorCodes.append(code)
        self.graph.operators.append(operator)
        return operator

    def data(self, inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
        self.graph.inputs, self.graph.outputs = list(inputs), list(outputs)
        return write(self.flat)


def one_layer(
    weight: str = "float32",
    activation: str = "float32",
    scales: int = 0,
    free: bool = False,
    rows: int = 1,
) -> bytes:
    writer = Writer()
    x = writer.tensor("x", [rows, 8], activation, scales=int(activation == "int8"), free=free)
    w = writer.tensor("w", [4, 8], weight, held=True, scales=scales)
    bias = writer.tensor(
        "b", [4], "int32" if activation == "int8" else "float32", held=True, scales=int(activation == "int8")
    )
    y = writer.tensor("y", [rows, 4], activation, free=free)
    writer.operator("FULLY_CONNECTED", [x, w, bias], [y])
    return writer.data([x], [y])


@pytest.mark.parametrize(
    ("weight", "activation", "summary"),
    [("int8", "float32", "int8 (dynamic)"), ("int8", "int8", "int8 (static)"), ("int4", "float32", "int4 (dynamic)")],
)
def test_the_use_of_integer_weights(weight: str, activation: str, summary: str, tmp_path: Path) -> None:
    info = described(one_layer(weight, activation, scales=4), tmp_path)
    assert info.precision.summary == summary
    assert (info.parameters, info.macs) == (36, 32)
    assert "already quantized: 1 weights per channel, 0 per tensor" in info.notes
    assert [(row.operator, row.weight, row.parameters) for row in info.layers] == [("FULLY_CONNECTED", (4, 8), 36)]


def test_one_scale_for_a_weight_is_per_tensor(tmp_path: Path) -> None:
    assert (
        "already quantized: 0 weights per channel, 1 per tensor"
        in described(one_layer("int8", scales=1), tmp_path).notes
    )


@pytest.mark.parametrize(("weight", "summary"), [("float16", "float16"), ("int8", "int8 (weight only)")])
def test_weights_that_are_widened_first(weight: str, summary: str, tmp_path: Path) -> None:
    writer = Writer()
    x, y = writer.tensor("x", [1, 8]), writer.tensor("y", [1, 4])
    w, wide = (
        writer.tensor("w", [4, 8], weight, held=True, scales=4 * (weight == "int8")),
        writer.tensor("wide", [4, 8]),
    )
    writer.operator("DEQUANTIZE", [w], [wide])
    writer.operator("FULLY_CONNECTED", [x, wide, -1], [y])
    info = described(writer.data([x], [y]), tmp_path)
    assert (info.precision.summary, info.parameters, info.macs) == (summary, 32, 32)
    assert any("1 DEQUANTIZE" in note and "arithmetic is float32" in note for note in info.notes)
    assert [(row.operator, row.weight) for row in info.layers] == [("FULLY_CONNECTED", (4, 8))]


@pytest.mark.parametrize(
    ("kind", "inputs", "output", "macs"),
    [
        ("TRANSPOSE_CONV", [[4], [3, 2, 2, 5], [1, 6, 6, 5]], [1, 12, 12, 3], 6 * 6 * 5 * 3 * 4),
        ("CONV_3D", [[1, 4, 4, 4, 2], [3, 3, 3, 2, 6]], [1, 2, 2, 2, 6], 48 * 54),
        ("DEPTHWISE_CONV_2D", [[1, 8, 8, 4], [1, 3, 3, 8]], [1, 6, 6, 8], 288 * 9),
        ("BATCH_MATMUL", [[2, 3, 7], [2, 7, 5]], [2, 3, 5], 2 * 3 * 7 * 5),
        ("ADD", [[1, 8], [1, 8]], [1, 8], 0),
    ],
)
def test_multiply_adds_of_one_operator(
    kind: str, inputs: list[list[int]], output: list[int], macs: int, tmp_path: Path
) -> None:
    writer = Writer()
    numbers = [writer.tensor(f"t{index}", shape) for index, shape in enumerate(inputs)]
    y = writer.tensor("y", output)
    writer.operator(kind, numbers, [y])
    info = described(writer.data(numbers, [y]), tmp_path)
    assert (info.macs, info.unknown_macs) == (macs, 0)


def test_a_product_that_reads_its_left_side_transposed(tmp_path: Path) -> None:
    writer = Writer()
    left, right, y = writer.tensor("a", [7, 3]), writer.tensor("b", [7, 5]), writer.tensor("y", [3, 5])
    operator = writer.operator("BATCH_MATMUL", [left, right], [y])
    operator.builtinOptionsType = schema.BuiltinOptions.BatchMatMulOptions
    operator.builtinOptions = schema.BatchMatMulOptionsT()
    operator.builtinOptions.adjX = True
    assert described(writer.data([left, right], [y]), tmp_path).macs == 105


def test_a_custom_operator_is_named_and_its_arithmetic_unknown(tmp_path: Path) -> None:
    writer = Writer()
    x, y = writer.tensor("x", [1, 8]), writer.tensor("y", [1, 8])
    writer.operator("CUSTOM", [x], [y], custom="Magic")
    info = described(writer.data([x], [y]), tmp_path)
    assert info.operators == {"Magic": 1}
    assert (info.macs, info.unknown_macs) == (None, 1)
    assert "MACs of 1 operators unknown: 1 Magic" in info.notes


def test_a_dynamic_batch_is_named_and_counted_for_one_row(tmp_path: Path) -> None:
    info = described(one_layer(free=True, rows=5), tmp_path)
    assert info.inputs == (Value("x", ("batch", 8), "float32"),)
    assert info.macs == 32


def test_two_tensors_over_one_buffer_count_once(tmp_path: Path) -> None:
    flat = read(one_layer())
    twin = flat.subgraphs[0].tensors[1]
    flat.subgraphs[0].tensors.append(twin)
    assert described(write(flat), tmp_path).parameters == 36


def test_other_signatures_count_as_operators_and_not_as_arithmetic(tmp_path: Path) -> None:
    flat = read(one_layer())
    flat.subgraphs.append(flat.subgraphs[0])
    for number, key in enumerate((b"score", b"train")):
        entry = schema.SignatureDefT()
        entry.signatureKey, entry.subgraphIndex = key, number
        entry.inputs, entry.outputs = [schema.TensorMapT()], [schema.TensorMapT()]
        entry.inputs[0].name, entry.inputs[0].tensorIndex = b"features", 0
        entry.outputs[0].name, entry.outputs[0].tensorIndex = b"logit", 3
        flat.signatureDefs = [*(flat.signatureDefs or []), entry]
    info = described(write(flat), tmp_path)
    assert (info.operators, info.macs, info.parameters) == ({"FULLY_CONNECTED": 2}, 32, 36)
    assert (info.inputs[0].name, info.outputs[0].name) == ("features", "logit")
    assert "signatures: score, train; described is the first" in info.notes


# Files that claim what they do not hold.


def spoiled(change: str) -> bytes:
    flat = read(one_layer())
    graph = flat.subgraphs[0]
    if change == "shape":
        graph.tensors[1].shape = [4, 8000]
    elif change == "rank":
        graph.tensors[0].shape = [1] * 100
    elif change == "buffer":
        graph.tensors[1].buffer = 1000
    elif change == "tensor":
        graph.operators[0].inputs = [0, 1, 77]
    elif change == "code":
        graph.operators[0].opcodeIndex = 3
    elif change == "type":
        graph.tensors[1].type = 99
    elif change == "offset":
        flat.buffers[1].data, flat.buffers[1].offset, flat.buffers[1].size = None, 64, 1 << 40
    else:
        flat.subgraphs = []
    return write(flat)


@pytest.mark.parametrize("change", ["shape", "rank", "buffer", "tensor", "code", "type", "offset", "graph"])
def test_a_file_that_points_outside_is_refused(change: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.tflite: "):
        described(spoiled(change), tmp_path)


@pytest.mark.parametrize("data", [b"", b"\x1c\0\0\0TFL3", b"\xff\xff\xff\xffTFL3" + b"\xff" * 200])
def test_garbage_is_an_error_that_names_the_file(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.tflite"):
        described(data, tmp_path)


def test_a_vector_that_claims_millions_is_refused_before_it_is_walked(tmp_path: Path) -> None:
    data = bytearray(one_layer())
    model = schema.Model.GetRootAs(data, 0)
    slot = model._tab.Offset(8)
    at = model._tab.Vector(slot) - 4
    struct.pack_into("<I", data, at, inspect_reader.MAX_ENTRIES + 1)
    with pytest.raises(ModelError, match="more than 500000"):
        described(bytes(data), tmp_path)


@settings(max_examples=200, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_described_or_refused(data: st.DataObject, converted: bytes, tmp_path: Path) -> None:
    whole = bytearray(data.draw(st.sampled_from([converted, DAMAGED])))
    if data.draw(st.booleans()):
        whole = whole[: data.draw(st.integers(0, len(whole)))]
    else:
        for _ in range(data.draw(st.integers(1, 4))):
            whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        info = described(bytes(whole), tmp_path)
    except CompressError as error:
        assert "model.tflite" in error.message
    else:
        assert info.identity.size_bytes == len(whole)


DAMAGED = one_layer("int8", "int8", scales=4)

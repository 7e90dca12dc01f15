"""What is said of an `.onnx` file: figures with known answers, constants that lie, external data, hostile graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from compress.errors import CompressError, ModelError, UnsafeFileError
from compress.model.fileinfo import FileInfo, Value
from compress.runtimes.onnxruntime import inspect_child, inspect_shapes
from compress.runtimes.onnxruntime.inspect import describe_onnx

OPSETS = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
RANDOM = np.random.default_rng(0)


def in_process(action: str, data: bytes) -> bytes | None:
    """The child's work without the process: well-formed graphs need no protection, and tests need no patience."""
    try:
        return inspect_child.run(action, data)
    except Exception:
        return None


def value(name: str, shape: list[int | str] | None, kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def constant(name: str, *shape: int, dtype: type = np.float32) -> Any:
    return numpy_helper.from_array(np.ones(shape, dtype), name)


def model(nodes: list[Any], held: list[Any], shape: list[int | str] | None, **more: Any) -> Any:
    graph = helper.make_graph(nodes, "g", [value("x", shape)], [value("y", None)], held)
    return helper.make_model(graph, opset_imports=OPSETS, **more)


def described(proto: Any, path: Path) -> FileInfo:
    path = path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return describe_onnx(path, in_process)


def two_layers() -> Any:
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], name="first", group=2, pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("Gemm", ["f", "v"], ["y"], name="second", transB=1),
    ]
    held = [constant("w", 6, 2, 3, 3), constant("b", 6), constant("v", 5, 6 * 8 * 8)]
    return model(nodes, held, ["s12", 4, 8, 8])


def test_counts_parameters_macs_operators_and_types_of_a_float_model(tmp_path: Path) -> None:
    info = described(two_layers(), tmp_path)
    first, second = 6 * 8 * 8 * 2 * 9, 5 * 6 * 8 * 8
    assert info.kind == "onnx"
    assert info.inputs == (Value("x", ("batch", 4, 8, 8), "float32"),)
    assert info.outputs == (Value("y", None, "float32"),)
    assert info.parameters == 6 * 18 + 6 + 5 * 384
    assert info.macs == first + second
    assert list(info.operators.items()) == [("Conv", 1), ("Flatten", 1), ("Gemm", 1), ("Relu", 1)]
    assert (info.precision.summary, info.precision.shares) == ("float32", {"float32": 1.0})
    rows = [(row.name, row.weight, row.parameters, row.macs) for row in info.layers]
    assert rows == [("first", (6, 2, 3, 3), 114, first), ("second", (5, 384), 1920, second)]
    assert info.notes == ("opset 20",)
    assert info.identity.size_bytes == (tmp_path / "model.onnx").stat().st_size


def test_a_process_of_its_own_infers_the_same(tmp_path: Path) -> None:
    proto = two_layers()
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    assert describe_onnx(path) == describe_onnx(path, in_process)


def test_dynamic_dimensions_other_than_the_batch_count_as_one_and_are_named(tmp_path: Path) -> None:
    proto = model([helper.make_node("MatMul", ["x", "w"], ["y"])], [constant("w", 8, 3)], ["N", "sequence", 8])
    info = described(proto, tmp_path)
    assert info.inputs[0].shape == ("N", "sequence", 8)
    assert info.macs == 24
    assert "MACs with these dynamic dimensions at 1: sequence" in info.notes


@pytest.mark.parametrize(
    ("node", "held", "shape", "macs"),
    [
        (helper.make_node("ConvTranspose", ["x", "w"], ["y"]), [constant("w", 4, 3, 2, 2)], ["n", 4, 5, 5], 100 * 12),
        (helper.make_node("Gemm", ["x", "w"], ["y"], transA=1), [constant("w", 7, 2)], [7, 3], 3 * 2 * 7),
        (helper.make_node("Einsum", ["x", "w"], ["y"], equation="nij,jk->nik"), [constant("w", 8, 3)], ["n", 4, 8], 96),
        (helper.make_node("MatMul", ["x", "x"], ["y"]), [], ["n", 6, 6], 216),
        (
            helper.make_node("LSTM", ["x", "w", "r"], ["y"], hidden_size=3),
            [constant("w", 1, 12, 4), constant("r", 1, 12, 3)],
            [5, "n", 4],
            5 * (48 + 36),
        ),
        (
            helper.make_node("MultiHeadAttention", ["x", "x", "x"], ["y"], domain="com.microsoft", num_heads=2),
            [],
            ["n", 6, 8],
            6 * 6 * 16,
        ),
        (
            helper.make_node("Attention", ["x", "w", "b"], ["y"], domain="com.microsoft", num_heads=2),
            [constant("w", 8, 24), constant("b", 24)],
            ["n", 6, 8],
            6 * 8 * 24 + 2 * 6 * 6 * 8,
        ),
        (
            helper.make_node("FusedMatMul", ["x", "w"], ["y"], domain="com.microsoft", transB=1),
            [constant("w", 1, 3, 8)],
            ["n", 4, 8],
            96,
        ),
    ],
    ids=lambda item: item.op_type if hasattr(item, "op_type") else "",
)
def test_multiply_adds_of_one_operator(node: Any, held: list[Any], shape: list[Any], macs: int, tmp_path: Path) -> None:
    info = described(model([node], held, shape), tmp_path)
    assert (info.macs, info.unknown_macs) == (macs, 0)


def test_an_operator_of_unknown_arithmetic_is_told_and_the_rest_counted(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Magic", ["h"], ["m"], domain="example"),
        helper.make_node("MatMul", ["m", "w"], ["y"]),
    ]
    proto = model(nodes, [constant("w", 8, 8)], ["n", 8])
    proto.opset_import.append(helper.make_opsetid("example", 1))
    info = described(proto, tmp_path)
    assert (info.macs, info.unknown_macs) == (64, 2)
    assert "MACs of 2 operators unknown: 1 Magic, 1 MatMul" in info.notes
    assert info.parameters == 64


def test_without_shapes_there_are_no_macs(tmp_path: Path) -> None:
    info = described(model([helper.make_node("MatMul", ["x", "w"], ["y"])], [constant("w", 8, 3)], None), tmp_path)
    assert (info.macs, info.unknown_macs) == (None, 1)
    assert info.inputs == (Value("x", None, "float32"),)


def test_a_value_shape_of_another_batch_is_not_believed(tmp_path: Path) -> None:
    proto = model([helper.make_node("MatMul", ["x", "w"], ["y"])], [constant("w", 8, 3)], ["n", 8])
    proto.graph.output[0].CopyFrom(value("y", [100, 3]))
    assert described(proto, tmp_path).macs == 24


# Quantized files.


def quantized(name: str, *shape: int) -> list[Any]:
    return [
        constant(name, *shape, dtype=np.int8),
        numpy_helper.from_array(np.float32(0.1), f"{name}.scale"),
        numpy_helper.from_array(np.int8(0), f"{name}.zero"),
    ]


def dequantize(name: str) -> Any:
    return helper.make_node("DequantizeLinear", [name, f"{name}.scale", f"{name}.zero"], [f"{name}.float"])


def test_static_quantization_by_qdq_whatever_the_order_of_nodes(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Gemm", ["a.float", "w.float", "b.float"], ["y"]),
        helper.make_node("DequantizeLinear", ["a", "x.scale", "x.zero"], ["a.float"]),
        helper.make_node("QuantizeLinear", ["x", "x.scale", "x.zero"], ["a"]),
        dequantize("w"),
        helper.make_node("DequantizeLinear", ["b", "w.scale"], ["b.float"]),
    ]
    held = [*quantized("w", 8, 4), *quantized("x", 1)[1:], constant("b", 4, dtype=np.int32)]
    info = described(model(nodes, held, ["n", 8]), tmp_path)
    assert info.precision.summary == "int8 (static, QDQ)"
    assert info.parameters == 32 + 4
    assert info.macs == 32
    assert "already quantized: 2 DequantizeLinear on weights" in info.notes
    assert any("not in the order" in note for note in info.notes)
    assert [(row.operator, row.weight, row.parameters) for row in info.layers] == [("Gemm", (8, 4), 36)]


def test_quantized_weights_alone(tmp_path: Path) -> None:
    nodes = [dequantize("w"), helper.make_node("MatMul", ["x", "w.float"], ["y"])]
    assert described(model(nodes, quantized("w", 8, 4), ["n", 8]), tmp_path).precision.summary == "int8 (weight only)"


def test_dynamic_quantization_and_its_scales(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "q.scale", "q.zero"]),
        helper.make_node("MatMulInteger", ["q", "w", "q.zero", "w.zero"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["sum.float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["q.scale", "channels"], ["scales"]),
        helper.make_node("Mul", ["sum.float", "scales"], ["y"]),
    ]
    held = [quantized("w", 8, 4)[0], quantized("w", 1)[2], constant("channels", 4)]
    info = described(model(nodes, held, ["n", 8]), tmp_path)
    assert info.precision.summary == "int8 (dynamic)"
    assert (info.parameters, info.macs) == (32, 32)
    assert "already quantized: 1 MatMulInteger" in info.notes


def test_integer_operators(tmp_path: Path) -> None:
    scales = ["x.scale", "x.zero"]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", *scales], ["q"]),
        helper.make_node("QLinearMatMul", ["q", *scales, "w", "w.scale", "w.zero", *scales], ["p"]),
        helper.make_node("DequantizeLinear", ["p", *scales], ["y"]),
    ]
    info = described(model(nodes, [*quantized("w", 8, 4), *quantized("x", 1)[1:]], ["n", 8]), tmp_path)
    assert info.precision.summary == "int8 (QOperator)"
    assert (info.parameters, info.macs) == (32, 32)


def test_packed_four_bit_weights_count_as_weights_and_shapes_go_on(tmp_path: Path) -> None:
    node = helper.make_node(
        "MatMulNBits", ["x", "w", "s"], ["h"], domain="com.microsoft", K=32, N=6, bits=4, block_size=32
    )
    nodes = [node, helper.make_node("MatMul", ["h", "v"], ["y"])]
    held = [constant("w", 6, 1, 16, dtype=np.uint8), constant("s", 6), constant("v", 6, 2)]
    info = described(model(nodes, held, ["n", 32]), tmp_path)
    assert (info.parameters, info.macs, info.unknown_macs) == (192 + 12, 192 + 12, 0)
    assert info.precision.summary == "int4 (weight only)"


def test_half_weights_that_are_widened(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["w"], ["w.float"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "w.float"], ["y"]),
    ]
    info = described(model(nodes, [constant("w", 8, 4, dtype=np.float16)], ["n", 8]), tmp_path)
    assert info.precision.summary == "float16"
    assert "float16 weights widened by 1 Cast; arithmetic is float32" in info.notes


def test_stored_integers_and_the_scales_that_widen_them(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["w"], ["w.float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["w.float", "s"], ["w.scaled"]),
        helper.make_node("MatMul", ["x", "w.scaled"], ["y"]),
    ]
    info = described(model(nodes, [constant("w", 8, 4, dtype=np.int8), constant("s", 1, 4)], ["n", 8]), tmp_path)
    assert (info.parameters, info.precision.summary) == (32, "int8 (weight only)")
    assert [(row.operator, row.weight, row.macs) for row in info.layers] == [("MatMul", (8, 4), 32)]
    assert "already quantized: integer weights, widened by 1 Cast and Mul as the file is opened" in info.notes


def test_half_of_the_weights_quantized_is_mixed(tmp_path: Path) -> None:
    nodes = [
        dequantize("w"),
        helper.make_node("MatMul", ["x", "w.float"], ["h"]),
        helper.make_node("MatMul", ["h", "v"], ["y"]),
    ]
    info = described(model(nodes, [*quantized("w", 8, 8), constant("v", 8, 8)], ["n", 8]), tmp_path)
    assert (info.precision.summary, info.precision.shares) == ("mixed", {"int8": 0.5, "float32": 0.5})


# Constants: where they may be, and what they may claim.


def test_constants_of_nodes_and_subgraphs_count_and_indices_do_not(tmp_path: Path) -> None:
    inner = helper.make_graph(
        [
            helper.make_node("Constant", [], ["c"], value=constant("", 3, 5)),
            helper.make_node("MatMul", ["x", "c"], ["t"]),
        ],
        "then",
        [],
        [value("t", None)],
    )
    other = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["e"])], "else", [], [value("e", None)])
    nodes = [
        helper.make_node("Constant", [], ["shape"], value_ints=[-1, 5]),
        helper.make_node("Constant", [], ["flag"], value=numpy_helper.from_array(np.array(True))),
        helper.make_node("If", ["flag"], ["branch"], then_branch=inner, else_branch=other),
        helper.make_node("Reshape", ["branch", "shape"], ["y"]),
    ]
    info = described(model(nodes, [constant("w", 3, 5), constant("index", 9, dtype=np.int64)], ["n", 3]), tmp_path)
    assert info.parameters == 30
    assert info.operators == {"MatMul": 2, "If": 1, "Reshape": 1}
    assert info.macs == 30
    assert "2 subgraphs, each counted once" in info.notes


def test_local_functions_are_expanded(tmp_path: Path) -> None:
    body = [helper.make_node("MatMul", ["a", "w"], ["m"]), helper.make_node("Relu", ["m"], ["b"])]
    function = helper.make_function("local", "Layer", ["a", "w"], ["b"], body, [helper.make_opsetid("", 20)])
    nodes = [
        helper.make_node("Layer", ["x", "v"], ["h"], domain="local"),
        helper.make_node("Layer", ["h", "v"], ["y"], domain="local"),
    ]
    proto = model(nodes, [constant("v", 6, 6)], ["n", 6], functions=[function])
    proto.opset_import.append(helper.make_opsetid("local", 1))
    info = described(proto, tmp_path)
    assert info.operators == {"MatMul": 2, "Relu": 2}
    assert (info.macs, info.parameters) == (72, 36)
    assert "1 local functions, expanded" in info.notes


@pytest.mark.parametrize("change", ["longer", "typed", "empty", "negative", "rank", "type"])
def test_a_constant_that_claims_what_the_file_does_not_hold_is_refused(change: str, tmp_path: Path) -> None:
    proto = two_layers()
    weight = proto.graph.initializer[0]
    if change == "longer":
        weight.dims[0] = 2**40
    elif change == "typed":
        weight.ClearField("raw_data")
        weight.float_data.extend([1.0] * 7)
    elif change == "empty":
        weight.ClearField("raw_data")
    elif change == "negative":
        weight.dims[0] = -6
    elif change == "rank":
        weight.dims.extend([1] * 70)
    else:
        weight.data_type = 77
    with pytest.raises(ModelError, match=r"model\.onnx: the constant 'w'"):
        described(proto, tmp_path)


def external(name: str, location: str, *shape: int, **place: int) -> Any:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL)
    for key, entry in {"location": location, **place}.items():
        tensor.external_data.add(key=key, value=str(entry))
    return tensor


def outside(held: Any) -> Any:
    return model([helper.make_node("MatMul", ["x", "w"], ["y"])], [held], ["n", 8])


def test_external_data_beside_the_model_is_measured_and_not_read(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(8 * 4 * 4 + 16))
    info = described(outside(external("w", "w.bin", 8, 4, offset=16, length=128)), tmp_path)
    assert (info.parameters, info.macs) == (32, 32)
    assert "external data: w.bin (144 bytes)" in info.notes


@pytest.mark.parametrize(
    "location", ["../w.bin", "/etc/passwd", "a/../../w.bin", "", "..\\w.bin", "link.bin", "folder/w.bin"]
)
def test_external_data_outside_or_through_a_link_is_refused(location: str, tmp_path: Path) -> None:
    inside = tmp_path / "model"
    inside.mkdir()
    (tmp_path / "w.bin").write_bytes(bytes(128))
    (inside / "link.bin").symlink_to(tmp_path / "w.bin")
    (inside / "folder").symlink_to(tmp_path)
    with pytest.raises(UnsafeFileError, match="the constant 'w'"):
        described(outside(external("w", location, 8, 4)), inside)


@pytest.mark.parametrize("place", [{}, {"offset": 64}, {"length": 4}, {"offset": -1}, {"offset": "far"}])
def test_external_data_that_is_missing_or_too_short_is_an_error(place: dict[str, Any], tmp_path: Path) -> None:
    if place:
        (tmp_path / "w.bin").write_bytes(bytes(128))
    with pytest.raises(ModelError, match=r"w\.bin"):
        described(outside(external("w", "w.bin", 8, 4, **place)), tmp_path)


# Files that are none, and graphs that were made to stall or to fill the memory.


@pytest.mark.parametrize("data", [b"", b"\x08\x07", b"\xff" * 64, b"\x08\x07:\x02\x0a\x09"])
def test_garbage_is_an_error_that_names_the_file(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"model\.onnx"):
        describe_onnx(path, in_process)


def test_names_that_are_no_text_are_shown_escaped(tmp_path: Path) -> None:
    data = two_layers().SerializeToString().replace(b"first", b"\xff\xfe\xfd\xfc\xfb")
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    assert describe_onnx(path, in_process).layers[0].name == "\\xff\\xfe\\xfd\\xfc\\xfb"


def doubling_functions() -> Any:
    functions, opsets = [], [*OPSETS, helper.make_opsetid("local", 1)]
    for level in range(40):
        calls = [helper.make_node(f"F{level + 1}", ["a"], ["c"], domain="local")]
        calls.append(helper.make_node(f"F{level + 1}", ["c"], ["b"], domain="local"))
        functions.append(helper.make_function("local", f"F{level}", ["a"], ["b"], calls, opsets))
    functions.append(
        helper.make_function("local", "F40", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], opsets)
    )
    proto = model([helper.make_node("F0", ["x"], ["y"], domain="local")], [], ["n", 4], functions=functions)
    proto.opset_import.append(helper.make_opsetid("local", 1))
    return proto


def doubling_shapes() -> Any:
    nodes = [helper.make_node("Shape", ["x"], ["s0"])]
    nodes += [helper.make_node("Concat", [f"s{level}"] * 2, [f"s{level + 1}"], axis=0) for level in range(40)]
    return model([*nodes, helper.make_node("ConstantOfShape", ["s40"], ["y"])], [], ["n", 4])


@pytest.mark.parametrize("proto", [doubling_functions(), doubling_shapes()], ids=["functions", "shapes"])
def test_a_graph_that_would_never_end_is_described_without_shapes(
    proto: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspect_shapes, "_TIMEOUT_S", 2)
    monkeypatch.setattr(inspect_shapes, "_MAX_MEMORY_BYTES", 1 << 30)
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    info = describe_onnx(path)
    assert "onnx could not infer the shapes" in info.notes
    assert sum(info.operators.values()) == len(proto.graph.node)


def test_the_file_that_is_damaged_below_is_whole_here(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(DAMAGED)
    info = describe_onnx(path, in_process)
    assert (info.parameters, info.macs, info.unknown_macs) == (8, 8, 0)


@settings(max_examples=150, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_described_or_refused(data: st.DataObject, tmp_path: Path) -> None:
    whole = bytearray(DAMAGED)
    if data.draw(st.booleans()):
        whole = whole[: data.draw(st.integers(0, len(whole)))]
    else:
        for _ in range(data.draw(st.integers(1, 4))):
            whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "model.onnx"
    path.write_bytes(whole)
    try:
        info = describe_onnx(path, in_process)
    except CompressError as error:
        assert "model.onnx" in error.message
    else:
        assert info.identity.size_bytes == len(whole)


def small_of_every_kind() -> bytes:
    """A valid file in which most bytes are structure: quantized, with a subgraph, a function and a cast."""
    inner = helper.make_graph([helper.make_node("MatMul", ["x", "w.float"], ["t"])], "then", [], [value("t", None)])
    other = helper.make_graph([helper.make_node("MatMul", ["x", "h.float"], ["e"])], "else", [], [value("e", None)])
    function = helper.make_function(
        "local", "Layer", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], [helper.make_opsetid("", 20)]
    )
    nodes = [
        dequantize("w"),
        helper.make_node("Cast", ["h"], ["h.float"], to=TensorProto.FLOAT),
        helper.make_node("Constant", [], ["flag"], value=numpy_helper.from_array(np.array(True))),
        helper.make_node("If", ["flag"], ["branch"], then_branch=inner, else_branch=other),
        helper.make_node("Layer", ["branch"], ["y"], domain="local"),
    ]
    held = [*quantized("w", 2, 2), constant("h", 2, 2, dtype=np.float16)]
    proto = model(nodes, held, ["n", 2], functions=[function])
    proto.opset_import.append(helper.make_opsetid("local", 1))
    data: bytes = proto.SerializeToString()
    return data


DAMAGED = small_of_every_kind()

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress.worker.errors import JobError
from compress.worker.session import Operators, TensorSpec, open_session

FREE, FIXED = ("onnxruntime", "free"), ("litert", "fixed")
ALL = [FREE, ("onnxruntime", "batch2"), FIXED, ("litert", "free")]


@pytest.fixture(scope="session")
def artifacts(onnx_file: Path, onnx_batch2_file: Path, tflite_files: dict[str, Path]) -> dict[tuple[str, str], Path]:
    return {
        ("onnxruntime", "free"): onnx_file,
        ("onnxruntime", "batch2"): onnx_batch2_file,
        ("litert", "fixed"): tflite_files["fixed"],
        ("litert", "free"): tflite_files["free"],
    }


@pytest.mark.parametrize("which", ALL)
def test_every_row_is_answered_at_any_batch(
    which: tuple[str, str], artifacts: dict[Any, Path], rows: dict[str, Any], weights: dict[str, Any], score: Any
) -> None:
    if which == ("litert", "free"):
        score = rows["x"] @ weights["first"] @ weights["second"]
    with open_session(which[0], artifacts[which], threads=1) as session:
        for count in (7, 1, 2, 3):
            made = session.run({"x": rows["x"][:count]})
            assert list(made) == ["score"]
            np.testing.assert_allclose(made["score"], score[:count], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("which", ALL)
def test_names_and_shapes_are_those_of_the_model(which: tuple[str, str], artifacts: dict[Any, Path]) -> None:
    batch = {"free": None, "fixed": 1, "batch2": 2}[which[1]]
    with open_session(which[0], artifacts[which], threads=1) as session:
        assert session.inputs == {"x": TensorSpec((batch, 4), "float32")}
        assert list(session.outputs) == ["score"]


@pytest.mark.parametrize("which", ALL)
def test_a_prepared_call_runs_alone_and_between_other_batches(
    which: tuple[str, str], artifacts: dict[Any, Path], rows: dict[str, Any]
) -> None:
    with open_session(which[0], artifacts[which], threads=1) as session:
        call = session.prepare({"x": rows["x"][:3]})
        call()
        call()


@pytest.mark.parametrize("which", [FREE, FIXED])
def test_wrong_inputs_are_refused_before_the_runtime_sees_them(
    which: tuple[str, str], artifacts: dict[Any, Path]
) -> None:
    with open_session(which[0], artifacts[which], threads=1) as session:
        with pytest.raises(JobError, match="'x' is missing"):
            session.run({"y": np.zeros((1, 4), np.float32)})
        with pytest.raises(JobError, match=r"must be \[.*, 4\]"):
            session.prepare({"x": np.zeros((1, 5), np.float32)})


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
@pytest.mark.parametrize("content", [None, b"", b"not a model"])
def test_a_file_that_is_no_model_is_named(tmp_path: Path, runtime: str, content: bytes | None) -> None:
    path = tmp_path / "broken.bin"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(JobError, match=r"broken\.bin: .* cannot open it"):
        open_session(runtime, path, 1)


def test_an_unknown_runtime_lists_the_known_ones() -> None:
    with pytest.raises(JobError) as error:
        open_session("onnx", Path("a.onnx"), 1)
    assert error.value.hint == "known: executorch, litert, onnxruntime, tensorrt, tflite_runtime, torch."


def test_a_float_onnx_file_is_wholly_accelerated(onnx_file: Path) -> None:
    with open_session("onnxruntime", onnx_file, 1) as session:
        placement = session.placement("float")
    assert placement.path == "CPUExecutionProvider"
    assert {item.operator: item.count for item in placement.operators} == {"MatMul": 2, "Clip": 1}
    assert all(item.accelerated for item in placement.operators)


def test_a_weighted_operator_left_in_float_is_told_from_integer_ones(
    onnx_int8_file: Path, rows: dict[str, Any]
) -> None:
    with open_session("onnxruntime", onnx_int8_file, 1) as session:
        placement = session.placement("int8", rows)
    assert "integer kernels" in placement.path
    slow = [item for item in placement.operators if not item.accelerated]
    assert slow == [Operators("MatMul", 1, False, "float kernel; see the layer table")]
    assert any("MatMulInteger" in item.operator or "QuantizeMatMul" in item.operator for item in placement.operators)


def test_a_product_of_two_activations_has_no_weights_to_be_int8(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "x"], ["y"])],
        "square",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3, 3])],
    )
    path = tmp_path / "square.onnx"
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), path)
    with open_session("onnxruntime", path, 1) as session:
        (operators,) = session.placement("int8").operators
    assert operators == Operators("MatMul", 1, True)


def test_what_xnnpack_leaves_is_listed_beside_what_it_takes(tflite_files: dict[str, Path]) -> None:
    with open_session("litert", tflite_files["ids"], 1) as session:
        placement = session.placement("float")
    assert placement.path == "XNNPACK"
    taken = {item.operator: item.count for item in placement.operators if item.accelerated}
    left = {item.operator: item.reason for item in placement.operators if not item.accelerated}
    assert taken["FULLY_CONNECTED"] == 2
    assert left["EMBEDDING_LOOKUP"] == "XNNPACK did not take it"
    assert "DELEGATE" not in taken | left


def test_placement_counts_every_operator_of_the_file(tflite_files: dict[str, Path]) -> None:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = Interpreter(
        str(tflite_files["ids"]), experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    )
    with open_session("litert", tflite_files["ids"], 1) as session:
        placement = session.placement("float")
    assert sum(item.count for item in placement.operators) == len(plain._get_ops_details())


def test_64_bit_ids_are_narrowed_with_their_range_checked(
    tflite_files: dict[str, Path], rows: dict[str, Any], weights: dict[str, Any]
) -> None:
    ids = np.array([2, 0, 1], np.int64)
    x = rows["x"][:3]
    with open_session("litert", tflite_files["ids"], 1) as session:
        assert session.inputs["ids"].dtype == "int32"
        made = session.run({"ids": ids, "x": x})["score"]
        with pytest.raises(JobError, match="holds 1 to"):
            session.run({"ids": np.array([1, 2**40, 1]), "x": x})
    table = np.arange(12, dtype=np.float32).reshape(3, 4)
    wanted = np.clip((x + table[ids]) @ weights["first"], 0, 6) @ weights["second"]
    np.testing.assert_allclose(made, wanted, rtol=1e-4, atol=1e-4)

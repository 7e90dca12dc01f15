from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from compress.errors import WorkerError
from compress.evidence import Operators, Placement
from compress.hosts.calls import ask, describe, run_outputs
from compress.hosts.local import LocalHost
from compress.worker.session import TensorSpec


class Answers:
    """A host whose worker always gives the same answer."""

    def __init__(self, answer: dict[str, Any]) -> None:
        self._answer = answer

    def run(self, job: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        return self._answer


@pytest.fixture(scope="session")
def doubling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`file = x + x`: an output whose name is also a parameter of numpy.savez."""
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["file"])],
        "doubling",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("file", TensorProto.FLOAT, ["batch", 3])],
    )
    path = tmp_path_factory.mktemp("onnx") / "doubling.onnx"
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def test_every_row_comes_back_in_order(doubling: Path) -> None:
    x = np.arange(15, dtype=np.float32).reshape(5, 3)
    made = run_outputs(LocalHost(), "onnxruntime", doubling, {"x": x}, threads=1, batch=2, timeout_s=60)
    assert list(made) == ["file"]
    np.testing.assert_array_equal(made["file"], 2 * x)


def test_a_relative_path_is_found(doubling: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(doubling.parent)
    x = {"x": np.ones((1, 3), np.float32)}
    made = run_outputs(LocalHost(), "onnxruntime", Path("doubling.onnx"), x, threads=1, batch=1, timeout_s=60)
    assert made["file"].tolist() == [[2, 2, 2]]


def test_wrong_inputs_name_what_is_wrong(doubling: Path) -> None:
    x = {"x": np.ones((1, 4), np.float32)}
    with pytest.raises(WorkerError, match=r"'x' must be \[\?, 3\]; got \[1, 4\]"):
        run_outputs(LocalHost(), "onnxruntime", doubling, x, threads=1, batch=1, timeout_s=60)
    with pytest.raises(WorkerError, match="Python objects"):
        run_outputs(LocalHost(), "onnxruntime", doubling, {"x": np.array([{}])}, threads=1, batch=1, timeout_s=60)


def test_describe_gives_evidence(doubling: Path) -> None:
    x = {"x": np.ones((4, 3), np.float32)}
    found = describe(LocalHost(), "onnxruntime", doubling, precision="float", threads=1, timeout_s=60, inputs=x)
    inputs, outputs, placement = found
    assert inputs == {"x": TensorSpec((None, 3), "float32")}
    assert outputs == {"file": TensorSpec((None, 3), "float32")}
    assert placement == Placement("CPUExecutionProvider", (Operators("Add", 1, True),))
    assert placement.share == 1


@pytest.mark.parametrize("schema", [None, 0, 2, "1"])
def test_another_schema_is_refused(schema: Any) -> None:
    with pytest.raises(WorkerError, match="answered with schema"):
        ask(Answers({"schema": schema, "peak_rss_bytes": 1}), {"action": "empty"}, 1)


def test_an_answered_error_keeps_message_and_hint() -> None:
    answer = {"schema": 1, "error": {"type": "JobError", "message": "no such file", "hint": "check it."}}
    with pytest.raises(WorkerError) as error:
        ask(Answers(answer), {"action": "empty"}, 1)
    assert (error.value.message, error.value.hint) == ("no such file", "check it.")

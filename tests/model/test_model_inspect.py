"""What is said of exported programs and files of weights, whole and damaged."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from compress.errors import CompressError, ModelError, UnsafeFileError
from compress.model.core import TensorInfo
from compress.model.cost import cost
from compress.model.factory import export_module
from compress.model.fileinfo import (
    StoredTensor,
    Value,
    bits_of,
    by_count,
    precision_of,
    read_bounded,
)
from compress.model.inspect_pt2 import describe_pt2
from compress.model.inspect_weights import describe_weights
from compress.model.pt2 import load_pt2


class Tied(torch.nn.Module):
    """Two reads of one weight, a batch norm with buffers, and a shift that is no parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(6, 6, bias=False)
        self.norm = torch.nn.BatchNorm1d(6)
        self.second = torch.nn.Linear(6, 6, bias=False)
        self.second.weight = self.first.weight
        self.last = torch.nn.Linear(6, 1)
        self.register_buffer("shift", torch.ones(6))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.last(self.second(self.norm(self.first(features + self.shift))))


@pytest.fixture(scope="session")
def archive() -> bytes:
    torch.manual_seed(0)
    return export_module(Tied().eval(), [TensorInfo("features", (6,), "float32")], ("logit",), "tied").to_bytes()


def test_an_exported_program_has_the_figures_of_its_graph(archive: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    path.write_bytes(archive)
    info = describe_pt2(path)
    total = cost(load_pt2(path))
    assert (info.kind, info.identity.name, info.identity.size_bytes) == ("pt2", "model.pt2", len(archive))
    assert info.inputs == (Value("features", ("batch", 6), "float32"),)
    assert [(item.shape, item.dtype) for item in info.outputs] == [(("batch", 1), "float32")]
    assert info.parameters == total.parameters == 36 + 12 + 7
    assert info.macs == total.macs == 36 + 36 + 6
    assert info.operators == {"linear": 3, "add": 1, "batch_norm": 1}
    assert info.precision.summary == "float32"
    linear = [(row.weight, row.parameters, row.macs) for row in info.layers if row.operator == "linear"]
    assert linear == [((6, 6), 36, 36), ((6, 6), 0, 36), ((1, 6), 7, 6)]
    assert sum(row.parameters for row in info.layers) == info.parameters
    assert "1 tied weights, counted once" in info.notes
    assert any("buffers and constants" in note for note in info.notes)


def test_a_program_of_half_weights_says_so(tmp_path: Path) -> None:
    module = torch.nn.Linear(4, 2).to(torch.float16).eval()
    path = tmp_path / "half.pt2"
    path.write_bytes(export_module(module, [TensorInfo("x", (4,), "float16")], ("y",), "half").to_bytes())
    info = describe_pt2(path)
    assert (info.precision.summary, info.inputs[0].dtype) == ("float16", "float16")


@settings(max_examples=25, deadline=20000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_program_is_described_or_refused(data: st.DataObject, archive: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    path.write_bytes(damaged(data, archive))
    try:
        info = describe_pt2(path)
    except CompressError as error:
        assert "model.pt2" in error.message
    else:
        assert info.parameters == 55


def damaged(data: st.DataObject, whole: bytes) -> bytes:
    if data.draw(st.booleans()):
        return whole[: data.draw(st.integers(0, len(whole) - 1))]
    changed = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    return bytes(changed)


TENSORS = {
    "table": torch.zeros(4, 3, dtype=torch.bfloat16),
    "weight": torch.zeros(2, 3),
    "weight.packed": torch.zeros(6, 3, dtype=torch.int8),
    "steps": torch.tensor(7),
}


def test_a_safetensors_file_is_described_by_its_header(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    save_file(TENSORS, path, metadata={"format": "pt"})
    info = describe_weights(path)
    assert info.kind == "safetensors"
    assert {item.name: (item.dtype, item.shape) for item in info.tensors} == {
        "table": ("bfloat16", (4, 3)),
        "weight": ("float32", (2, 3)),
        "weight.packed": ("int8", (6, 3)),
        "steps": ("int64", ()),
    }
    assert info.parameters == 12 + 6 + 18
    assert info.precision.summary == "mixed"
    assert info.precision.shares == {"int8": 0.5, "bfloat16": pytest.approx(1 / 3), "float32": pytest.approx(1 / 6)}
    assert (info.macs, info.operators, info.inputs, info.layers) == (None, {}, (), ())
    assert info.notes == ("metadata format = pt",)


def test_a_state_dictionary_is_described_and_its_tied_tensors_count_once(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(Tied().state_dict(), path)
    info = describe_weights(path)
    assert info.kind == "state_dict"
    assert [item.name for item in info.tensors][:2] == ["shift", "first.weight"]
    # Two linear layers over one weight, the last one, the norm's four vectors, the shift.
    assert info.parameters == 36 + 7 + 24 + 6
    assert info.notes == ("1 tied tensors, counted once",)


@pytest.mark.parametrize("whole", ["module", "bare"])
def test_a_pickled_model_is_refused_with_the_way_out(whole: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    if whole == "module":
        torch.save(torch.nn.Linear(2, 2), path)
    else:
        path.write_bytes(pickle.dumps({"weight": [1.0]}))
    with pytest.raises(UnsafeFileError, match=r"model\.pth") as caught:
        describe_weights(path)
    assert "state_dict" in caught.value.hint


@settings(max_examples=150, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_of_weights_is_described_or_refused(data: st.DataObject, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(TENSORS, path)
    path.write_bytes(damaged(data, path.read_bytes()))
    try:
        info = describe_weights(path)
    except CompressError as error:
        assert "weights.safetensors" in error.message
    else:
        assert sum(item.elements * bits_of(item.dtype) for item in info.tensors) <= 8 * info.identity.size_bytes


# The words and figures that every kind of file shares.


def tensor(dtype: str, *shape: int) -> StoredTensor:
    elements = 1
    for size in shape:
        elements *= size
    return StoredTensor("t", dtype, shape, elements)


def test_the_summary_names_the_type_of_nine_tenths_of_the_weights() -> None:
    weights = [tensor("int8", 90, 1), tensor("uint8", 5, 1), tensor("float32", 5, 1)]
    assert precision_of(weights, "dynamic").summary == "int8 (dynamic)"
    assert precision_of([*weights, tensor("float32", 10, 1)], "dynamic").summary == "mixed"
    assert precision_of([tensor("float32", 3, 3)], "dynamic").summary == "float32"


def test_biases_do_not_decide_the_precision_unless_there_is_nothing_else() -> None:
    assert precision_of([tensor("int8", 4, 4), tensor("float32", 100)]).shares == {"int8": 1.0}
    assert precision_of([tensor("float32", 100)]).summary == "float32"
    assert precision_of([]).summary == "none"


def test_operators_come_by_count_and_then_by_name() -> None:
    assert list(by_count(["relu", "conv", "add", "conv"]).items()) == [("conv", 2), ("add", 1), ("relu", 1)]


@pytest.mark.parametrize(
    ("dtype", "bits"),
    [("float32", 32), ("bfloat16", 16), ("int4", 4), ("float8_e4m3fn", 8), ("bool", 8), ("string", 0)],
)
def test_bits_follow_from_the_name_of_a_type(dtype: str, bits: int) -> None:
    assert bits_of(dtype) == bits


def test_a_file_over_the_bound_or_missing_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "large.onnx"
    path.write_bytes(b"12345")
    assert read_bounded(path, 5)[1].size_bytes == 5
    with pytest.raises(ModelError, match=r"large\.onnx: it is longer than 4 bytes"):
        read_bounded(path, 4)
    with pytest.raises(ModelError, match="cannot be read"):
        read_bounded(tmp_path / "none.onnx")

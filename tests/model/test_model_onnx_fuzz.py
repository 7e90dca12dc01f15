import contextlib

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper
from onnx_kit import proto, save, values

from compress.errors import CompressError
from compress.model.onnx_import import check_onnx, load_onnx


def node(kind, inputs, output, **attributes):
    return helper.make_node(kind, inputs.split(" "), [output], **attributes)


def small(batch):
    """A file with a layer of each sort, shape arithmetic, a branch and a function."""
    branch = helper.make_graph([node("Relu", "f", "t")], "then", [], [helper.make_value_info("t", onnx.TypeProto())])
    other = helper.make_graph([node("Neg", "f", "e")], "else", [], [helper.make_value_info("e", onnx.TypeProto())])
    nodes = [
        node("Conv", "x w", "c", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("MaxPool", "c", "p", kernel_shape=[2, 2], strides=[2, 2]),
        node("Shape", "p", "s"),
        node("Gather", "s zero", "rows"),
        node("Concat", "rows rest", "target", axis=0),
        node("Reshape", "p target", "f"),
        node("Equal", "zero zero", "yes"),
        node("Squeeze", "yes", "one"),
        helper.make_node("If", ["one"], ["i"], then_branch=branch, else_branch=other),
        helper.make_node("Own", ["i", "m"], ["y"], domain="own"),
    ]
    constants = {"w": values(2, 1, 3, 3), "zero": np.array([0]), "rest": np.array([-1]), "m": values(8, 2)}
    model = proto(nodes, {"x": values(2, 1, 8, 8)}, ["y"], constants, batch=batch)
    imports = [helper.make_opsetid("", 17)]
    body = [node("MatMul", "a b", "o")]
    model.functions.append(helper.make_function("own", "Own", ["a", "b"], ["o"], body, imports))
    model.opset_import.append(helper.make_opsetid("own", 1))
    return model


OPEN, FIXED = small("batch").SerializeToString(), small(2).SerializeToString()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "model.onnx"


@st.composite
def damaged(draw, data):
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        changed[draw(st.integers(0, len(changed) - 1))] ^= 1 << draw(st.integers(0, 7))
    if draw(st.integers(0, 4)) == 0:
        del changed[draw(st.integers(1, len(changed))) :]
    if draw(st.integers(0, 4)) == 0:
        at = draw(st.integers(0, len(changed)))
        changed[at:at] = draw(st.binary(max_size=6))
    return bytes(changed)


slowly = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def test_the_files_are_fine_before(tmp_path):
    for data in (OPEN, FIXED):
        path = save(onnx.ModelProto.FromString(data), tmp_path)
        assert load_onnx(path).signature.outputs[0].shape == (2,)


@settings(slowly, max_examples=120)
@given(st.sampled_from([OPEN, FIXED]).flatmap(damaged))
def test_damaged_file_loads_or_is_an_error_of_the_project(place, data):
    place.write_bytes(data)
    with contextlib.suppress(CompressError):
        assert load_onnx(place).signature.inputs


@settings(slowly, max_examples=150)
@given(damaged(OPEN))
def test_damaged_file_is_described_or_is_an_error_of_the_project(place, data):
    place.write_bytes(data)
    with contextlib.suppress(CompressError):
        assert check_onnx(place).opset


@settings(slowly, max_examples=40)
@given(st.binary(max_size=200))
def test_noise_is_an_error_of_the_project(place, data):
    place.write_bytes(data)
    with pytest.raises(CompressError):
        load_onnx(place)

"""Weights that stay in files beside an `.onnx`, with the limit at which they do so set low."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from compress.errors import LoweringError, ModelError, UnsafeFileError
from compress.model import onnx_file
from compress.model.core import TensorInfo
from compress.model.onnx_file import OnnxFile
from compress.model.source import load_model
from compress.recipe import BUILTIN_SCHEMES, ModelConfig
from compress.runtimes.onnxruntime import OnnxRuntime
from compress.target import Target

WIDTH = 64
TARGET = Target.model_validate({"schema": 1, "runtime": "onnxruntime"})
ROWS = np.random.default_rng(1).normal(size=(5, WIDTH)).astype(np.float32)


@pytest.fixture
def path(tmp_path, monkeypatch):
    """Two products, a sum whose bias is small, in a folder with a data file that is longer than it need be."""
    monkeypatch.setattr(onnx_file, "INSIDE_BYTES", 20_000)
    monkeypatch.setattr(onnx_file, "MAX_BYTES", 20_000)
    random = np.random.default_rng(0)
    weights = {
        "w1": random.normal(size=(WIDTH, WIDTH)) / 8,
        "w2": random.normal(size=(WIDTH, WIDTH)) / 8,
        "b": random.normal(size=WIDTH),
    }
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w1"], ["a"], name="first"),
            helper.make_node("Relu", ["a"], ["r"], name="relu"),
            helper.make_node("Gemm", ["r", "w2", "b"], ["y"], name="second", transB=1),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", WIDTH])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    folder = tmp_path / "theirs"
    folder.mkdir()
    onnx.save(model, folder / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=16)
    return folder / "m.onnx"


def taken(path):
    return load_model(ModelConfig(source=path.name), [TensorInfo("x", (WIDTH,), "float32")], path.parent)


def answers(folder, data, beside):
    """What a file answers whose weights were laid beside it, and nothing else was."""
    folder.mkdir()
    (folder / "m.onnx").write_bytes(data)
    for item in beside:
        item.lay(folder)
    session = onnxruntime.InferenceSession(folder / "m.onnx", providers=["CPUExecutionProvider"])
    return session.run(None, {"x": ROWS})[0]


def test_long_weights_stay_beside_the_file_under_the_name_of_their_content(path, tmp_path):
    model = taken(path)
    assert isinstance(model, OnnxFile)
    assert "its weights are 33,024 bytes" in model.reason
    (data,) = model.beside
    assert data.path == path.parent / "m.data"
    assert data.name.endswith(".weights") and data.name != "m.data"
    # Small constants are inside, where shapes are read from.
    inside = {item.name: len(item.raw_data) for item in onnx.load_from_string(model.data).graph.initializer}
    assert inside == {"w1": 0, "w2": 0, "b": 256}
    np.testing.assert_array_equal(
        answers(tmp_path / "ours", model.data, model.beside),
        onnxruntime.InferenceSession(path).run(None, {"x": ROWS})[0],
    )


def test_other_weights_make_another_model(path):
    before = taken(path).digest
    data = bytearray((path.parent / "m.data").read_bytes())
    data[5] ^= 1
    (path.parent / "m.data").write_bytes(data)
    assert taken(path).digest != before


@pytest.mark.parametrize(
    ("name", "least_db", "share"),
    [
        ("float16", 60, 0.5),
        ("int8-dynamic", 35, 0.25),
        ("int8-weights", 35, 0.25),
        ("int4-weights", 15, 0.15),
        ("int4-dynamic", 15, 0.15),
    ],
)
def test_a_scheme_writes_one_new_file_of_weights(path, tmp_path, name, least_db, share):
    engine, model = OnnxRuntime(), taken(path)
    lowered = engine.take(model)
    made = engine.quantize(lowered, BUILTIN_SCHEMES[name], None, TARGET)
    wanted = answers(tmp_path / "float", lowered.data, lowered.beside)
    got = answers(tmp_path / "made", made.data, made.beside)
    assert 10 * np.log10((wanted**2).sum() / ((wanted - got) ** 2).sum()) > least_db
    (data,) = made.beside
    assert data.size_bytes < share * lowered.size_bytes + 3 * 4096
    assert made.size_bytes == len(made.data) + data.size_bytes


def test_what_stays_float_goes_into_the_new_file(path, tmp_path):
    engine = OnnxRuntime()
    lowered = engine.take(taken(path))
    scheme = BUILTIN_SCHEMES["int8-dynamic"].model_copy(update={"name": "mine", "exclude": ("second",)})
    made = engine.quantize(lowered, scheme, None, TARGET)
    (data,) = made.beside
    whole = data.path.read_bytes()
    (second,) = [item for item in onnx.load_from_string(made.data).graph.initializer if item.name == "w2"]
    place = {entry.key: entry.value for entry in second.external_data}
    kept = np.frombuffer(whole, np.float32, WIDTH * WIDTH, int(place["offset"])).reshape(WIDTH, WIDTH)
    source = onnx.load(path)
    np.testing.assert_array_equal(kept, numpy_helper.to_array(source.graph.initializer[1]))
    # The weight that became integers is in neither file any more.
    assert numpy_helper.to_array(source.graph.initializer[0]).tobytes() not in whole


def test_static_ranges_are_refused_with_what_works_instead(path):
    from compress.runtimes.onnxruntime.direct import watched

    with pytest.raises(LoweringError, match="weights lie beside it") as caught:
        watched(OnnxRuntime().take(taken(path)))
    assert "int8-dynamic" in caught.value.hint


@pytest.mark.parametrize(
    ("location", "error", "match"),
    [
        ("../m.data", UnsafeFileError, "outside the model's folder"),
        ("/etc/hostname", UnsafeFileError, "outside the model's folder"),
        ("linked.data", UnsafeFileError, "through a link"),
        ("gone.data", ModelError, "is missing"),
        ("short.data", ModelError, "needs 16384 bytes"),
    ],
)
def test_data_files_are_confined_and_measured(path, location, error, match):
    folder = path.parent
    (folder.parent / "m.data").write_bytes((folder / "m.data").read_bytes())
    (folder / "linked.data").symlink_to(folder / "m.data")
    (folder / "short.data").write_bytes(b"short")
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[0].external_data[0].value = location
    path.write_bytes(model.SerializeToString())
    with pytest.raises(error, match=match):
        taken(path)

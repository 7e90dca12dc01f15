from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from compress.data import SPLITS, TensorSpec, load_dataset
from compress.errors import DataError
from compress.recipe import DataConfig

ROWS = 80


@pytest.fixture
def load(tmp_path):
    def run(arrays, **config):
        np.savez(tmp_path / "rows.npz", **arrays)
        return load_dataset(DataConfig(**{"source": "rows.npz", "label": "y", **config}), tmp_path)

    return run


def arrays(**changes):
    random = np.random.default_rng(0)
    base = {
        "tokens": random.integers(0, 99, (ROWS, 12)),
        "image": random.integers(0, 255, (ROWS, 3, 4, 4)).astype(np.uint8),
        "number": random.normal(size=(ROWS, 5)),
        "id": np.array([f"c{row}" for row in range(ROWS)]),
        "group": np.array(["a", "b"])[np.arange(ROWS) % 2],
        "y": np.arange(ROWS) % 2,
    }
    return {**base, **changes}


def test_every_other_array_is_an_input(load):
    dataset = load(arrays(), id="id", sensitive=("group",))
    assert dataset.reader.signature() == (
        TensorSpec("tokens", (12,), "int64"),
        TensorSpec("image", (3, 4, 4), "uint8"),
        TensorSpec("number", (5,), "float32"),
    )
    batch = next(dataset.batches("test", 4))
    rows = dataset.splits["test"][:4]
    np.testing.assert_array_equal(batch["image"], arrays()["image"][rows])
    np.testing.assert_array_equal(batch["number"], arrays()["number"][rows].astype(np.float32))
    assert dataset.ids[3] == "c3"
    assert dataset.sensitive["group"][:2].tolist() == ["a", "b"]
    assert dataset.labels["y"].dtype == np.int64


def test_inputs_are_renamed_and_chosen(load):
    dataset = load(arrays(), inputs={"input_ids": "tokens"}, id="id")
    assert dataset.reader.signature() == (TensorSpec("input_ids", (12,), "int64"),)
    dropped = load(arrays(), drop=("image", "number", "group", "id"))
    assert [spec.name for spec in dropped.reader.signature()] == ["tokens"]
    assert dropped.notes[0].startswith("rows have no id")


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "int32", "uint8", "bool", ">f4"])
def test_dtypes_are_kept(load, dtype):
    values = np.arange(ROWS).astype(dtype)
    dataset = load({"x": values, "y": arrays()["y"]})
    assert dataset.reader.signature()[0].dtype == np.dtype(dtype).newbyteorder("=").name
    np.testing.assert_array_equal(dataset.reader.read(np.arange(ROWS))["x"], values)


@pytest.mark.parametrize("dtype", ["int16", "uint32", "complex64", "U3", "datetime64[s]"])
def test_other_dtypes_are_refused(load, dtype):
    with pytest.raises(DataError, match=r"the input 'x' is .*; inputs are float64 \(read as float32\), float32"):
        load({"x": np.arange(ROWS).astype(dtype), "y": arrays()["y"]})


def test_objects_are_refused_and_not_unpickled(load, tmp_path):
    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("sprung").write_text, ("x",))

    with pytest.raises(DataError, match="the array 'x' holds Python objects, which only a pickle can store") as error:
        load({"x": np.array([Trap()] * ROWS), "y": arrays()["y"]})
    assert "x.astype(str)" in error.value.hint
    assert not (tmp_path / "sprung").exists()


def test_arrays_that_nobody_needs_are_not_read(load):
    dataset = load({"x": np.zeros((ROWS, 2)), "y": arrays()["y"], "junk": np.array([None] * 3)}, inputs={"x": "x"})
    assert dataset.rows == ROWS


def test_different_lengths(load):
    with pytest.raises(DataError, match=r"different lengths: tokens 7, .*label y 80"):
        load(arrays(tokens=np.zeros((7, 12))), drop=("id", "group"))
    with pytest.raises(DataError, match="'tokens' is a single value"):
        load(arrays(tokens=np.float32(3)), drop=("id", "group"))


@pytest.mark.parametrize(("missing", "value"), [("nan", np.nan), (0, 0.0)])
def test_missing_values(load, missing, value):
    number = np.zeros((ROWS, 5))
    number[2, 1] = np.nan
    dataset = load({"number": number, "y": arrays()["y"]}, missing=missing, split={"by": "random"})
    np.testing.assert_array_equal(dataset.reader.read(np.array([2]))["number"][0, 1], np.float32(value))
    assert "number 1." in dataset.notes[-1]
    with pytest.raises(DataError, match=r"'number' of .* has 1 missing values, first in row 2"):
        load({"number": number, "y": arrays()["y"]}, missing="error")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": np.ones(ROWS)}, "constant label"),
        ({"y": np.zeros((ROWS, 1))}, r"the label 'y' has shape \[80, 1\]"),
        ({"y": np.array(["no", "yes"])[np.arange(ROWS) % 2]}, "the label 'y' holds text: 'no', 'yes'"),
        ({"y": np.where(np.arange(ROWS) == 4, np.nan, np.arange(ROWS) % 2)}, "missing or infinite in 1 of 80 rows"),
        ({"id": np.arange(ROWS) + 0.5}, "is not a whole number"),
        ({"id": np.zeros((ROWS, 2), int)}, r"ids are int64 of shape \[80, 2\]"),
        ({"group": np.zeros((ROWS, 2), int)}, r"the sensitive column 'group' has shape \[80, 2\]"),
    ],
)
def test_bad_arrays(load, changes, message):
    with pytest.raises(DataError, match=message):
        load(arrays(**changes), id="id", sensitive=("group",))


def test_large_labels_do_not_wrap(load):
    dataset = load(arrays(y=np.where(np.arange(ROWS) % 2, 1e30, 0.0)), id="id", drop=("group",))
    assert dataset.labels["y"].max() == 1e30
    dataset = load(arrays(y=np.where(np.arange(ROWS) % 2, np.uint64(2**64 - 1), np.uint64(0))), drop=("group", "id"))
    assert dataset.labels["y"].min() == 0


def test_number_and_byte_ids(load):
    for values in (np.arange(ROWS), np.arange(ROWS, dtype=float), np.arange(ROWS).astype("S3")):
        assert load(arrays(id=values), id="id", drop=("group",)).ids[:2].tolist() == ["0", "1"]


def test_split_column(load):
    part = np.array(SPLITS)[np.arange(ROWS) % 4]
    dataset = load(arrays(part=part), id="id", drop=("group",), split={"by": "column", "column": "part"})
    assert dataset.splits["test"].tolist() == list(range(3, ROWS, 4))
    assert "part" not in [spec.name for spec in dataset.reader.signature()]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"features": ("number",)}, "data.features means nothing for rows.npz"),
        ({"categories": {"group": ("a", "b")}}, "data.categories means nothing"),
        ({"inputs": {"x": ("number", "image")}}, r"data\.inputs\.x: in a \.npz file an input is one array"),
        ({"inputs": {"x": "numbr"}}, "data.inputs.x: .* has no column 'numbr'"),
        ({"drop": ("tokens", "image", "number", "id", "group")}, "no array is left for the model's inputs"),
    ],
)
def test_contradictions_in_the_recipe(load, config, message):
    with pytest.raises(DataError, match=message):
        load(arrays(), **config)


def test_archives_that_numpy_did_not_write(tmp_path):
    config = DataConfig(source="rows.npz")
    stream = io.BytesIO()
    np.save(stream, np.zeros(3))
    with zipfile.ZipFile(tmp_path / "rows.npz", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(DataError, match=r"'readme\.txt' is not an array"):
        load_dataset(config, tmp_path)
    with zipfile.ZipFile(tmp_path / "rows.npz", "w") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("x.npy", stream.getvalue())
        archive.writestr("x.npy", stream.getvalue())
    with pytest.raises(DataError, match="two arrays are named 'x'"):
        load_dataset(config, tmp_path)

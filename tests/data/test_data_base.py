from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.data.base import Dataset, TensorSpec
from compress.data.checks import check_binary
from compress.data.memory import MemoryReader
from compress.errors import DataError


def make(labels=None, rows=100, test=None, **changes):
    everything = np.arange(rows)
    test = everything[rows // 2 :] if test is None else np.asarray(test)
    values = {
        "source": "rows.csv",
        "ids": np.array([f"c{row}" for row in everything]),
        "reader": MemoryReader({"x": np.arange(rows * 2, dtype=np.float32).reshape(rows, 2)}),
        "labels": labels or {},
        "sensitive": {},
        "splits": {"calibration": np.setdiff1d(everything, test), "test": test},
    }
    return Dataset(**{**values, **changes})


def test_batches_stream_a_split_in_order():
    dataset = make()
    batches = list(dataset.batches("test", 16, limit=40))
    assert [len(batch["x"]) for batch in batches] == [16, 16, 8]
    np.testing.assert_array_equal(np.concatenate([batch["x"] for batch in batches])[:, 0], np.arange(50, 90) * 2)
    assert sum(len(batch["x"]) for batch in dataset.batches("test", 16)) == 50


def test_batches_read_only_what_is_asked_for():
    asked = []

    class Counting(MemoryReader):
        def read(self, rows):
            asked.append(len(rows))
            return super().read(rows)

    dataset = make(reader=Counting({"x": np.zeros((100, 2), np.float32)}))
    stream = dataset.batches("test", 10)
    assert asked == []
    next(stream)
    assert asked == [10]


def test_batches_refuse_nonsense():
    with pytest.raises(DataError, match="no split 'tests'") as error:
        make().batches("tests", 8)
    assert "did you mean 'test'" in error.value.hint
    with pytest.raises(DataError, match="at least 1 row; got 0"):
        make().batches("test", 0)


def test_reading_gives_copies():
    dataset = make()
    next(dataset.batches("test", 4))["x"][:] = -1
    assert next(dataset.batches("test", 4))["x"].min() >= 0


def test_fingerprint_follows_content_and_not_the_split():
    label = {"y": np.arange(100) % 2}
    dataset = make(label)
    assert dataset.fingerprint() == make(label).fingerprint() == make(label, test=[3, 5]).fingerprint()
    inputs = dataset.reader.read(np.arange(100))
    inputs["x"][7, 1] += 1
    others = [
        make({"y": 1 - label["y"]}),
        make({"z": label["y"]}),
        make(label, ids=dataset.ids[::-1]),
        make(label, reader=MemoryReader(inputs)),
        make(label, reader=MemoryReader({"other": dataset.reader.read(np.arange(100))["x"]})),
        make(label, reader=MemoryReader({"x": inputs["x"].reshape(100, 2, 1)})),
    ]
    assert len({dataset.fingerprint(), *(other.fingerprint() for other in others)}) == len(others) + 1


def test_split_fingerprint_follows_the_ids():
    dataset = make()
    shuffled = make(ids=dataset.ids[::-1], test=np.arange(50))
    assert dataset.split_fingerprint("test") == shuffled.split_fingerprint("test")
    assert dataset.split_fingerprint("test") != dataset.split_fingerprint("calibration")


def test_info_counts_positives():
    info = make({"y": (np.arange(100) >= 90).astype(np.int64)}).info()
    assert info.rows == 100
    assert info.splits == {"calibration": 50, "test": 50}
    assert info.positives == {"calibration": 0, "test": 10}
    assert set(info.split_fingerprints) == {"calibration", "test"}
    assert make().info().positives == {}
    assert make({"y": np.arange(100)}).info().positives == {}
    two = make({"a": np.arange(100) % 2, "b": (np.arange(100) > 95).astype(np.int64)})
    assert two.info().positives == {}
    assert two.info("b").positives["test"] == 4
    with pytest.raises(DataError, match="no label 'c'"):
        two.info("c")


@given(st.lists(st.integers(0, 1), min_size=2, max_size=300), st.integers(1, 300), st.integers(0, 3), st.booleans())
@settings(deadline=None)
def test_a_sample_holds_its_share_of_positives(label, rows, seed, named):
    label = np.array(label)
    dataset = make({"y": label}, rows=len(label), test=[0])
    members = dataset.splits["calibration"]
    sample = dataset.sample("calibration", rows, seed, "y" if named else None)
    size, positives = min(rows, len(members)), int(label[members].sum())
    assert len(sample) == size
    assert (np.diff(sample) > 0).all()
    assert np.isin(sample, members).all()
    assert label[sample].sum() >= positives * size / len(members)
    assert label[sample].sum() <= positives * size / len(members) + 1
    assert label[sample].any() or not positives
    np.testing.assert_array_equal(sample, dataset.sample("calibration", rows, seed))


def test_a_sample_depends_on_the_seed_and_not_on_the_order_of_rows():
    label = {"y": (np.arange(400) % 40 == 0).astype(np.int64)}
    dataset = make(label, rows=400)
    first = dataset.sample("test", 50, 0)
    assert first.tolist() != dataset.sample("test", 50, 1).tolist()
    back = make({"y": label["y"][::-1]}, rows=400, test=np.arange(200), ids=dataset.ids[::-1])
    assert set(dataset.ids[first]) == set(back.ids[back.sample("test", 50, 0)])


def test_a_sample_over_several_labels_holds_every_rare_one():
    labels = {name: np.zeros(1000, np.int64) for name in "abc"}
    for offset, name in enumerate(labels):
        labels[name][600 + offset] = 1
    dataset = make({**labels, "amount": np.linspace(0, 1, 1000)}, rows=1000)
    assert set(range(600, 603)) <= set(dataset.sample("test", 10, 0).tolist())
    assert len(make(rows=1000).sample("test", 10, 0)) == 10


def test_a_sample_refuses_nonsense():
    with pytest.raises(DataError, match="at least 1 row; got 0"):
        make().sample("test", 0, 0)
    with pytest.raises(DataError, match="no label 'y'"):
        make().sample("test", 5, 0, "y")


def test_renamed_inputs_keep_rows_and_fingerprint():
    dataset = make()
    renamed = dataset.renamed({"x": "tokens"})
    assert renamed.reader.signature() == (TensorSpec("tokens", (2,), "float32"),)
    np.testing.assert_array_equal(next(renamed.batches("test", 8))["tokens"], next(dataset.batches("test", 8))["x"])
    assert renamed.fingerprint() == dataset.fingerprint()
    with pytest.raises(DataError, match="no input 'features'"):
        dataset.renamed({"features": "x"})
    two = make(reader=MemoryReader({"x": np.zeros(100, np.float32), "y": np.zeros(100, np.float32)}))
    with pytest.raises(DataError, match="named alike"):
        two.renamed({"x": "y"})


def test_check_binary_accepts_zero_and_one():
    assert check_binary(make({"y": np.arange(100) % 2}), None, "r.toml") == "y"
    assert check_binary(make({"y": np.arange(100) % 2, "z": np.arange(100)}), "y", "r.toml") == "y"


@pytest.mark.parametrize(
    ("values", "text"),
    [(np.arange(100) % 2 + 1, "holds 1, 2"), (np.arange(100), "7, 8, 9, ..."), (np.arange(100) % 2 / 2, "0.0, 0.5")],
)
def test_check_binary_refuses_other_values(values, text):
    with pytest.raises(DataError, match=r"r\.toml: a binary task needs a label of 0 and 1; 'y' of rows\.csv") as error:
        check_binary(make({"y": values}), "y", "r.toml")
    assert text in error.value.message
    assert "data.categories" in error.value.hint


def test_check_binary_refuses_a_missing_or_unclear_label():
    with pytest.raises(DataError, match="data names no label"):
        check_binary(make(), None, "r.toml")
    two = make({"late": np.arange(100) % 2, "gone": np.arange(100) % 2})
    with pytest.raises(DataError, match="which of the labels counts: late, gone"):
        check_binary(two, None, "r.toml")
    with pytest.raises(DataError, match="no label 'lat'") as error:
        check_binary(two, "lat", "r.toml")
    assert "did you mean 'late'" in error.value.hint


@pytest.mark.parametrize("positive", [0, 1])
def test_check_binary_refuses_a_test_split_of_one_class(positive):
    label = np.full(100, positive)
    label[:50] = np.arange(50) % 2
    with pytest.raises(DataError, match=f"the test split has {50 * positive} positive rows of 'y' out of 50"):
        check_binary(make({"y": label}), None, "r.toml")


def test_a_sample_says_how_it_was_drawn():
    labels = {"bad": np.array([1, 0, 0, 0, 0] * 20)}
    dataset = make(labels)
    rows = dataset.sample("calibration", 20, 0)
    assert dataset.describe_sample("calibration", rows) == (
        "20 of 50 calibration rows by class: 16 of class 0, 4 of class 1"
    )
    whole = dataset.sample("calibration", 99, 0)
    assert dataset.describe_sample("calibration", whole).startswith("50 of 50 calibration rows by class: 40 of class 0")
    many = make({"kind": np.arange(100) % 10})
    rows = many.sample("calibration", 30, 0)
    said = many.describe_sample("calibration", rows, "kind")
    assert said == "30 of 50 calibration rows by class: 10 of 10 classes, 3 to 3 rows each"
    none = make()
    assert (
        none.describe_sample("calibration", none.sample("calibration", 7, 0))
        == "7 of 50 calibration rows by a hash of the id"
    )
    two = make({"one": np.arange(100) % 2, "other": np.arange(100) // 25 % 2})
    assert "of class 0/1" in two.describe_sample("calibration", two.sample("calibration", 20, 0))

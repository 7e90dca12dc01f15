from __future__ import annotations

import textwrap

import numpy as np
import pytest

from compress.data import SPLITS, TensorSpec, load_dataset
from compress.errors import DataError
from compress.recipe import DataConfig

BODY = """
    import numpy as np
    import helper_of_rows

    PARTS = ["train", "calibration", "validation", "test"]

    def rows(count=40, **changes):
        result = {
            "inputs": {"text": np.arange(count * 3).reshape(count, 3), "more": helper_of_rows.more(count)},
            "labels": {"late": np.arange(count) % 2, "gone": np.arange(count) % 5},
            "ids": [f"c{row}" for row in range(count)],
            "sensitive": {"sex": ["f", "m"] * (count // 2), "part": PARTS * 10},
        }
        return result
"""


@pytest.fixture
def load(tmp_path):
    (tmp_path / "helper_of_rows.py").write_text("def more(count):\n    return [0.5] * count\n")

    def run(body=BODY, **config):
        (tmp_path / "mine.py").write_text(textwrap.dedent(body))
        return load_dataset(DataConfig(**{"source": "mine.py:rows", **config}), tmp_path)

    return run


def returning(text):
    return f"import numpy as np\ndef rows():\n    return {text}\n"


def test_what_the_function_returns(load):
    dataset = load()
    assert dataset.reader.signature() == (TensorSpec("text", (3,), "int64"), TensorSpec("more", (), "float32"))
    assert list(dataset.labels) == ["late", "gone"]
    assert dataset.ids[:2].tolist() == ["c0", "c1"]
    assert dataset.sensitive["sex"][:2].tolist() == ["f", "m"]
    assert dataset.source == "mine.py:rows"
    assert dataset.notes == ()


def test_arguments_and_choices(load):
    dataset = load(
        arguments={"count": 40},
        labels={"default": "gone"},
        sensitive=("sex",),
        split={"by": "column", "column": "part"},
    )
    assert list(dataset.labels) == ["default"]
    assert list(dataset.sensitive) == ["sex"]
    assert dataset.splits["calibration"].tolist() == list(range(1, 40, 4))
    assert set(dataset.splits) == set(SPLITS)


def test_the_least_a_function_returns(load):
    dataset = load(returning('{"inputs": {"x": np.zeros((50, 2))}}'))
    assert dataset.labels == {}
    assert dataset.ids[0] == "row 0"
    assert dataset.notes[0].startswith("rows have no id")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "returned list, not a dictionary"),
        ('{"inputs": {"x": np.zeros(50)}, "label": 1}', "returned an unknown key 'label'"),
        ('{"inputs": np.zeros(50)}', "'inputs' is not a dictionary from name to array"),
        ('{"labels": {"y": np.arange(50)}}', "no array is left for the model's inputs"),
        ('{"inputs": {"x": np.zeros(50)}, "labels": {"y": np.arange(9)}}', "different lengths: x 50, label y 9"),
        ('{"inputs": {"x": [object()] * 50}}', "inputs.x holds Python objects"),
        ('{"inputs": {"x": [[1], [1, 2]]}}', "inputs.x is not an array"),
        ('{"inputs": {"x": np.zeros((0, 3))}}', "no rows"),
    ],
)
def test_what_cannot_be_used(load, text, message):
    with pytest.raises(DataError, match=message) as error:
        load(returning(text))
    assert "mine.py:rows" in error.value.message
    assert error.value.hint


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"label": "lat"}, "data.label: mine.py:rows returned no 'lat'"),
        ({"sensitive": ("age",)}, "data.sensitive: mine.py:rows returned no 'age'"),
        ({"split": {"by": "time", "column": "when"}}, "data.split.column: mine.py:rows returned no 'when'"),
        ({"id": "x"}, "data.id means nothing for mine.py:rows"),
        ({"inputs": {"a": "b"}}, "data.inputs means nothing"),
        ({"arguments": {"rows": 3, "count": "x"}}, "rows failed with TypeError"),
        ({"source": "other.py:rows"}, r"recipe\.toml: data\.source: .*other\.py: No such file"),
        ({"source": "mine.py:row"}, "mine.py has no function 'row'"),
    ],
)
def test_contradictions_in_the_recipe(load, config, message):
    with pytest.raises(DataError, match=message):
        load(**config)


def test_a_function_that_fails(load):
    with pytest.raises(DataError, match=r"rows failed with ZeroDivisionError: division by zero \(.*mine\.py, line 3\)"):
        load(returning("1 / 0"))


def test_missing_values(load):
    body = returning('{"inputs": {"x": np.full((50, 2), np.nan)}, "ids": np.arange(50)}')
    assert load(body, missing=0).notes == ("missing values filled with 0: x 100.",)
    assert np.isnan(load(body).reader.read(np.array([0]))["x"]).all()


SPLITS_BODY = returning(
    '{"inputs": {"x": np.zeros((8, 2))}, "splits": ["train", "calibration", "validation", "test"] * 2}'
)


def test_the_function_may_say_the_split_of_each_row(load):
    dataset = load(SPLITS_BODY, split={"by": "column", "column": "splits"})
    assert {name: rows.tolist() for name, rows in dataset.splits.items()} == {
        "train": [0, 4],
        "calibration": [1, 5],
        "validation": [2, 6],
        "test": [3, 7],
    }


@pytest.mark.parametrize("split", [{}, {"by": "random"}])
def test_splits_are_not_overruled_without_a_word(load, split):
    with pytest.raises(DataError, match=r"deals the rows, but mine\.py:rows returned their splits") as error:
        load(SPLITS_BODY, split=split)
    assert 'data.split.column = "splits"' in error.value.hint


def test_splits_of_another_length(load):
    body = returning('{"inputs": {"x": np.zeros((8, 2))}, "splits": ["test"]}')
    with pytest.raises(DataError, match="different lengths: x 8, split column 1"):
        load(body, split={"by": "column", "column": "splits"})


def test_splits_that_are_asked_for_and_not_returned(load):
    with pytest.raises(DataError, match=r"data\.split\.column: mine\.py:rows returned no 'splits'"):
        load(split={"by": "column", "column": "splits"})

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from compress.data.split import SPLITS, check_disjoint, hash_split, make_splits
from compress.errors import DataError
from compress.recipe import SplitConfig

FRACTIONS = {"train": 0.6, "calibration": 0.1, "validation": 0.1, "test": 0.2}


def ids(rows, start=0):
    return np.array([f"c{row}" for row in range(start, start + rows)])


def sizes(splits):
    return {name: len(rows) for name, rows in splits.items()}


@st.composite
def _cases(draw):
    by = draw(st.sampled_from(["hash", "random", "stratified", "time", "column"]))
    rows = draw(st.integers(min_value=20, max_value=300))
    parts = [draw(st.integers(min_value=least, max_value=8)) for least in (0, 1, 0, 1)]
    fractions = dict(zip(SPLITS, [part / sum(parts) for part in parts], strict=True))
    random = np.random.default_rng(draw(st.integers(min_value=0, max_value=2**32)))
    column = {"time": random.integers(0, 50, rows), "column": random.choice(SPLITS, rows)}.get(by)
    config = SplitConfig(by=by, column=None if column is None else "c", seed=draw(st.integers(0, 9)), **fractions)
    return config, ids(rows), column, random.integers(0, 3, rows)


@given(_cases())
@settings(max_examples=150, deadline=None)
def test_every_method_is_a_partition_and_repeats(case):
    config, row_ids, column, label = case
    try:
        splits = make_splits(config, row_ids, column=column, label=label)
    except DataError as error:
        assume("split is empty" not in error.message)
        raise
    assert tuple(splits) == SPLITS
    assert sorted(np.concatenate(list(splits.values())).tolist()) == list(range(len(row_ids)))
    again = make_splits(config, row_ids, column=column, label=label)
    for name, rows in splits.items():
        assert rows.dtype == np.int64
        assert (np.diff(rows) > 0).all()
        np.testing.assert_array_equal(rows, again[name])


@given(st.integers(30, 200), st.integers(1, 50), st.integers(0, 5), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_a_hash_split_keeps_rows_where_they_are_when_others_come(rows, more, seed, random):
    before = ids(rows)
    after = np.array(random.sample(ids(rows + more).tolist(), rows + more))
    old, new = hash_split(before, FRACTIONS, seed), hash_split(after, FRACTIONS, seed)
    for name in SPLITS:
        assert set(before[old[name]]) == set(after[new[name]]) & set(before)


def test_text_and_whole_number_ids_hash_alike():
    numbers = np.arange(1, 500)
    for name, rows in hash_split(numbers, FRACTIONS, 0).items():
        np.testing.assert_array_equal(rows, hash_split(numbers.astype(str), FRACTIONS, 0)[name])


def test_the_hash_of_an_id_never_changes():
    splits = hash_split(np.arange(100), {"train": 0.5, "test": 0.5}, 7)
    heads = [int(hashlib.sha256(f"7:{row}".encode()).hexdigest()[:16], 16) for row in range(100)]
    assert splits["test"].tolist() == [row for row, head in enumerate(heads) if head >= 2**63]


def test_random_and_stratified_give_exact_sizes():
    label = np.array([1] * 50 + [0] * 950)
    for by in ("random", "stratified"):
        splits = make_splits(SplitConfig(by=by), ids(1000), label=label)
        assert sizes(splits) == {"train": 600, "calibration": 100, "validation": 100, "test": 200}
    assert {name: int(label[rows].sum()) for name, rows in splits.items()} == {
        "train": 30,
        "calibration": 5,
        "validation": 5,
        "test": 10,
    }


@pytest.mark.parametrize("by", ["hash", "random", "stratified"])
def test_another_seed_gives_another_split(by):
    label = np.arange(200) % 2
    first, second = (make_splits(SplitConfig(by=by, seed=seed), ids(200), label=label) for seed in (0, 1))
    assert first["test"].tolist() != second["test"].tolist()


def test_time_trains_on_the_oldest_and_keeps_moments_together():
    random = np.random.default_rng(0)
    months = random.integers(0, 40, 500)
    splits = make_splits(SplitConfig(by="time", column="m"), ids(500), column=months)
    for earlier, later in itertools.pairwise(SPLITS):
        assert months[splits[earlier]].max() < months[splits[later]].min()


@pytest.mark.parametrize(
    "times",
    [
        [f"2024-01-{day:02d}" for day in range(1, 31)],
        [f"2024-01-{day:02d}T10:00:00+02:00" for day in range(1, 31)],
        [str(value) for value in range(80, 110)],
        np.arange(30) + np.datetime64("2024-01-01"),
        np.arange(30) / 7,
    ],
)
def test_time_reads_dates_and_numbers(times):
    order = np.random.default_rng(1).permutation(30)
    splits = make_splits(SplitConfig(by="time", column="t"), ids(30), column=np.array(times)[order])
    assert order[splits["train"]].max() == 17
    assert order[splits["test"]].min() == 24


def test_time_refuses_what_is_no_time():
    config = SplitConfig(by="time", column="t")
    with pytest.raises(DataError, match=r"'t' holds neither numbers nor ISO 8601 dates"):
        make_splits(config, ids(30), column=np.array(["31.01.2024"] * 30))
    with pytest.raises(DataError, match=r"'t' has 1 missing times"):
        make_splits(config, ids(30), column=np.array(["2024-01-01"] * 29 + [""]))
    with pytest.raises(DataError, match=r"'t' has 2 missing times"):
        make_splits(config, ids(30), column=np.array([1.0] * 28 + [np.nan] * 2))


def test_few_distinct_times_cannot_be_split():
    with pytest.raises(DataError, match='the calibration split is empty: 100 rows dealt by "time"') as error:
        make_splits(SplitConfig(by="time", column="year"), ids(100), column=np.repeat([2023, 2024], 50))
    assert "finer time column" in error.value.hint


def test_column_names_the_split():
    names = np.array([*SPLITS, "test"])
    splits = make_splits(SplitConfig(by="column", column="part"), ids(5), column=names)
    assert {name: rows.tolist() for name, rows in splits.items()} == {
        "train": [0],
        "calibration": [1],
        "validation": [2],
        "test": [3, 4],
    }


def test_column_refuses_another_name():
    with pytest.raises(DataError, match=r"'part' says 'testing' in row 1") as error:
        make_splits(SplitConfig(by="column", column="part"), ids(2), column=np.array(["train", "testing"]))
    assert "did you mean 'test'" in error.value.hint


@pytest.mark.parametrize("by", ["random", "stratified"])
def test_three_rows_are_too_few(by):
    with pytest.raises(DataError, match="calibration split is empty: 3 rows") as error:
        make_splits(SplitConfig(by=by), ids(3), label=np.zeros(3, int))
    assert "train 2, calibration 0, validation 0, test 1" in error.value.message


def test_an_empty_test_split_is_refused():
    names = np.array(["train", "calibration"])
    with pytest.raises(DataError, match="the test split is empty: 2 rows"):
        make_splits(SplitConfig(by="column", column="part"), ids(2), column=names)


def test_a_method_without_what_it_needs():
    with pytest.raises(DataError, match="needs a label"):
        make_splits(SplitConfig(by="stratified"), ids(30))
    with pytest.raises(DataError, match="the label holds fractions"):
        make_splits(SplitConfig(by="stratified"), ids(30), label=np.linspace(0, 1, 30))
    with pytest.raises(DataError, match="needs the column 't'"):
        make_splits(SplitConfig(by="time", column="t"), ids(30))
    with pytest.raises(ValueError, match='not with "hash"'):
        SplitConfig(by="hash", column="t")


def test_overlapping_splits_are_found():
    with pytest.raises(DataError, match="overlapping splits: the row with id 'c1' is in train and in test"):
        check_disjoint({"train": np.array([0, 1]), "test": np.array([1, 2])}, ids(3))
    with pytest.raises(DataError, match="overlapping"):
        check_disjoint({"train": np.array([0]), "test": np.array([1])}, np.array(["a", "a"]))
    with pytest.raises(DataError, match="1 of 3 rows are in no split"):
        check_disjoint({"train": np.array([0]), "test": np.array([2])}, ids(3))

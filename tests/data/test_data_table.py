from __future__ import annotations

import gzip
import time
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from compress.data import SPLITS, TensorSpec, check_binary, hash_split, load_dataset
from compress.errors import DataError
from compress.recipe import DataConfig

CREDIT = Path(__file__).parents[2] / "examples" / "credit_default" / "data"
ROWS = 60


def frame(**columns):
    base = {
        "id": [f"c{row}" for row in range(ROWS)],
        "age": np.arange(ROWS) + 18,
        "income": np.linspace(1e3, 9e3, ROWS),
        "y": np.arange(ROWS) % 2,
    }
    return pd.DataFrame({**base, **columns})


@pytest.fixture(params=[".csv", ".csv.gz", ".parquet"])
def load(request, tmp_path):
    def run(table, seed_label=None, **config):
        name = f"rows{request.param}"
        if request.param == ".parquet":
            table.to_parquet(tmp_path / name, index=False)
        else:
            table.to_csv(tmp_path / name, index=False)
        values = {"source": name, "id": "id", "label": "y", **config}
        return load_dataset(DataConfig(**values), tmp_path, seed_label=seed_label)

    return run


def inputs(dataset, name="features"):
    return dataset.reader.read(np.arange(dataset.rows))[name]


def test_the_credit_file():
    config = DataConfig(
        source="taiwan_credit_default.csv.gz",
        label="default.payment.next.month",
        id="ID",
        sensitive=("SEX",),
    )
    load_dataset(config, CREDIT)
    started = time.perf_counter()
    dataset = load_dataset(config, CREDIT)
    assert time.perf_counter() - started < 3
    assert dataset.rows == 30_000
    assert dataset.reader.signature() == (TensorSpec("features", (23,), "float32"),)
    assert dataset.notes == ()
    shares = {name: len(rows) / dataset.rows for name, rows in dataset.splits.items()}
    assert shares == pytest.approx(config.split.fractions, abs=0.01)
    info = dataset.info(check_binary(dataset, None, "recipe.toml"))
    assert sum(info.positives.values()) == 6_636
    raw = pd.read_csv(CREDIT / config.source)
    np.testing.assert_array_equal(inputs(dataset), raw.iloc[:, 1:24].to_numpy(np.float32))
    for name, rows in hash_split(raw["ID"].to_numpy(), config.split.fractions, 0).items():
        np.testing.assert_array_equal(rows, dataset.splits[name])


def test_defaults_take_every_column_that_means_nothing_else(load):
    table = frame(sex=np.arange(ROWS) % 3, part=np.array(SPLITS)[np.arange(ROWS) % 4], extra=1.5)
    dataset = load(table, sensitive=("sex",), drop=("extra",), split={"by": "column", "column": "part"})
    assert dataset.reader.signature() == (TensorSpec("features", (3,), "float32"),)
    np.testing.assert_array_equal(inputs(dataset), table[["age", "income", "sex"]].to_numpy(np.float32))
    np.testing.assert_array_equal(dataset.sensitive["sex"], table["sex"])
    np.testing.assert_array_equal(dataset.labels["y"], table["y"])
    assert dataset.labels["y"].dtype == np.int64
    assert dataset.ids.tolist() == table["id"].tolist()
    assert dataset.splits["validation"].tolist() == list(range(2, ROWS, 4))
    assert dataset.source.startswith("rows.")


def test_features_and_inputs_keep_their_order(load):
    table = frame(flag=np.arange(ROWS) % 3 == 0)
    dataset = load(table, features=("income", "age"))
    np.testing.assert_array_equal(inputs(dataset), table[["income", "age"]].to_numpy(np.float32))
    dataset = load(table, inputs={"wide": ("flag", "age"), "alone": ("age",), "flat": "income"})
    assert dataset.reader.signature() == (
        TensorSpec("wide", (2,), "float32"),
        TensorSpec("alone", (1,), "float32"),
        TensorSpec("flat", (), "float32"),
    )
    np.testing.assert_array_equal(inputs(dataset, "wide")[:, 0], table["flag"].to_numpy(np.float32))
    np.testing.assert_array_equal(inputs(dataset, "flat"), table["income"].to_numpy(np.float32))


def test_categories_become_positions(load):
    region = np.array(["north", "south", "NA"])[np.arange(ROWS) % 3]
    code = np.array([3, 1])[np.arange(ROWS) % 2]
    table = frame(region=region, code=code)
    categories = {"region": ("south", "north", "NA"), "code": ("1", "3")}
    dataset = load(table, features=("region", "code", "age"), categories=categories, sensitive=("region",))
    np.testing.assert_array_equal(inputs(dataset)[:3, :2], [[1, 1], [0, 0], [2, 1]])
    assert dataset.sensitive["region"][:3].tolist() == ["north", "south", "NA"]
    assert dataset.categories == categories


def test_a_missing_category_is_missing(load):
    table = frame(region=["a", None] * (ROWS // 2))
    dataset = load(table, categories={"region": ("a", "b")}, sensitive=("region",))
    assert np.isnan(inputs(dataset)[:, 2]).sum() == ROWS // 2
    assert dataset.sensitive["region"][:2].tolist() == ["a", ""]
    filled = load(table, categories={"region": ("a", "b")}, missing=-1)
    np.testing.assert_array_equal(inputs(filled)[:2, 2], [0, -1])


def test_an_unlisted_category_is_refused(load):
    table = frame(region=["north"] * (ROWS - 1) + ["nort"])
    with pytest.raises(DataError, match=r"'region' of .* holds 'nort' in row 59") as error:
        load(table, categories={"region": ("north", "south")})
    assert "did you mean 'north'? Known: north, south" in error.value.hint
    assert "add it to the end of the list" in error.value.hint
    with pytest.raises(DataError, match="'region' lists 'north' twice"):
        load(table, categories={"region": ("north", "north")})


def test_text_without_categories_is_refused(load):
    with pytest.raises(DataError, match="'region' holds text: 'north', 'south'") as error:
        load(frame(region=["south", "north"] * (ROWS // 2)))
    assert '[data.categories] region = ["north", "south"]' in error.value.hint
    table = frame().assign(**{"home city": [f"city {row:02d}" for row in range(ROWS)]})
    with pytest.raises(DataError, match="'city 09' and 50 more") as error:
        load(table)
    assert '"home city" = ["city 00", ' in error.value.hint


def test_stray_text_among_numbers_is_pointed_at(load):
    values = [str(row) for row in range(ROWS)]
    values[17] = "?"
    with pytest.raises(
        DataError, match=r"'age' holds numbers, but text in 1 of 60 rows, first '\?' in row 17"
    ) as error:
        load(frame(age=values))
    assert "leave them empty" in error.value.hint


def test_dates_are_no_features(load):
    with pytest.raises(DataError, match="'since' holds dates"):
        load(frame(since=pd.date_range("2024-01-01", periods=ROWS)))
    with pytest.raises(DataError, match="'since' holds dates"):
        load(frame(since=[f"{row % 28 + 1}.01.2024" for row in range(ROWS)]))


@pytest.mark.parametrize(("missing", "value"), [("nan", np.nan), (0, 0.0), (-9.5, -9.5)])
def test_missing_values(load, missing, value):
    age = np.arange(ROWS, dtype=float)
    age[[3, 5]] = np.nan
    dataset = load(frame(age=age), missing=missing)
    expected = age.astype(np.float32)
    expected[[3, 5]] = value
    np.testing.assert_array_equal(inputs(dataset)[:, 0], expected)
    treated = "kept as NaN" if missing == "nan" else f"filled with {missing:g}"
    assert dataset.notes == (f"missing values {treated}: age 2.",)


def test_missing_values_refused(load):
    age = np.arange(ROWS, dtype=float)
    age[[3, 5]] = np.nan
    with pytest.raises(DataError, match=r'data.missing = "error": \'age\' of .* has 2 missing values, first in row 3'):
        load(frame(age=age), missing="error")
    assert load(frame(), missing="error").notes == ()


def test_booleans_with_gaps(load):
    dataset = load(frame(flag=pd.array([True, False, None] * (ROWS // 3), dtype="object")))
    np.testing.assert_array_equal(inputs(dataset)[:3, 2], [1, 0, np.nan])


def test_infinite_values_are_refused(load):
    for value in (np.inf, 1e300):
        with pytest.raises(DataError, match="'income' is infinite in float32 in 1 rows, first in row 0"):
            load(frame(income=[value] + [1.0] * (ROWS - 1)))


def test_rounding_is_noted(load):
    dataset = load(frame(income=np.arange(ROWS) + 2**24))
    assert dataset.notes == ("income holds whole numbers above 16,777,216, which float32 rounds.",)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [(np.arange(ROWS) % 2 == 0, np.int64), (np.arange(ROWS) % 3 * 1.0, np.int64), (np.arange(ROWS) / 7, np.float64)],
)
def test_labels(load, values, dtype):
    dataset = load(frame(y=values))
    assert dataset.labels["y"].dtype == dtype
    np.testing.assert_array_equal(dataset.labels["y"], values.astype(dtype))


def test_labels_under_other_names(load):
    dataset = load(frame(z=np.arange(ROWS) % 3), label=None, labels={"late": "y", "grade": "z"})
    assert list(dataset.labels) == ["late", "grade"]
    assert dataset.reader.signature()[0].shape == (2,)


def test_text_labels_are_mapped_by_categories(load):
    table = frame(y=["good", "bad"] * (ROWS // 2))
    with pytest.raises(DataError, match="the label 'y' holds text: 'bad', 'good'") as error:
        load(table)
    assert '[data.categories] y = ["bad", "good"]' in error.value.hint
    dataset = load(table, categories={"y": ("good", "bad")})
    assert dataset.labels["y"][:4].tolist() == [0, 1, 0, 1]
    assert check_binary(dataset, None, "recipe.toml") == "y"
    dataset = load(frame(y=[1, 2] * (ROWS // 2)), categories={"y": ("1", "2")})
    assert dataset.labels["y"][:2].tolist() == [0, 1]


def test_bad_labels(load):
    with pytest.raises(DataError, match="constant label: 'y' is 1 in all 60 rows"):
        load(frame(y=1))
    with pytest.raises(DataError, match=r"the label 'y' is missing in 2 of 60 rows, first in row 0"):
        load(frame(y=[np.nan, np.nan] + [0.0, 1.0] * (ROWS // 2 - 1)))
    with pytest.raises(DataError, match=r"'y' is missing in 1 of 60 rows"):
        load(frame(y=[None, *(["a", "b"] * ROWS)[: ROWS - 1]]), categories={"y": ("a", "b")}, seed_label=None)
    with pytest.raises(DataError, match=r"recipe.toml: data.label: .* has no column 'yy'") as error:
        load(frame(), label="yy")
    assert "did you mean 'y'" in error.value.hint


def test_without_ids_rows_are_positions(load):
    dataset = load(frame().drop(columns="id"), id=None)
    assert dataset.ids[:2].tolist() == ["row 0", "row 1"]
    assert dataset.notes == (
        "rows have no id and are known by their position; the hash split changes when rows are inserted or reordered.",
    )
    assert "hash" not in load(frame().drop(columns="id"), id=None, split={"by": "random"}).notes[0]


def test_bad_ids(load):
    with pytest.raises(DataError, match=r"the id 'c3' occurs twice, in rows 3 and 4"):
        load(frame(id=[f"c{row - (row == 4)}" for row in range(ROWS)]))
    with pytest.raises(DataError, match=r"the id in row 5 .* is missing"):
        load(frame(id=[None if row == 5 else f"c{row}" for row in range(ROWS)]))
    with pytest.raises(DataError, match="longer than 256 characters"):
        load(frame(id=[f"c{row}" + "x" * 256 for row in range(ROWS)]))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"features": ("age", "y")}, "data.features: 'y' is a label; the model would see the answer"),
        ({"inputs": {"x": ("id",)}}, "data.inputs.x: 'id' is the id of the rows"),
        ({"features": ("age",), "drop": ("age",)}, "'age' is also in data.drop"),
        ({"drop": ("y",)}, "data.drop: 'y' is also the label or the id"),
        ({"features": ("age", "age")}, "the input 'features' names 'age' twice"),
        ({"drop": ("age", "income")}, "no column is left for the input 'features'"),
        ({"sensitive": ("sex",)}, "data.sensitive: .* has no column 'sex'"),
        ({"categories": {"agee": ("a",)}}, "data.categories: .* has no column 'agee'"),
        ({"inputs": {"x": "incom"}}, "data.inputs.x: .* has no column 'incom'"),
        ({"split": {"by": "time", "column": "when"}}, "data.split.column: .* has no column 'when'"),
        ({"arguments": {"a": 1}}, "data.arguments means nothing"),
    ],
)
def test_contradictions_in_the_recipe(load, config, message):
    with pytest.raises(DataError, match=message):
        load(frame(), **config)


def test_time_split_of_a_date_column(load):
    when = pd.date_range("2024-01-01", periods=ROWS)[::-1]
    for column in (when, when.tz_localize("UTC"), when.strftime("%Y-%m-%d"), np.arange(ROWS)[::-1]):
        dataset = load(frame(when=column), split={"by": "time", "column": "when"})
        assert dataset.splits["train"].tolist() == list(range(24, 60))
        assert dataset.splits["test"].tolist() == list(range(12))


def test_stratified_split_by_the_named_label(load):
    table = frame(rare=(np.arange(ROWS) % 6 == 0).astype(int))
    config = {"label": None, "labels": {"y": "y", "rare": "rare"}, "split": {"by": "stratified"}}
    with pytest.raises(DataError, match="with several labels: y, rare"):
        load(table, **config)
    dataset = load(table, seed_label="rare", **config)
    assert {name: int(dataset.labels["rare"][rows].sum()) for name, rows in dataset.splits.items()} == {
        "train": 6,
        "calibration": 1,
        "validation": 1,
        "test": 2,
    }
    with pytest.raises(DataError, match=r"task\.label: there is no label 'rar'"):
        load(table, seed_label="rar", **config)


def test_three_rows_are_too_few(load):
    with pytest.raises(DataError, match="split is empty: 3 rows dealt"):
        load(frame().head(3))


def test_equal_tables_have_equal_fingerprints_whatever_the_format(tmp_path):
    table = frame(region=["a", "b"] * (ROWS // 2))
    table.to_csv(tmp_path / "a.csv", index=False)
    table.to_csv(tmp_path / "b.csv.gz", index=False)
    table.to_parquet(tmp_path / "c.parquet", index=False)
    config = {"id": "id", "label": "y", "categories": {"region": ("a", "b")}}
    found = {
        load_dataset(DataConfig(source=name, **config), tmp_path).fingerprint()
        for name in ("a.csv", "b.csv.gz", "c.parquet")
    }
    assert len(found) == 1


def test_parquet_decimals_categories_and_a_stored_index(tmp_path):
    table = frame(amount=[Decimal(f"{row}.25") for row in range(ROWS)], region=pd.Categorical(["a", "b"] * (ROWS // 2)))
    table[table["age"] % 3 > 0].to_parquet(tmp_path / "rows.parquet")
    config = DataConfig(source="rows.parquet", id="id", label="y", categories={"region": ("b", "a")})
    dataset = load_dataset(config, tmp_path)
    np.testing.assert_array_equal(inputs(dataset)[0], np.float32([19, table["income"][1], 1.25, 0]))
    assert dataset.notes == ("the stored pandas index __index_level_0__ is not a feature.",)


def test_parquet_values_that_are_no_numbers(tmp_path):
    frame(parts=[[1, 2]] * ROWS).to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(DataError, match="'parts' holds values of type"):
        load_dataset(DataConfig(source="rows.parquet", id="id", label="y"), tmp_path)


def test_ids_stay_text_in_a_csv(tmp_path):
    lines = ["id,x,y", *(f"{row:04d},{row},{row % 2}" for row in range(ROWS))]
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    dataset = load_dataset(DataConfig(source="rows.csv", id="id", label="y"), tmp_path)
    assert dataset.ids[:2].tolist() == ["0000", "0001"]


def test_a_byte_order_mark_and_windows_lines(tmp_path):
    lines = ["id,x,y", *(f"{row},{row},{row % 2}" for row in range(ROWS)), ""]
    (tmp_path / "rows.csv.gz").write_bytes(gzip.compress("\r\n".join(lines).encode("utf-8-sig")))
    dataset = load_dataset(DataConfig(source="rows.csv.gz", id="id", label="y"), tmp_path)
    assert dataset.rows == ROWS

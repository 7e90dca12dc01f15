"""The example of three risks: its inputs end before the month that its labels are made of."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from compress.data.load import load_dataset
from compress.errors import DataError
from compress.model.factory import build_module
from compress.recipe import Recipe, load_recipe
from compress.userfunction import load_function

EXAMPLES = Path(__file__).parents[2] / "examples"
HERE = EXAMPLES / "credit_multitask"
LATEST = ("PAY_0", "BILL_AMT1", "PAY_AMT1")
# As the README of the example lists them; the status of September is PAY_0, and there is no PAY_1.
INPUTS = (
    *("LIMIT_BAL", "SEX", "EDUCATION", "MARRIAGE", "AGE"),
    *(f"{kind}{month}" for kind in ("PAY_", "BILL_AMT", "PAY_AMT") for month in range(2, 7)),
)
parts = load_function("data.py:parts", HERE, "data.source", DataError)
prepare = load_function("model.py:prepare", HERE, "model.source", DataError)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return pd.read_csv(EXAMPLES / "credit_default" / "data" / "taiwan_credit_default.csv.gz")


@pytest.fixture(scope="module", params=["hard", "soft"])
def recipe(request: pytest.FixtureRequest) -> Recipe:
    return load_recipe(HERE / f"recipe-{request.param}.toml")


def changed(table: pd.DataFrame, column: str) -> pd.DataFrame:
    return table.assign(**{column: 3 * table[column] + 7})


@pytest.mark.parametrize("column", [*LATEST, "default.payment.next.month"])
def test_no_input_moves_when_the_latest_month_does(table: pd.DataFrame, column: str) -> None:
    before, after = parts(table), parts(changed(table, column))
    np.testing.assert_array_equal(before["inputs"]["features"], after["inputs"]["features"])
    moved = {name for name, values in before["labels"].items() if not np.array_equal(values, after["labels"][name])}
    assert (
        moved
        == {
            "PAY_0": {"delinquency"},
            "BILL_AMT1": {"growth"},
            "PAY_AMT1": set(),
            "default.payment.next.month": {"default"},
        }[column]
    )


def test_the_inputs_are_these_columns_in_this_order(table: pd.DataFrame) -> None:
    before = parts(table)["inputs"]["features"]
    assert before.shape == (len(table), 20)
    assert before.dtype == np.float32
    for position, column in enumerate(INPUTS):
        moved = (parts(changed(table.head(50), column))["inputs"]["features"] != before[:50]).any(axis=0)
        assert np.flatnonzero(moved).tolist() == [position]


@pytest.mark.parametrize(
    ("client", "default", "delinquency", "growth"),
    [
        (1, 1, 2, (3913 - 3102) / 20_000),  # PAY_0 is 2
        (2, 1, 0, (2682 - 1725) / 120_000),  # PAY_0 is -1
        (3, 0, 0, (29_239 - 14_027) / 90_000),  # PAY_0 is 0
        (14, 1, 1, (65_802 - 67_369) / 70_000),  # PAY_0 is 1
        (130, 0, 2, (60_521 - 61_450) / 60_000),  # PAY_0 is 3
        (206, 0, 0, -1.0),  # from 20,351 to 227 at a limit of 20,000
        (233, 0, 0, 1.0),  # from 0 to 102,800 at a limit of 50,000
    ],
)
def test_labels_of_clients_looked_up_by_hand(
    table: pd.DataFrame, client: int, default: int, delinquency: int, growth: float
) -> None:
    row = parts(table[table["ID"] == client])
    found = {name: values.tolist() for name, values in row["labels"].items()}
    assert found == {"default": [default], "delinquency": [delinquency], "growth": [pytest.approx(growth)]}


def test_a_client_has_the_split_that_it_has_in_the_other_example(recipe: Recipe) -> None:
    mine = load_dataset(recipe.data, HERE)
    other = load_dataset(load_recipe(EXAMPLES / "credit_default" / "recipe.toml").data, EXAMPLES / "credit_default")
    sizes = {"train": 18_070, "calibration": 2_908, "validation": 3_010, "test": 6_012}
    assert {name: len(mine.split(name)) for name in sizes} == sizes
    assert len(np.unique(np.concatenate([mine.ids[mine.split(name)] for name in sizes]))) == 30_000
    for name in sizes:
        np.testing.assert_array_equal(mine.ids[mine.split(name)], other.ids[other.split(name)])
    assert set(mine.sensitive) == {"SEX", "AGE"}


def test_the_recipes_differ_in_the_sharing_only() -> None:
    def read(sharing: str) -> dict[str, Any]:
        content = tomllib.loads((HERE / f"recipe-{sharing}.toml").read_text(encoding="utf-8"))
        assert content.pop("name") == f"risks-{sharing}"
        assert content["model"].pop("weights") == f"{sharing}.safetensors"
        assert content["model"].pop("arguments") == {"sharing": sharing}
        return content

    assert read("hard") == read("soft")


def test_a_file_that_is_not_there_is_named() -> None:
    rows = load_function("data.py:rows", HERE, "data.source", DataError)
    with pytest.raises(DataError, match=r"nowhere\.csv: cannot be read"):
        rows("nowhere.csv")


def test_the_checkpoint_ranks_defaults_and_answers_for_missing_values(recipe: Recipe, table: pd.DataFrame) -> None:
    model = build_module(recipe.model, HERE)
    assert (
        sum(parameter.numel() for parameter in model.parameters())
        == {"hard": 46_085, "soft": 136_965}[recipe.model.arguments["sharing"]]
    )
    dataset = load_dataset(recipe.data, HERE)
    members = dataset.split("validation")
    features = torch.tensor(dataset.reader.read(members)["features"])
    late = dataset.label("delinquency")[members] > 0
    with torch.no_grad():
        outputs = model(features)
        unknown = model(torch.full((2, 20), torch.nan))
    assert {name: values.shape[1] for name, values in outputs.items()} == {"default": 1, "delinquency": 3, "growth": 1}
    assert all(torch.isfinite(values).all() for values in [*outputs.values(), *unknown.values()])
    on_time = outputs["delinquency"].softmax(dim=1)[:, 0].numpy()
    assert on_time[~late].mean() - on_time[late].mean() > 0.4
    assert np.corrcoef(outputs["growth"][:, 0], dataset.label("growth")[members])[0, 1] > 0.5
    defaulted = dataset.label("default")[members] == 1
    log_odds = outputs["default"][:, 0].numpy()
    assert log_odds[defaulted].mean() - log_odds[~defaulted].mean() > 0.5


def test_flags_of_codes_and_months_late() -> None:
    row = torch.tensor([100.0, 2, 1, 0, 30, -2, -1, 0, 3, torch.nan, *[0.0] * 10])[None]
    prepared = prepare(row)[0]
    assert prepared.shape == (48,)
    assert prepared[2:8].tolist() == [1, 1, 0, 0, 0, 0]  # female; graduate school; an undocumented civil status
    assert prepared[8:23].reshape(3, 5).tolist() == [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 1, 0, 0]]
    assert prepared[23:28].tolist() == [0, 0, 0, 3, 0]

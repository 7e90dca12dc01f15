"""`edge-compress init`: the recipe that it writes is valid, commented, and runs."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from cli_command import Command, Said
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_project import FEATURES, Project, tree

from compress.cli import init
from compress.recipe import Recipe, load_recipe
from compress.schema import validate
from compress.workflow.build import open_model
from compress.workflow.holdout import take_holdout
from compress.workflow.plan import load_rows, make_plan
from compress.workflow.progress import Silent

BASE = ("--weights", "weights.safetensors", "--data", "rows.csv", "--label", "defaulted")


def start(command: Command, project: Project, *arguments: object, model: str = "model.py:build") -> Said:
    project.recipe.unlink(missing_ok=True)
    return command("init", model, *arguments, folder=project.folder)


def ready(path: Path) -> Any:
    """Takes a recipe as far as a run does before anything is lowered."""
    plan = make_plan(load_recipe(path), path.parent, str(path))
    dataset, labels = load_rows(plan)
    models = open_model(plan, dataset, Silent())
    return models, take_holdout(models, labels, plan)


def test_the_recipe_that_it_writes_is_ready_to_run(project: Project, command: Command) -> None:
    said = start(command, project, *BASE, "--id", "customer", "--drop", "group", "--sensitive", "group")
    assert said.code == 0
    assert said.out == "wrote recipe.toml\nnext: edge-compress run recipe.toml\n"
    recipe = load_recipe(project.recipe)
    assert recipe.targets == ("onnxruntime-cpu", "litert-cpu")
    assert recipe.data.id == "customer" and recipe.data.sensitive == ("group",)
    assert (recipe.task.output, recipe.task.link) == ("logit", "logit")
    models, _ = ready(project.recipe)
    assert models.original.signature.inputs[0].shape == (len(FEATURES),)
    text = project.recipe.read_text(encoding="utf-8")
    assert text.count("#") >= 12
    assert "# 900 rows, " in text


def test_what_it_does_not_say_is_the_default(project: Project, command: Command) -> None:
    start(command, project, *BASE, "--drop", "group", "--drop", "customer", "--target", "onnxruntime-cpu")
    written = load_recipe(project.recipe)
    values = {
        "schema": 1,
        "name": "model",
        "targets": ["onnxruntime-cpu"],
        "model": {"source": "model.py:build", "weights": "weights.safetensors"},
        "data": {"source": "rows.csv", "label": "defaulted", "drop": ["group", "customer"]},
        "task": {"output": "logit", "link": "logit"},
    }
    assert written == validate(Recipe, values, "expected")


def test_a_written_recipe_runs(finished: Project, command: Command) -> None:
    # The steps of an earlier run are reused, so this takes no time.
    said = command(
        *("init", "model.py:build", *BASE, "--id", "customer", "--drop", "group", "--sensitive", "group"),
        *("--target", "onnxruntime-cpu", "--out", "recipe.toml", "--force"),
        folder=finished.folder,
    )
    assert said.code == 0
    text = finished.recipe.read_text(encoding="utf-8").replace('name = "model"', 'name = "tiny"')
    finished.recipe.write_text(text + "\n[measure]\npairs = 5\nmax_pairs = 5\nseconds = 0.02\nresamples = 200\n")
    outcome = finished.run()
    assert outcome.exit_code in (0, 3)
    assert outcome.made == 0


def test_a_function_without_weights_is_pointed_out(project: Project, command: Command) -> None:
    arguments = ("--data", "rows.csv", "--label", "defaulted", "--drop", "group", "--drop", "customer")
    said = start(command, project, *arguments)
    assert said.code == 0
    assert "check: without --weights the model is what the function returns" in said.out
    assert '\n# weights = "model.safetensors"\n' in project.recipe.read_text(encoding="utf-8")
    # Weights that are drawn are drawn alike each time, so that a second run finds the steps of the first.
    assert ready(project.recipe)[0].original.digest == ready(project.recipe)[0].original.digest


def test_a_file_that_is_no_model_is_told_with_the_remedy(project: Project, command: Command) -> None:
    said = start(command, project, "--data", "rows.csv", "--label", "defaulted", model="model.py")
    assert said.code == 2
    assert "name the function that builds the model: model.py:FUNCTION" in said.err


def test_text_columns_become_categories(project: Project, command: Command) -> None:
    frame = pd.read_csv(project.folder / "rows.csv")
    frame["late"] = frame["late"].round().clip(-1, 1).map({-1.0: "nie", 0.0: 'ab "und" zu', 1.0: "öfter"})
    frame.to_csv(project.folder / "rows.csv", index=False)
    said = start(command, project, *BASE, "--drop", "group", "--drop", "customer")
    assert said.code == 0
    assert "check: the order of the values in [data.categories] (late)" in said.out
    assert load_recipe(project.recipe).data.categories == {"late": ('ab "und" zu', "nie", "öfter")}
    ready(project.recipe)


def test_text_that_only_looks_missing_stays_missing(project: Project, command: Command) -> None:
    frame = pd.read_csv(project.folder / "rows.csv")
    frame["late"] = ["NA", "None", "", "yes"] * 225
    frame.to_csv(project.folder / "rows.csv", index=False)
    text = (project.folder / "model.py").read_text()
    project.write("model.py", text.replace("first(features)", "first(features.nan_to_num())"))
    said = start(command, project, *BASE, "--drop", "group", "--drop", "customer")
    assert load_recipe(project.recipe).data.categories == {"late": ("yes",)}, said.err


def test_text_with_a_value_for_every_row_is_no_category(project: Project, command: Command) -> None:
    frame = pd.read_csv(project.folder / "rows.csv")
    frame["full name"] = [f"person {row}" for row in range(len(frame))]
    frame.to_csv(project.folder / "rows.csv", index=False)
    said = start(command, project, *BASE)
    assert said.code == 2
    assert "'full name' holds text, 900 different values in 900 rows" in said.err
    assert "--drop 'full name'" in said.err
    assert not project.recipe.exists()


def test_columns_that_are_broken_are_not_made_categories(project: Project, command: Command) -> None:
    frame = pd.read_csv(project.folder / "rows.csv").astype({"debt": object})
    frame.loc[5, "debt"] = "oops"
    frame["seen"] = "2024-01-31"
    frame.to_csv(project.folder / "rows.csv", index=False)
    said = start(command, project, *BASE, "--drop", "seen")
    assert said.code == 2
    assert "'debt' holds numbers, but text in 1 of 900 rows, first 'oops'" in said.err
    said = start(command, project, *BASE, "--drop", "debt")
    assert said.code == 2
    assert "'seen' holds dates or times" in said.err


def test_it_does_not_replace_a_recipe(project: Project, command: Command) -> None:
    before = project.recipe.read_bytes()
    said = command("init", "model.py:build", *BASE, folder=project.folder)
    assert said.code == 2
    assert "recipe.toml: is there already" in said.err and "--force" in said.err
    assert project.recipe.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", "nope.csv", "--label", "defaulted"), "there is no file"),
        (("--data", "rows.csv", "--label", "default"), "did you mean 'defaulted'?"),
        (("--data", "rows.csv", "--label", "income"), "a binary task needs a label of 0 and 1"),
        (("--data", "rows.csv", "--label", "defaulted", "--drop", "gruop"), "did you mean 'group'?"),
        (("--data", "rows.csv", "--label", "defaulted"), "does not export"),
        (("--data", "rows.csv", "--label", "defaulted", "--weights", "no.safetensors"), "no.safetensors"),
        (("--data", "rows.csv", "--label", "defaulted", "--target", "moon"), "there is no target 'moon'"),
        (("--data", "model.py:build", "--label", "defaulted"), "returned Scorer, not a dictionary"),
    ],
)
def test_with_bad_data_or_a_bad_model_nothing_is_written(
    project: Project, command: Command, arguments: tuple[str, ...], message: str
) -> None:
    project.recipe.unlink()
    before = {name for name in tree(project.folder) if "__pycache__" not in name}
    said = start(command, project, *arguments)
    assert (said.code, said.out) == (2, "")
    assert message in said.err
    assert "Traceback" not in said.err
    assert {name for name in tree(project.folder) if "__pycache__" not in name} == before


def test_paths_with_spaces_and_other_scripts(project: Project, command: Command, tmp_path: Path) -> None:
    (tmp_path / "a folder").mkdir()
    odd = project.copy_to(tmp_path / "mein Prüf-Ordner [1] 'x' 信用")
    said = command(
        *("init", odd.folder / "model.py:build", "--weights", odd.folder / "weights.safetensors"),
        *("--data", odd.folder / "rows.csv", "--label", "defaulted", "--id", "customer", "--drop", "group"),
        *("--out", "a folder/my recipe.toml"),
        folder=tmp_path,
    )
    assert said.code == 0
    assert "next: edge-compress run 'a folder/my recipe.toml'" in said.out
    recipe = load_recipe(tmp_path / "a folder" / "my recipe.toml")
    assert recipe.model.source == f"../{odd.folder.name}/model.py:build"
    ready(tmp_path / "a folder" / "my recipe.toml")


def test_a_folder_that_is_not_there_is_not_made(project: Project, command: Command) -> None:
    said = start(command, project, *BASE, "--out", "nowhere/recipe.toml")
    assert said.code == 2
    assert "there is no folder nowhere" in said.err
    assert not (project.folder / "nowhere").exists()


def test_a_recipe_behind_a_link_finds_its_files(project: Project, command: Command, tmp_path: Path) -> None:
    (tmp_path / "deep" / "deeper").mkdir(parents=True)
    (project.folder / "link").symlink_to(tmp_path / "deep" / "deeper")
    said = start(command, project, *BASE, "--drop", "group", "--drop", "customer", "--out", "link/recipe.toml")
    assert said.code == 0
    ready(project.folder / "link" / "recipe.toml")


def test_odd_column_names(project: Project, command: Command) -> None:
    names = {
        "age": "the.age",
        "debt": 'a "quoted" debt',
        "late": "two\nlines",
        "limit": "#limit = [1]",
        "months": "信用",
    }
    frame = pd.read_csv(project.folder / "rows.csv").rename(columns=names)
    frame["two\nlines"] = frame["two\nlines"].gt(0).map({True: "a\tb\\", False: "\x7f'''"})
    frame = frame.rename(columns={"defaulted": "is it [y]?", "group": "group\x7f"})
    frame.to_csv(project.folder / "rows.csv", index=False)
    said = start(
        command,
        project,
        *("--weights", "weights.safetensors", "--data", "rows.csv", "--label", "is it [y]?"),
        *("--drop", "group\x7f", "--sensitive", "group\x7f", "--id", "customer"),
    )
    assert said.code == 0, said.err
    recipe = load_recipe(project.recipe)
    assert recipe.data.label == "is it [y]?"
    assert recipe.data.drop == ("group\x7f",)
    assert recipe.data.categories == {"two\nlines": ("a\tb\\", "\x7f'''")}
    ready(project.recipe)


def test_of_several_outputs_one_is_guessed_and_said(project: Project, command: Command) -> None:
    text = (project.folder / "model.py").read_text()
    project.write("model.py", text.replace('"logit": ', '"mean": hidden.mean(1), "logit": '))
    said = start(command, project, *BASE, "--drop", "group", "--drop", "customer")
    assert said.code == 0
    assert "check: task.output = 'mean' is a guess; the model's outputs are mean, logit" in said.out
    assert load_recipe(project.recipe).task.output == "mean"
    assert '# The model\'s outputs: ["mean", "logit"]. The first is a guess.' in project.recipe.read_text()


names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)


@settings(max_examples=60, deadline=None)
@given(
    source=names,
    label=names,
    row_id=st.none() | names,
    drop=st.lists(names, max_size=3),
    categories=st.dictionaries(names, st.lists(names, max_size=3), max_size=3),
    outputs=st.lists(names, min_size=1, max_size=3),
)
def test_whatever_names_hold_the_text_is_toml_that_says_them(
    source: str,
    label: str,
    row_id: str | None,
    drop: list[str],
    categories: dict[str, list[str]],
    outputs: list[str],
) -> None:
    data: dict[str, Any] = {"source": source, "label": label}
    data |= {"id": row_id} if row_id else {}
    data |= {"drop": drop} if drop else {}
    data |= {"categories": categories} if categories else {}
    values = {"name": "model", "targets": ["onnxruntime-cpu"], "model": {"source": "model.py:build"}, "data": data}
    read = tomllib.loads(init._text(values, outputs, outputs[0], "logit", "9 rows"))
    assert read["data"] == {**data, "split": read["data"]["split"]}
    assert read["task"]["output"] == outputs[0]

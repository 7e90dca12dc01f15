"""`edge-compress run` and `compress-and-export`: flags, JSON, the resolved recipe, what the user reads at the end."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from cli_command import Command
from tiny_project import Project, check_whole, environment, program, tree

from compress import cli
from compress.evidence import Evidence, Parity, from_json
from compress.recipe import Recipe
from compress.workflow import measure
from compress.workflow import run as running

GOLDEN = Path(__file__).parent / "golden"


def check_golden(name: str, text: str) -> None:
    """Compares text with what is committed; figures differ from machine to machine, so each becomes a #."""
    # What is said beside the table hangs on figures as well; the tests of the report hold its words.
    text = re.sub(r"\nnotes\n(.+\n)+", "", text)
    text = re.sub(r"[-+]?\d[\d,]*(\.\d+)?", "#", text)
    text = "\n".join(re.sub(r"[ ─]{2,}", "  ", line).rstrip() for line in text.splitlines()) + "\n"
    path = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN") == "1":
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that nothing disturbs."""
    real = running.environment
    monkeypatch.setattr(running, "environment", lambda packages: replace(real(packages), warnings=()))


@pytest.mark.usefixtures("canned_latency", "steady")
def test_what_a_run_ends_with(project: Project, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    # Wide enough that no line is broken where a figure happens to end.
    monkeypatch.setenv("COLUMNS", "300")
    # How close an artifact comes to the graph, down to not at all different, is a matter of the processor.
    close = Parity("graph", 180, "logit", max_abs=0.01, sqnr_db=40.0, label_agreement=1.0, reference_range=9.0)
    monkeypatch.setattr(measure, "parity", lambda *_, **__: (close,))
    project.change(schemes=["float32", "int8-static"])
    said = command("run", "recipe.toml", folder=project.folder)
    assert said.code == 0
    check_golden("run.txt", said.out)
    assert re.search(r"\d\.\d s  lowering to onnxruntime, float32\n", said.err)
    again = command("run", "recipe.toml", folder=project.folder)
    assert again.code == 0
    check_golden("run_again.txt", "\n".join(again.out.splitlines()[-4:]))
    # The table is the same: it is read back, not measured.
    assert again.out.splitlines()[:-4] == said.out.splitlines()[:-4]


@pytest.mark.usefixtures("steady")
def test_a_failed_gate_is_told_and_exits_1(finished: Project, command: Command) -> None:
    finished.write("phone.toml", 'schema = 1\nruntime = "onnxruntime"\ncpu = "any"\n[budgets]\nsize_bytes = 10\n')
    finished.change(targets=["phone.toml"], schemes=["float32", "int8-static", "int8-dynamic"])
    said = command("run", "recipe.toml", folder=finished.folder)
    assert said.code == 1
    assert "ships: nothing" in said.out
    assert "FAIL: " in said.out
    assert "ships on" not in said.out
    check_whole(finished.out)


def test_json_is_all_that_is_printed(finished: Project) -> None:
    ended = subprocess.run(
        program("run", "recipe.toml", "--json"),
        cwd=finished.folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0
    assert from_json(Evidence, ended.stdout) == finished.evidence()
    assert json.loads(ended.stdout)["schema"] == 1
    assert "exporting the model" in ended.stderr


def test_an_error_with_json_prints_nothing_on_stdout(finished: Project, command: Command) -> None:
    finished.change(data={"label": "nope"})
    said = command("run", "recipe.toml", "--json", folder=finished.folder)
    assert (said.code, said.out) == (2, "")
    assert "has no column 'nope'" in said.err


def test_the_resolved_recipe_is_a_recipe(project: Project, command: Command) -> None:
    project.change(
        passes=[{"kind": "fold_batch_norm", "allow_no_change": True, "extra": 3}],
        scheme={"careful": {"base": "int8-static", "exclude": ["head"]}},
    )
    said = command("run", "recipe.toml", "--print-recipe", folder=project.folder)
    assert (said.code, said.err) == (0, "")
    assert Recipe.model_validate(json.loads(said.out)) == project.load()
    assert not project.out.exists()


def test_flags_replace_what_the_recipe_says(project: Project, command: Command) -> None:
    said = command(
        *("run", project.recipe, "--print-recipe", "--label", "group", "--drop", "defaulted", "--drop", "age"),
        *("--scheme", "float16", "--target", "litert-cpu", "--seed", 7, "--cutoff", 0.3, "--link", "logit"),
        *("--name", "other", "--weights", "here.safetensors", "--data", "gen.py:rows"),
        *("--output", "logit", "--id", "x"),
        folder=project.folder.parent,
    )
    assert said.code == 0
    values = json.loads(said.out)
    assert values["data"]["label"] == "group"
    assert values["data"]["drop"] == ["defaulted", "age"]
    assert values["data"]["id"] == "x"
    assert values["schemes"] == ["float16"]
    assert values["targets"] == ["litert-cpu"]
    assert (values["seed"], values["name"]) == (7, "other")
    assert values["task"] | {"output": "logit", "link": "logit", "cutoff": 0.3} == values["task"]
    # A path is relative to where it was typed, not to the recipe.
    assert values["model"]["weights"] == str(project.folder.parent / "here.safetensors")
    assert values["data"]["source"] == f"{project.folder.parent}/gen.py:rows"
    assert values["model"]["source"] == "model.py:build"


def test_a_flag_into_what_is_no_table_is_a_recipe_error(project: Project, command: Command) -> None:
    project.recipe.write_text('schema = 1\nmodel = "model.py:build"\ndata = 3\ntargets = ["onnxruntime-cpu"]\n')
    said = command("run", "recipe.toml", "--label", "defaulted", folder=project.folder)
    assert said.code == 2
    assert "recipe.toml: model" in said.err


@pytest.mark.usefixtures("canned_latency", "steady")
def test_a_model_is_compressed_and_exported_in_one_go(project: Project, command: Command) -> None:
    said = command(
        *("model.py:build", "--weights", "weights.safetensors", "--data", "rows.csv", "--label", "defaulted"),
        *("--id", "customer", "--drop", "group", "--target", "onnxruntime-cpu", "--scheme", "int8-dynamic"),
        *("--out", "dist"),
        folder=project.folder,
        entry=cli.compress_and_export,
    )
    # What ships passed, or nothing was told apart; both are results.
    assert said.code in (0, 3)
    manifest = check_whole(project.folder / "dist")
    assert manifest["recipe"]["model"]["source"] == "model.py:build"
    assert {path.name for path in (project.folder / "dist" / "artifacts").iterdir()} == {
        "model.onnxruntime-cpu.float32.onnx",
        "model.onnxruntime-cpu.int8-dynamic.onnx",
    }
    assert "report:    dist/report.html" in said.out


def test_another_model_does_not_take_over_the_folder(project: Project, command: Command) -> None:
    from compress.store.outdir import OutputFolder

    with OutputFolder(project.folder / "dist", "model (../model.py:build)").claimed():
        pass
    before = tree(project.folder / "dist")
    project.write("other.py", (project.folder / "model.py").read_text())
    said = command(
        *("run", "other.py:build", "--name", "model", "--data", "rows.csv", "--label", "defaulted"),
        *("--drop", "group", "--drop", "customer", "--target", "onnxruntime-cpu"),
        folder=project.folder,
    )
    assert said.code == 2
    assert "belongs to another recipe (model (../model.py:build))" in said.err
    assert tree(project.folder / "dist") == before


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (("model.py:build",), "--data is missing: 'model.py:build' is a model", "edge-compress init model.py:build"),
        (("model.py:build", "--data", "rows.csv"), "--label is missing", "give --label"),
        (("my model.py:build",), "--data is missing", "init 'my model.py:build' --data"),
        (("model.onnx",), "--data is missing: 'model.onnx' is a model", "init model.onnx --data"),
        (("model.py",), "'model.py' is neither a recipe (.toml) nor a model", "model.py:FUNCTION"),
        (("recipe",), "'recipe' is neither a recipe", "edge-compress init file.py:function"),
        (("rows.csv",), "'rows.csv' is neither a recipe", "edge-compress init"),
        (("no.toml",), "no.toml: No such file or directory", "check the path"),
    ],
)
def test_what_is_no_recipe(
    project: Project, command: Command, arguments: tuple[str, ...], message: str, hint: str
) -> None:
    said = command("run", *arguments, folder=project.folder)
    assert (said.code, said.out) == (2, "")
    assert message in said.err and hint in said.err


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("model.py:build", "model"),
        ("my model (2).py:build", "my-model--2"),
        ("modèle.py:build", "mod-le"),
        ("deep/er/x.pt2", "x"),
        ("package.scoring:build", "package-scoring"),
        ("__.py:build", "model"),
    ],
)
def test_a_model_gives_its_artifacts_a_name(command: Command, tmp_path: Path, source: str, name: str) -> None:
    said = command("run", source, "--data", "x.csv", "--label", "y", "--print-recipe", folder=tmp_path)
    assert (said.code, said.err) == (0, "")
    assert json.loads(said.out)["name"] == name


@pytest.mark.usefixtures("steady")
def test_brackets_in_a_path_are_no_markup(finished: Project, command: Command) -> None:
    odd = finished.copy_to(finished.folder.parent / "[red]odd [/x]")
    said = command("run", odd.recipe, folder=finished.folder)
    assert said.code == 0
    assert f"report:    {odd.out}/report.html" in said.out


def test_what_a_terminal_cannot_show_is_left_out(finished: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii", write_through=True))
    monkeypatch.chdir(finished.folder)
    with pytest.raises(SystemExit) as ended:
        cli.main(["run", "recipe.toml"])
    assert ended.value.code == 0
    assert b"\x1b" not in raw.getvalue()
    assert "PASS: all" in raw.getvalue().decode("ascii")

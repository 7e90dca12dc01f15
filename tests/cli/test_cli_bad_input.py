"""Bad input: exit code 2, a message that names file, key, value and remedy, no traceback, and nothing written."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from cli_command import Command, Said
from safetensors.torch import load_file, save_file
from tiny_project import Project, check_whole, environment, program, tree

from compress.store.outdir import OutputFolder

Refused = Callable[..., str]


def check_refused(said: Said, *expected: str) -> str:
    assert said.code == 2, said
    assert said.out == ""
    assert "Traceback" not in said.err
    lines = [line for line in said.err.splitlines() if line.startswith(("error: ", "hint: "))]
    # One message and one remedy.
    assert [line.partition(":")[0] for line in lines] == ["error", "hint"], said.err
    text = said.err[said.err.index("error: ") :]
    for part in expected:
        assert part in text, text
    return text


@pytest.fixture
def refused(project: Project, command: Command) -> Refused:
    """Runs the project's recipe and checks that it is refused with these words, and that no folder was made."""

    def check(*expected: str) -> str:
        text = check_refused(command("run", "recipe.toml", folder=project.folder), *expected)
        assert not project.out.exists()
        return text

    return check


# The model


def test_a_whole_pickled_model_is_refused_with_how_to_convert_it(project: Project, refused: Refused) -> None:
    torch.save(torch.nn.Linear(6, 1), project.folder / "weights.pth")
    project.change(model={"weights": "weights.pth"})
    text = refused("weights.pth", "Linear")
    assert "state_dict" in text


class Canary:
    """Would create a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (open, (str(self.path), "w"))


def test_a_pickle_that_runs_code_is_not_loaded(project: Project, refused: Refused) -> None:
    canary = project.folder / "canary"
    (project.folder / "weights.pth").write_bytes(pickle.dumps(Canary(canary)))
    project.change(model={"weights": "weights.pth"})
    refused("weights.pth")
    assert not canary.exists()


def test_a_pt2_that_runs_code_is_not_loaded(project: Project, refused: Refused) -> None:
    canary = project.folder / "canary"
    program = torch.export.export(torch.nn.Linear(6, 1).eval(), (torch.zeros(2, 6),))
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    with zipfile.ZipFile(buffer) as archive, zipfile.ZipFile(project.folder / "model.pt2", "w") as crafted:
        for entry in archive.infolist():
            data = archive.read(entry)
            if entry.filename.endswith("model.json"):
                graph = json.loads(data)
                graph["range_constraints"] = {f"open({str(canary)!r}, 'w')": {"min_val": 2, "max_val": 4}}
                data = json.dumps(graph).encode()
            crafted.writestr(entry, data)
        crafted.writestr("archive/data/constants/custom_obj_0", pickle.dumps(Canary(canary)))
    project.change(model={"source": "model.pt2", "weights": None})
    refused("model.pt2")
    assert not canary.exists()


@pytest.mark.parametrize("ending", [".pt2", ".safetensors", ".pth", ".onnx", ".tflite"])
@pytest.mark.parametrize("content", [b"", b"\x00\x01garbage" * 50, b"PK\x03\x04 cut off"])
def test_files_that_are_no_models(project: Project, refused: Refused, ending: str, content: bytes) -> None:
    (project.folder / f"file{ending}").write_bytes(content)
    if ending in (".safetensors", ".pth"):
        project.change(model={"weights": f"file{ending}"})
    else:
        project.change(model={"source": f"file{ending}", "weights": None})
    refused(f"file{ending}")


MODELS = """
import torch
from torch import nn


def raises():
    raise RuntimeError("the licence server is down")


def number():
    return 3


def forgets_to_return():
    nn.Linear(6, 1)


class Branches(nn.Module):
    def forward(self, features):
        if features.sum() > 0:
            return {"logit": features[:, 0]}
        return {"logit": -features[:, 0]}


def branches():
    return Branches()


class Drops(nn.Module):
    def forward(self, features):
        return {"logit": nn.functional.dropout(features, 0.5, True)[:, 0]}


def drops():
    return Drops()


class Pools(nn.Module):
    def forward(self, features):
        return {"logit": features.mean()}


def pools():
    return Pools()


class Root(nn.Module):
    def forward(self, features):
        return {"logit": features[:, 0].log()}


def root():
    return Root()


class Two(nn.Module):
    def forward(self, numbers, codes):
        return {"logit": numbers[:, 0] + codes[:, 0]}


def two():
    return Two()


value = 3
"""


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("models.py:raises", ["model.source", "RuntimeError: the licence server is down", "models.py, line 7"]),
        ("models.py:missing", ["model.source", "has no function 'missing'", "branches"]),
        ("models.py:value", ["model.source", "'value' of models.py is of type int, not a function"]),
        ("models.py:number", ["model.source", "returned a int, not a torch.nn.Module"]),
        ("models.py:forgets_to_return", ["model.source", "returned a NoneType"]),
        ("model.py:build", ["model.source", "No such file", "did you mean 'models.py'"]),
        ("models:build", ["model.source", "models has no function 'build'"]),
        ("nowhere.models:build", ["model.source", "no module 'nowhere'"]),
        ("syntax.py:build", ["model.source", "SyntaxError", "syntax.py, line 1"]),
        ("models.py:", ["model.source", "'models.py:' names no function"]),
        ("models.py", ["model.source", "models.py", "file.py:function"]),
        ("missing.pt2", ["missing.pt2"]),
        ("rows.csv", ["model.source", "rows.csv is not a source that can be compressed"]),
        ("models.py:branches", ["models.py:branches: the model does not export", "if features.sum() > 0"]),
        ("models.py:drops", ["models.py:drops", "in training form"]),
        ("models.py:pools", ["models.py:pools", "not one row for each row of input"]),
        ("models.py:root", ["recipe.toml: the model's output 'logit'", "rows are NaN or infinite"]),
        ("models.py:two", ["models.py:two", "codes, numbers"]),
    ],
)
def test_factories_that_give_no_model(project: Project, refused: Refused, source: str, expected: list[str]) -> None:
    (project.folder / "model.py").unlink()
    project.write("models.py", MODELS)
    project.write("syntax.py", "def build(:\n")
    project.change(model={"source": source, "weights": None})
    refused(*expected)


def test_arguments_that_the_factory_does_not_take(project: Project, refused: Refused) -> None:
    project.change(model={"arguments": {"widht": 16}})
    refused("model.source", "'widht'", "build(width=16)")


def test_weights_that_do_not_fit_name_the_keys(project: Project, refused: Refused) -> None:
    weights = load_file(project.folder / "weights.safetensors")
    weights["first.weight"] = torch.zeros(16, 7)
    weights["last.bias"] = weights.pop("head.bias")
    save_file(weights, project.folder / "weights.safetensors")
    refused(
        "weights.safetensors: the weights do not fit",
        "missing: head.bias",
        "unknown to the model: last.bias",
        "first.weight is (16, 7), the model wants (16, 6)",
    )


def test_weights_of_another_width(project: Project, refused: Refused) -> None:
    project.change(model={"arguments": {"width": 8}})
    refused("first.weight is (16, 6), the model wants (8, 6)", "model.arguments")


def test_weights_that_are_missing(project: Project, refused: Refused) -> None:
    project.change(model={"weights": "weihgts.safetensors"})
    refused("weihgts.safetensors")


def test_a_column_too_many(project: Project, refused: Refused) -> None:
    # The classic: a column that is no feature was not dropped.
    project.change(data={"drop": []})
    refused("model.py:build", "7")
    # In a process of its own, where torch would log its traceback to the terminal.
    ended = subprocess.run(
        program("run", "recipe.toml"),
        cwd=project.folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    check_refused(Said(ended.returncode, ended.stdout, ended.stderr), "model.py:build", "7")


# The data


def change_rows(project: Project, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    change(pd.read_csv(project.folder / "rows.csv")).to_csv(project.folder / "rows.csv", index=False)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"label": "defaulte"}, ["recipe.toml: data.label", "no column 'defaulte'", "did you mean 'defaulted'"]),
        ({"label": "income"}, ["a binary task needs a label of 0 and 1; 'income'"]),
        ({"label": None}, ["recipe.toml: data names no label", "set data.label"]),
        ({"id": "costumer"}, ["recipe.toml: data.id", "no column 'costumer'", "did you mean 'customer'"]),
        ({"id": "group", "drop": [], "sensitive": []}, ["the id '1' occurs twice"]),
        ({"features": ["income", "dept"]}, ["data.features", "no column 'dept'", "did you mean 'debt'"]),
        ({"drop": ["grupo"]}, ["data.drop", "no column 'grupo'", "did you mean 'group'"]),
        ({"sensitive": ["sex"]}, ["data.sensitive", "no column 'sex'"]),
        ({"inputs": {"features": ["income", "late", "nope"]}}, ["data.inputs.features", "no column 'nope'"]),
        ({"inputs": {"numbers": ["income", "late"]}}, ["model.py:build", "2"]),
        ({"features": ["income", "defaulted"]}, ["data.features: 'defaulted' is a label"]),
        ({"drop": ["defaulted"]}, ["data.drop: 'defaulted' is also the label"]),
        ({"missing": "maybe"}, ["recipe.toml: data.missing", "maybe"]),
        ({"source": "rowz.csv"}, ["data.source: there is no file", "did you mean 'rows.csv'"]),
        ({"source": "rows.xlsx"}, ["data.source: 'rows.xlsx'"]),
        ({"split": {"by": "column"}}, ["data.split", "needs the key column"]),
        ({"split": {"by": "column", "column": "group"}}, ["data.split.column: 'group' says '1'"]),
        ({"split": {"test": 0.5}}, ["must be 1; got 1.3"]),
        (
            {"split": {"train": 0.8999, "calibration": 0.0001, "validation": 0.0, "test": 0.1}},
            ["calibration split is empty"],
        ),
        ({"split": {"train": 0.8999, "calibration": 0.1, "validation": 0.0, "test": 0.0001}}, ["test split is empty"]),
    ],
)
def test_data_that_cannot_be_used(
    project: Project, refused: Refused, changes: dict[str, Any], expected: list[str]
) -> None:
    project.change(data=changes)
    refused(*expected)


def test_a_constant_label(project: Project, refused: Refused) -> None:
    change_rows(project, lambda frame: frame.assign(defaulted=1))
    refused("rows.csv: constant label: 'defaulted' is 1 in all 900 rows")


def test_a_label_of_three_classes(project: Project, refused: Refused) -> None:
    change_rows(project, lambda frame: frame.assign(defaulted=frame["customer"] % 3))
    refused("needs a label of 0 and 1; 'defaulted' of rows.csv holds 0, 1, 2", "hint: write 1 for the event")


def test_a_label_with_gaps(project: Project, refused: Refused) -> None:
    change_rows(project, lambda frame: frame.assign(defaulted=frame["defaulted"].where(frame.index != 7)))
    refused("the label 'defaulted' is missing in 1 of 900 rows, first in row 7")


def test_a_test_split_of_one_class(project: Project, refused: Refused) -> None:
    def rare(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(defaulted=(frame.index == 0).astype(int), moment=range(len(frame)))

    change_rows(project, rare)
    project.change(data={"split": {"by": "time", "column": "moment"}})
    refused("the test split has 0 positive rows of 'defaulted' out of 180", 'data.split.by = "stratified"')


def test_three_rows(project: Project, refused: Refused) -> None:
    change_rows(project, lambda frame: frame.head(3).assign(defaulted=[0, 1, 0]))
    text = refused("split is empty: 3 rows dealt by")
    assert "bring more rows" in text


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("rows.csv", b"", "rows.csv: the file is empty"),
        ("rows.csv", b"customer,defaulted\n", "rows.csv"),
        ("rows.csv", bytes(range(256)) * 40, "rows.csv"),
        ("rows.csv.gz", gzip.compress(b"a,b\n1,2\n" * 999, mtime=0)[:-20], "rows.csv.gz"),
        ("rows.parquet", b"PAR1 cut off", "rows.parquet"),
        ("rows.npz", b"PK\x03\x04 cut off", "rows.npz"),
    ],
)
def test_files_that_hold_no_rows(project: Project, refused: Refused, name: str, content: bytes, expected: str) -> None:
    (project.folder / "rows.csv").unlink()
    (project.folder / name).write_bytes(content)
    project.change(data={"source": name, "id": None, "sensitive": [], "drop": []})
    refused(expected)


# The recipe and the targets


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["recipe.toml", "schema"]),
        ("schema = 1\nschema = 1\n", ["recipe.toml: not valid TOML"]),
        ("schema = 2\n", ["recipe.toml"]),
        ("[model\n", ["recipe.toml: not valid TOML", "line 1"]),
        ("schema = 1\ntargts = ['onnxruntime-cpu']\n", ["unknown key 'targts'", "did you mean 'targets'"]),
    ],
)
def test_recipes_that_are_none(project: Project, refused: Refused, text: str, expected: list[str]) -> None:
    project.recipe.write_text(text)
    refused(*expected)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model": {"sorce": "x"}}, ["unknown key 'model.sorce'", "did you mean 'source'"]),
        ({"data": {"split": {"trian": 0.5}}}, ["unknown key 'data.split.trian'", "did you mean 'train'"]),
        ({"measure": {"pair": 5}}, ["unknown key 'measure.pair'", "did you mean 'pairs'"]),
        ({"gate": {"auc_margn": 0.1}}, ["unknown key 'gate.auc_margn'", "did you mean 'auc_margin'"]),
        ({"schemes": ["int8_static"]}, ["schemes", "'int8_static'", "did you mean 'int8-static'"]),
        ({"schemes": ["careful"]}, ["schemes", "'careful'"]),
        ({"scheme": {"careful": {"base": "int9"}}}, ["scheme.careful", "'int9'"]),
        ({"measure": {"pairs": 3}}, ["measure.pairs", "3"]),
        ({"measure": {"pairs": "many"}}, ["measure.pairs", "many"]),
        ({"task": {"kind": "ranking"}}, ["task.kind", "ranking"]),
        ({"task": {"cutoff": 1.5}}, ["task.cutoff", "1.5"]),
        ({"task": {"output": "logti"}}, ["task.output", "no output 'logti'", "did you mean 'logit'"]),
        ({"task": {"label": "other"}}, ["task.label", "'other'"]),
        ({"task": {"link": "probability"}}, ["lie outside [0, 1]", 'link = "logit"']),
        ({"measure": {"batch": 5000}}, ["measure.batch", "5000", "the test split has"]),
        ({"name": "../escape"}, ["recipe.toml: name", "../escape"]),
        ({"scheme": {"../x": {"base": "int8-static"}}, "schemes": ["../x"]}, ["scheme", "../x"]),
        ({"targets": ["onnxruntime-cpu", "onnxruntime-cpu"]}, ["targets", "named twice"]),
        ({"targets": []}, ["targets"]),
        ({"targets": ["onnxruntime"]}, ["targets: there is no target 'onnxruntime'", "did you mean 'onnxruntime-cpu'"]),
        ({"targets": ["odd.toml"]}, ["odd.toml", "unknown key 'budgets.size'", "size_bytes"]),
        ({"targets": ["garbage.toml"]}, ["garbage.toml: not valid TOML"]),
        ({"targets": ["missing.toml"]}, ["missing.toml: No such file"]),
        ({"passes": [{"kind": "shrink"}]}, ["passes[0].kind: there is no pass 'shrink'"]),
        ({"passes": [{"kind": "fold_batch_norm"}]}, ["'fold_batch_norm' changed nothing", "allow_no_change = true"]),
    ],
)
def test_recipes_that_say_what_cannot_be(
    project: Project, refused: Refused, changes: dict[str, Any], expected: list[str]
) -> None:
    project.write("odd.toml", 'schema = 1\nruntime = "onnxruntime"\n[budgets]\nsize = 3\n')
    (project.folder / "garbage.toml").write_bytes(b"\xff\xfe\x00\x01")
    project.change(**changes)
    refused(*expected)


def test_a_recipe_of_garbage_or_of_a_gigabyte(project: Project, refused: Refused) -> None:
    project.recipe.write_bytes(b"\x00\xff" * 100)
    refused("recipe.toml: not valid TOML")
    with project.recipe.open("wb") as file:
        file.truncate(1 << 30)
    refused("recipe.toml: larger than 1 MiB")


def test_a_recipe_that_is_a_folder(project: Project, refused: Refused) -> None:
    project.recipe.unlink()
    project.recipe.mkdir()
    refused("recipe.toml: Is a directory")


def test_a_runtime_that_is_not_installed_names_the_extra(project: Project) -> None:
    # What cannot be imported is what a fresh environment without the extras lacks.
    blocker = project.write(
        "sitecustomize.py", "import sys\nsys.modules['ai_edge_litert'] = sys.modules['onnxruntime'] = None\n"
    )
    project.change(targets=["litert-cpu"])
    variables = environment()
    variables["PYTHONPATH"] = os.pathsep.join([str(blocker.parent), variables["PYTHONPATH"]])
    ended = subprocess.run(
        program("run", "recipe.toml"), cwd=project.folder, env=variables, capture_output=True, text=True, check=False
    )
    check_refused(
        Said(ended.returncode, ended.stdout, ended.stderr),
        "recipe.toml: targets: the package 'ai_edge_litert' is needed for the target 'litert-cpu' and is not installed",
        "hint: pip install 'edge-compress[litert]'",
    )
    assert not project.out.exists()


# The output folder


def test_a_folder_of_another_recipe(finished: Project, command: Command) -> None:
    finished.write("other.toml", finished.recipe.read_text())
    before = tree(finished.out)
    said = command("run", "other.toml", folder=finished.folder)
    check_refused(said, "out: belongs to another recipe (tiny (../recipe.toml))", "choose another folder with --out")
    assert tree(finished.out) == before


def test_a_folder_with_other_files(project: Project, command: Command) -> None:
    (project.folder / "mine").mkdir()
    project.write("mine/letter.txt", "dear customer")
    before = tree(project.folder / "mine")
    said = command("run", "recipe.toml", "--out", "mine", folder=project.folder)
    check_refused(said, "mine: is not empty and was not made by a run (it holds 'letter.txt')", "--out")
    assert tree(project.folder / "mine") == before


def test_a_folder_that_is_a_file(project: Project, command: Command) -> None:
    said = command("run", "recipe.toml", "--out", "rows.csv", folder=project.folder)
    check_refused(said, "rows.csv: is not a folder", "--out")


@pytest.mark.parametrize("parent", ["/proc/edge-compress", "/sys/edge-compress/deep"])
def test_a_folder_that_cannot_be_made(project: Project, command: Command, parent: str) -> None:
    said = command("run", "recipe.toml", "--out", parent, folder=project.folder)
    check_refused(said, f"{parent}: cannot be written")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(project: Project, command: Command) -> None:
    (project.folder / "locked").mkdir(mode=0o500)
    said = command("run", "recipe.toml", "--out", "locked/out", folder=project.folder)
    check_refused(said, "locked/out: cannot be written", "choose another --out")


def test_a_folder_in_use(finished: Project, command: Command) -> None:
    before = tree(finished.out)
    with OutputFolder(finished.out, "tiny (../recipe.toml)").claimed():
        said = command("run", "recipe.toml", folder=finished.folder)
    check_refused(said, "out: another run is writing here", "wait for it to end")
    assert tree(finished.out) == before


def test_a_mark_that_cannot_be_read(finished: Project, command: Command) -> None:
    (finished.out / ".edge-compress.json").write_bytes(b"\xff garbage")
    said = command("run", "recipe.toml", folder=finished.folder)
    check_refused(said, ".edge-compress.json: cannot be read", "--out")


def on_a_small_disk(project: Project, size: str, script: str) -> Said:
    """Runs a shell script in the project's folder on a file system of a given size, then copies the folder back.

    The file system is mounted in a name space of its own: it goes with the process, however that ends.
    """
    disk, back, mounted = (project.folder.parent / name for name in ("disk", "back", "mounted"))
    disk.mkdir()
    text = (
        f"mount -t tmpfs -o size={size} tmpfs {disk} && touch {mounted} || exit\n"
        f"cp -a {project.folder} {disk}/project && cd {disk}/project\n"
        f"{script}\ncode=$?\n"
        f"cp -a {disk}/project {back} && exit $code\n"
    )
    if shutil.which("unshare") is None:
        pytest.skip("this system has no mount name spaces")
    ended = subprocess.run(
        ["unshare", "--mount", "sh", "-c", text], env=environment(), capture_output=True, text=True, check=False
    )
    if not mounted.exists():
        pytest.skip(f"mounting a file system needs root: {ended.stderr}")
    return Said(ended.returncode, ended.stdout, ended.stderr)


def test_a_disk_that_is_full_the_second_time(finished: Project) -> None:
    before = tree(finished.out / "current")
    finished.change(gate={"auc_margin": 0.06})
    run = shlex.join(program("run", "recipe.toml"))
    said = on_a_small_disk(finished, "4m", f"cat /dev/zero >../filler 2>/dev/null; {run}")
    check_refused(said, "No space left on device")
    back = Project(finished.folder.parent / "back")
    assert tree(back.out / "current") == before
    # With space again it goes on where it stopped.
    outcome = back.run()
    assert outcome.exit_code == 0
    assert outcome.made == 0
    check_whole(back.out)


def test_python_itself_is_left_alone(project: Project, refused: Refused) -> None:
    # A factory that ends the program is an error of the factory.
    project.write("model.py", "import sys\nsys.exit(0)\n")
    refused("model.source", "SystemExit", "__main__")
    assert "model" not in sys.modules

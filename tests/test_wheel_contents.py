from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from wheel_contents import expected, main, problems

SCRIPT = Path(__file__).with_name("wheel_contents.py")
INFO = {"edge_compress-0.1.0.dist-info/METADATA", "edge_compress-0.1.0.dist-info/RECORD"}


def wheel(folder, names, name="edge_compress-0.1.0-py3-none-any.whl"):
    with zipfile.ZipFile(folder / name, "w") as archive:
        for member in sorted(names):
            archive.writestr(member, "")
    return folder


def test_the_source_tree_has_what_is_looked_for():
    assert {"compress/__init__.py", "compress/worker/main.py", "compress/profiles/litert-cpu.toml"} <= expected()


def test_a_whole_wheel_passes(tmp_path, capsys):
    assert main([str(wheel(tmp_path, expected() | INFO))]) == 0
    assert capsys.readouterr().err == ""


WRONG = {
    "a folder of tests": (lambda names: names | {"tests/test_a.py"}, "'tests' lies beside the package"),
    "a stray module": (lambda names: names | {"setup.py"}, "'setup.py' lies beside the package"),
    "no profiles": (
        lambda names: {name for name in names if "profiles" not in name},
        "'profiles/*.toml' matches nothing",
    ),
    "no worker": (lambda names: {name for name in names if "/worker/" not in name}, "'worker/*.py' matches nothing"),
    "one module lost": (lambda names: names - {"compress/gate.py"}, "1 files are missing: compress/gate.py"),
    "one profile lost": (
        lambda names: names - {"compress/profiles/litert-cpu.toml"},
        "missing: compress/profiles/litert",
    ),
    "nothing": (lambda names: set(), "there is no 'compress' in it"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_wheel_fails_with_the_reason(tmp_path, capsys, case):
    change, message = WRONG[case]
    assert main([str(wheel(tmp_path, change(expected()) | INFO))]) == 1
    assert message in capsys.readouterr().err


def test_each_wheel_of_a_folder_is_checked(tmp_path, capsys):
    wheel(tmp_path, expected() | INFO)
    wheel(tmp_path, INFO, name="another-1-py3-none-any.whl")
    assert main([str(tmp_path)]) == 1
    assert {line.partition(":")[0] for line in capsys.readouterr().err.splitlines()} == {"another-1-py3-none-any.whl"}


def test_no_wheel_and_no_zip_fail(tmp_path, capsys):
    assert main([str(tmp_path)]) == 1
    assert "no wheel here" in capsys.readouterr().err
    (tmp_path / "a.whl").write_text("not a zip")
    assert main([str(tmp_path)]) == 1
    assert main([]) == 1


def test_entries_for_folders_are_no_files():
    assert problems([*expected(), *INFO, "compress/", "compress/zoo/"], expected()) == []


def test_the_script_gives_its_answer_as_exit_code(tmp_path):
    done = subprocess.run([sys.executable, SCRIPT, wheel(tmp_path, INFO)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "there is no 'compress' in it" in done.stderr

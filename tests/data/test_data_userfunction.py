from __future__ import annotations

import sys
import textwrap

import pytest

from compress.errors import DataError, ModelError
from compress.userfunction import call_function, load_function


def write(folder, name, text):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))


def load(folder, spec="mine.py:build"):
    return load_function(spec, folder, "recipe.toml: model.source", ModelError)


def test_a_file_beside_the_recipe(tmp_path):
    write(tmp_path, "mine.py", "from typing import NamedTuple\ndef build(x=1):\n    return x + 1\n")
    function = load(tmp_path)
    assert function(2) == 3
    assert load(tmp_path) is function
    assert "mine" not in sys.modules
    assert sys.modules[function.__module__].__file__ == str(tmp_path / "mine.py")


def test_a_file_is_read_with_its_own_future_imports(tmp_path):
    write(tmp_path, "mine.py", "def build(x: int): ...\n")
    assert load(tmp_path).__annotations__ == {"x": int}


def test_an_edited_file_is_loaded_again(tmp_path):
    write(tmp_path, "mine.py", "def build():\n    return 1\n")
    assert load(tmp_path)() == 1
    write(tmp_path, "mine.py", "def build():\n    return 2\n")
    assert load(tmp_path)() == 2


def test_neighbours_are_those_of_the_same_folder(tmp_path):
    path = list(sys.path)
    for name in ("a", "b", "a"):
        write(
            tmp_path, f"{name}/mine.py", f"import layers_of_mine\ndef build():\n    return '{name}', layers_of_mine.X\n"
        )
        write(tmp_path, f"{name}/layers_of_mine.py", f"X = '{name}'\n")
        assert load(tmp_path / name)() == (name, name)
    assert load(tmp_path, "a/mine.py:build")() == ("a", "a")
    assert sys.path == path


def test_an_environment_inside_the_folder_is_shared(tmp_path, monkeypatch):
    write(tmp_path, "env/site-packages/installed_of_mine.py", "")
    monkeypatch.syspath_prepend(str(tmp_path / "env" / "site-packages"))
    write(tmp_path, "mine.py", "import installed_of_mine\ndef build():\n    return installed_of_mine\n")
    write(tmp_path, "other/mine.py", "def build(): ...\n")
    installed = load(tmp_path)()
    load(tmp_path / "other")
    assert sys.modules["installed_of_mine"] is installed


def test_a_path_that_the_file_adds_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    write(tmp_path, "mine.py", "import sys\nsys.path.insert(0, 'added')\ndef build(): ...\n")
    before = list(sys.path)
    load(tmp_path)
    assert sys.path == ["added", *before]


def test_a_package_beside_the_recipe_and_an_installed_one(tmp_path):
    write(tmp_path, "pack_of_mine/__init__.py", "")
    write(tmp_path, "pack_of_mine/inner.py", "def build():\n    return 5\n")
    assert load(tmp_path, "pack_of_mine.inner:build")() == 5
    assert load(tmp_path, "textwrap:dedent") is textwrap.dedent


@pytest.mark.parametrize(
    ("source", "spec", "message", "hint"),
    [
        ("", "mine.py", "'mine.py' names no function", "file.py:function"),
        ("", "mine.py:", "'mine.py:' names no function", "file.py:function"),
        ("", "mine-x:build", "'mine-x' is neither a .py file nor the name of a module", "file.py:function"),
        ("", "min.py:build", r"min\.py: No such file", "did you mean 'mine.py'"),
        ("", "no_such_thing.x:build", "there is no module 'no_such_thing'", "install it"),
        ("def built(): ...", "mine.py:build", "mine.py has no function 'build'", "did you mean 'built'"),
        ("build = 3", "mine.py:build", "'build' of mine.py is of type int, not a function", "name a function"),
        (
            "x = 1\nraise ValueError('boom')",
            "mine.py:build",
            r"ValueError: boom \(.*mine\.py, line 2\)",
            "whole traceback",
        ),
        ("import no_such_thing", "mine.py:build", r"ModuleNotFoundError: .*mine\.py, line 1", "install the package"),
        ("\n\ndef build(:", "mine.py:build", r"SyntaxError: .*mine\.py, line 3", "whole traceback"),
        ("import sys\nsys.exit(0)", "mine.py:build", "SystemExit: 0", "__main__"),
        ("import json\njson.loads('{')", "mine.py:build", r"JSONDecodeError: .*mine\.py, line 2", "whole traceback"),
    ],
)
def test_what_goes_wrong_is_said(tmp_path, source, spec, message, hint):
    write(tmp_path, "mine.py", source)
    with pytest.raises(ModelError, match=message) as error:
        load(tmp_path, spec)
    assert error.value.message.startswith("recipe.toml: model.source: ")
    assert hint in error.value.hint


def test_a_failed_import_leaves_nothing_behind(tmp_path):
    write(tmp_path, "mine.py", "raise ValueError")
    before, path = set(sys.modules), list(sys.path)
    with pytest.raises(ModelError, match=r"failed with ValueError \(.*mine\.py, line 1\)"):
        load(tmp_path)
    assert set(sys.modules) <= before
    assert sys.path == path


def test_a_module_that_fails_to_import_another(tmp_path):
    write(tmp_path, "fails_of_mine.py", "import no_such_thing\n")
    with pytest.raises(ModelError, match="importing fails_of_mine failed with ModuleNotFoundError"):
        load(tmp_path, "fails_of_mine:build")


def test_calls():
    def build(width, *, depth=1):
        if depth < 0:
            raise ModelError("depth must be positive", "take 1")
        return [width] * (6 // depth)

    assert call_function(build, {"width": 3, "depth": 2}, "model", ModelError) == [3, 3, 3]
    with pytest.raises(DataError, match=r"model: build cannot be called with the given arguments: .*'wide'") as error:
        call_function(build, {"width": 1, "wide": 3}, "model", DataError)
    assert "build(width, *, depth=1)" in error.value.hint
    with pytest.raises(DataError, match=r"build failed with ZeroDivisionError: .*test_data_userfunction\.py, line \d+"):
        call_function(build, {"width": 3, "depth": 0}, "model", DataError)
    with pytest.raises(ModelError, match="depth must be positive"):
        call_function(build, {"width": 3, "depth": -1}, "model", DataError)
    assert call_function(dict, {"a": 1}, "model", DataError) == {"a": 1}

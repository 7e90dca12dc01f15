from __future__ import annotations

import json
import sys
from importlib.metadata import EntryPoint

import pytest

from compress import registry
from compress.errors import CompressError, InternalError, MissingPackageError
from compress.registry import EXTRAS, Registry, require

GROUP = "edge_compress.tests"


@pytest.fixture
def outside(monkeypatch):
    """Pretends that installed distributions register these names."""
    points: list[EntryPoint] = []
    monkeypatch.setattr(registry, "entry_points", lambda group: [point for point in points if point.group == group])
    return lambda name, value: points.append(EntryPoint(name, value, GROUP))


def things():
    return Registry("thing", GROUP, {"dump": "json:dumps", "lost": "json:nothing", "gone": "no_such_module:x"})


def test_a_built_in_name_is_imported_when_it_is_asked_for():
    assert things().load("dump") is json.dumps


def test_building_a_registry_and_listing_its_names_imports_nothing():
    assert things().names() == ["dump", "gone", "lost"]
    assert "no_such_module" not in sys.modules


def test_an_unknown_name_fails_with_the_known_ones():
    with pytest.raises(CompressError, match="unknown thing 'dmp'") as caught:
        things().load("dmp")
    assert "did you mean 'dump'?" in caught.value.hint
    assert "lost" in caught.value.hint


def test_an_installed_distribution_adds_a_name(outside):
    outside("read", "json:loads")
    assert "read" in things().names()
    assert things().load("read") is json.loads


@pytest.mark.parametrize("name", ["dump", "read"], ids=["of a built-in", "of another distribution"])
def test_a_name_that_exists_twice_is_an_error_for_every_name(outside, name):
    outside("read", "json:loads")
    outside(name, "json:load")
    with pytest.raises(InternalError, match=f"'{name}' is registered twice"):
        things().names()
    with pytest.raises(InternalError, match="twice"):
        things().load("dump")


@pytest.mark.parametrize("package", sorted(set(EXTRAS) - {"torch"}))
def test_a_missing_package_names_the_extra_that_brings_it(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackageError, match=f"'{package}' is needed for ONNX") as caught:
        require(f"{package}.deeper", why="ONNX")
    assert f"pip install 'edge-compress[{EXTRAS[package]}]'" in caught.value.hint


def test_an_unknown_package_is_part_of_the_distribution_itself():
    with pytest.raises(MissingPackageError, match="'no_such_package' is needed and is not installed") as caught:
        require("no_such_package")
    assert caught.value.hint == "pip install 'edge-compress'"


def test_a_package_that_is_there_but_broken_is_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / "half_there.py").write_text("import no_such_dependency\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        require("half_there")


def test_every_extra_exists_in_the_project_file():
    import tomllib
    from pathlib import Path

    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert {extra for extra in EXTRAS.values() if extra} <= set(project["optional-dependencies"])

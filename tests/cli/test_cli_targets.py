"""`edge-compress targets`: what a recipe can name here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_command import Command

from compress.target import load_target

PROFILES = [
    "executorch-cpu",
    "litert-cpu",
    "onnxruntime-cpu",
    "onnxruntime-cuda",
    "onnxruntime-mobile",
    "onnxruntime-rtx",
    "onnxruntime-tensorrt",
    "tensorrt",
    "tflite-runtime-cpu",
    "torch-compile-cpu",
    "torch-compile-cuda",
    "torch-cpu",
    "torch-cuda",
]


@pytest.fixture
def workshop(tmp_path: Path) -> Path:
    (tmp_path / "targets").mkdir()
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "targets" / "phone.toml").write_text(
        'schema = 1\nruntime = "litert"\nthreads = 4\ncpu = "native"\ndescription = "the [bold]phone[/x]"\n'
        "[budgets]\nsize_bytes = 1000\n"
    )
    (tmp_path / "targets" / "onnxruntime-cpu.toml").write_text(
        'schema = 1\nruntime = "onnxruntime"\nname = "mine"\ndescription = "our own"\n'
    )
    (tmp_path / "targets" / "wrong.toml").write_text('schema = 1\nruntime = "litert"\nthread = 4\n')
    return tmp_path


def test_without_a_project_it_lists_the_profiles(command: Command, tmp_path: Path) -> None:
    said = command("targets", folder=tmp_path)
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[0].split("  ")[0] == "target" and lines[0].split()[1:] == ["runs", "on", "what", "it", "is"]
    assert [line.split()[0] for line in lines[1:] if line[0] != " "] == PROFILES
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("folder", [".", "deep/er", "targets"])
def test_a_project_adds_its_own(command: Command, workshop: Path, folder: str) -> None:
    said = command("targets", "--json", folder=workshop / folder)
    assert (said.code, said.err) == (0, "")
    found = {item["name"]: item for item in json.loads(said.out)}
    assert found.keys() == {*PROFILES, "phone", "wrong"}
    # The names are those that a recipe uses, and a project's own hides the profile of that name.
    assert found["onnxruntime-cpu"]["description"] == "our own"
    assert found["onnxruntime-cpu"]["origin"].endswith("onnxruntime-cpu.toml")
    assert found["litert-cpu"]["origin"] == "profile"
    assert found["phone"]["budgets"]["size_bytes"] == 1000
    assert "unknown key 'thread'" in found["wrong"]["error"]
    for name in found.keys() - {"wrong"}:
        assert load_target(name, workshop / folder).runtime == found[name]["runtime"]


def test_the_table_shows_text_as_it_stands(command: Command, workshop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    said = command("targets", folder=workshop)
    assert said.code == 0
    (phone,) = [line for line in said.out.splitlines() if line.startswith("phone")]
    assert "local, native" in phone and "the [bold]phone[/x] (" in phone
    assert "wrong.toml: unknown key 'thread'" in said.out
    assert said.out.count("onnxruntime-cpu") == 2  # its name, and the file that it comes from

"""The composite action calls the command line as it is."""

from __future__ import annotations

import re
from pathlib import Path

from compress.cli.baseline import command as baseline
from compress.cli.check import command as check

TEXT = (Path(__file__).parents[1] / "action.yml").read_text(encoding="utf-8")


def known(command: object) -> set[str]:
    return {option for parameter in command.params for option in parameter.opts}  # type: ignore[attr-defined]


def test_every_flag_of_the_action_exists() -> None:
    called = re.findall(r"edge-compress (check|baseline restore)((?:[^\n]*\\\n)*[^\n]*)", TEXT)
    assert {name for name, _ in called} == {"check", "baseline restore"}
    for name, rest in called:
        flags = set(re.findall(r"--[a-z-]+", rest))
        assert flags
        assert flags <= known(check if name == "check" else baseline.commands["restore"])


def test_inputs_reach_the_shell_only_as_variables() -> None:
    for block in re.findall(r"run: \|\n((?: {8}.*\n)+)", TEXT):
        assert "${{" not in block
    assert "${{" not in re.search(r"run: python.*", TEXT)[0]  # type: ignore[index]


def test_every_input_is_used() -> None:
    head, _, body = TEXT.partition("\noutputs:")
    names = re.findall(r"^  ([a-z-]+):$", head.partition("inputs:")[2], re.MULTILINE)
    assert set(names) >= {"against", "budget-s"}
    assert all(f"inputs.{name}" in body for name in names)

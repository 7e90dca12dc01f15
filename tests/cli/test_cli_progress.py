"""What a long run shows while it works."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from compress.cli import progress
from compress.cli.progress import Shown


def show(monkeypatch: pytest.MonkeyPatch, *, terminal: bool) -> str:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=100, color_system=None)
    monkeypatch.setattr(progress, "Console", lambda **_: console)
    with Shown() as shown:
        shown.step("reading [/the] data")
        time.sleep(0.15)
        shown.step("measuring")
        shown.advance(2, 5)
        time.sleep(0.15)
        shown.step("reused")
    return file.getvalue()


def test_elsewhere_every_step_that_took_time_leaves_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = show(monkeypatch, terminal=False).splitlines()
    assert [line.split(" s  ")[1] for line in lines] == ["reading [/the] data", "measuring"]


def test_a_terminal_shows_a_bar_where_the_length_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    said = show(monkeypatch, terminal=True)
    assert "reading [/the] data" in said
    assert "2/5" in said
    assert "/?" not in said


def test_an_error_leaves_no_line_of_the_step_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr(progress, "Console", lambda **_: Console(file=file))
    with pytest.raises(ValueError, match="broken"), Shown() as shown:
        shown.step("reading the data")
        time.sleep(0.1)
        raise ValueError("broken")
    assert file.getvalue() == ""

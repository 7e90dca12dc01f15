"""The reports as committed text. `UPDATE_GOLDEN=1 pytest tests/report` writes them anew; read the difference."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from rich.console import Console

from compress.evidence import Evidence
from compress.report import render_markdown
from compress.report.terminal import render

GOLDEN = Path(__file__).parent / "golden"


def check(name: str, text: str) -> None:
    # Cells are padded to their column; blanks at the end of a line are nobody's business.
    text = "\n".join(line.rstrip() for line in text.splitlines()) + "\n"
    path = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN") == "1":
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [80, 140])
def test_terminal(evidence: Evidence, width: int) -> None:
    file = io.StringIO()
    render(evidence, Console(file=file, width=width))
    check(f"terminal_{width}.txt", file.getvalue())


def test_markdown(evidence: Evidence) -> None:
    check("report.md", render_markdown(evidence))


@pytest.mark.parametrize("width", [80, 140])
def test_terminal_of_several_tasks(three_tasks: Evidence, width: int) -> None:
    file = io.StringIO()
    render(three_tasks, Console(file=file, width=width))
    check(f"multitask_terminal_{width}.txt", file.getvalue())


def test_markdown_of_several_tasks(three_tasks: Evidence) -> None:
    check("multitask_report.md", render_markdown(three_tasks))

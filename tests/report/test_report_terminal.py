"""The terminal report fits its console, says the same without colour, and cannot be driven by a layer's name."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from compress.evidence import Candidate, Evidence
from compress.report.table import table_rows
from compress.report.terminal import render


def printed(evidence: Evidence, width: int, **options) -> str:
    file = io.StringIO()
    render(evidence, Console(file=file, width=width, **options))
    return file.getvalue()


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("width", [40, 60, 79, 80, 100, 119, 120, 139, 140, 200])
def test_no_line_is_wider_than_the_console(evidence: Evidence, width: int) -> None:
    assert max(cell_len(line) for line in printed(evidence, width).splitlines()) <= width


@pytest.mark.parametrize("width", [60, 80, 120, 140])
def test_every_scheme_its_outcome_and_its_reason_are_said_at_every_width(evidence: Evidence, width: int) -> None:
    text = printed(evidence, width)
    for row in table_rows(evidence):
        assert re.search(rf"^{re.escape(row.scheme)} .*\b{row.outcome}\b", text, re.MULTILINE)
    # Reasons that a cell folds are checked where they stand whole.
    if width < 140:
        folded = words(text)
        assert all(
            f"not {row.scheme}: {row.reason}" in folded for row in table_rows(evidence) if row.outcome != "ships"
        )


@pytest.mark.parametrize("width", [80, 120, 140])
def test_intervals_are_never_torn(evidence: Evidence, width: int) -> None:
    lines = printed(evidence, width).splitlines()
    for interval in ("[0.60, 0.65] FASTER", "[1.05, 1.12] SLOWER", "[-0.0011, +0.0005])"):
        assert any(interval in line for line in lines)


@pytest.mark.parametrize("width", [40, 60, 80, 120, 140])
def test_several_tasks_fit_the_console(three_tasks: Evidence, width: int) -> None:
    text = printed(three_tasks, width)
    assert max(cell_len(line) for line in text.splitlines()) <= width
    assert "top-1 of delinquency -0.0012 [-0.0043, +0.0019]" in words(text)


def test_each_task_has_its_own_lines_in_the_table(three_tasks: Evidence) -> None:
    lines = [line.rstrip() for line in printed(three_tasks, 80).splitlines()]
    row = next(number for number, line in enumerate(lines) if line.startswith("int8-dynamic"))
    column = lines[row].index("default: AUC")
    assert [line[column:].rstrip() for line in lines[row + 1 : row + 9]] == [
        "0.7791 (-0.0003",
        "[-0.0011, +0.0005])",
        "delinquency: top-1",
        "0.8300 (-0.0012",
        "[-0.0043, +0.0019])",
        "bill_growth: R2",
        "0.4015 (-0.0006",
        "[-0.0036, +0.0024])",
    ]


def test_columns_are_left_out_aloud(evidence: Evidence) -> None:
    narrow, wide = words(printed(evidence, 80)), words(printed(evidence, 140))
    assert "34.1 dB" not in narrow
    assert "Left out for want of columns: memory, parity, accelerated." in narrow
    assert "34.1 dB" in wide
    assert "Left out" not in wide


def test_colour_only_on_a_terminal_and_never_the_meaning(evidence: Evidence) -> None:
    without = printed(evidence, 140)
    assert "\x1b" not in without
    coloured = printed(evidence, 140, force_terminal=True, color_system="standard", no_color=False)
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == without


def test_an_encoding_without_the_characters_does_not_end_the_run(evidence: Evidence) -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    render(replace(evidence, name="kredit-größe"), Console(file=file, width=80))
    file.seek(0)
    assert file.read().startswith("kredit-gr\\xf6\\xdfe on onnxruntime-cpu")


def test_an_empty_run_says_so(evidence: Evidence) -> None:
    assert "no target was measured" in printed(replace(evidence, targets=()), 80)


def test_no_name_drives_the_terminal_or_breaks_the_layout(evidence: Evidence) -> None:
    target = evidence.targets[0]

    @settings(max_examples=40, deadline=None)
    @given(name=st.text(max_size=60), width=st.sampled_from([40, 80, 140]))
    def check(name: str, width: int) -> None:
        hostile = replace(target, target=name, candidates=(Candidate(f"x{name}", error=f"E: [bold]{name}[/bold]"),))
        text = printed(replace(evidence, name=name, targets=(hostile,)), width)
        assert all(character.isprintable() or character == "\n" for character in text)
        assert max(cell_len(line) for line in text.splitlines()) <= width

    check()

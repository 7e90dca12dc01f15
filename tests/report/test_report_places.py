"""The parity certificate: one matrix in every report, and sentences on what was compared where."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from compress.evidence import Evidence, Parity, Place, from_json, to_json
from compress.report.html import render_html
from compress.report.limits import limits
from compress.report.markdown import render_markdown
from compress.report.places import MEANING, checked_on, difference, matrix
from compress.report.summary import notes
from compress.report.terminal import render

PLACES = (
    Place("emulated-haswell", "emulated", "haswell", "haswell (qemu 7.2)"),
    Place("emulated-cortex-a53", "emulated", "cortex-a53", "cortex-a53 (qemu 7.2)"),
)


def row(place: str, max_abs: float, flips: int | None = 0, spread: float = 6.0, output: str = "logit") -> Parity:
    share = None if flips is None else 1 - flips / 500
    return Parity("local", 500, output, max_abs, None, share, spread, flips, place)


def checked(evidence: Evidence, *rows: Parity, unchecked: tuple[tuple[str, str], ...] = ()) -> Evidence:
    """The evidence with what ships on the first target compared elsewhere."""
    target = evidence.targets[0]
    candidates = tuple(
        replace(item, parity=(*item.parity, *rows), unchecked=unchecked) if item.scheme == "int8-dynamic" else item
        for item in target.candidates
    )
    return replace(evidence, targets=(replace(target, candidates=candidates), *evidence.targets[1:]), places=PLACES)


@pytest.fixture
def certified(evidence: Evidence) -> Evidence:
    return checked(evidence, row("emulated-haswell", 0.012, 3), row("emulated-cortex-a53", 0.0))


def test_the_matrix_has_a_row_an_artifact_and_a_column_a_place(certified: Evidence) -> None:
    titles, rows = matrix(certified)
    assert titles == (
        "artifact",
        "output",
        "here",
        "emulated-haswell (haswell, emulated)",
        "emulated-cortex-a53 (cortex-a53, emulated)",
    )
    assert rows == [
        (
            "onnxruntime-cpu int8-dynamic",
            "logit",
            "0.012 (0.2 %)",
            "0.012 (0.2 %), 3 of 500",
            "equal, 0 of 500",
        )
    ]


def test_the_largest_difference_is_named_as_a_share_of_the_range(certified: Evidence) -> None:
    assert checked_on(certified) == (
        "answers compared on emulated-haswell (haswell, emulated), emulated-cortex-a53 (cortex-a53, emulated) with "
        "those here, 500 rows: "
        "the largest difference is 0.012, 0.2 % of the range (onnxruntime-cpu int8-dynamic, logit, on "
        "emulated-haswell); 3 decisions changed",
    )
    assert f"parity: {checked_on(certified)[0]}" in notes(certified)


def test_the_largest_is_that_of_the_narrowest_range(evidence: Evidence) -> None:
    found = checked(evidence, row("emulated-haswell", 0.02, spread=100.0), row("emulated-cortex-a53", 0.01, spread=0.1))
    assert "is 0.010, 10 % of the range" in checked_on(found)[0]


def test_a_share_that_tells_nothing_is_only_bounded(evidence: Evidence) -> None:
    found = checked(evidence, row("emulated-haswell", 1e-6, spread=6.0), row("emulated-cortex-a53", 0.0))
    assert matrix(found)[1][0][3] == "1.0e-06 (<0.001 %), 0 of 500"
    assert checked_on(found)[0].endswith("on emulated-haswell); no decision differs")


def test_equal_answers_are_said_to_be_equal(evidence: Evidence) -> None:
    found = checked(evidence, row("emulated-haswell", 0.0, None), row("emulated-cortex-a53", 0.0, None))
    assert checked_on(found)[0].endswith("500 rows: all are equal to the last bit")


def test_a_place_that_was_not_reached_is_said(evidence: Evidence) -> None:
    found = checked(evidence, row("emulated-haswell", 0.0), unchecked=(("emulated-cortex-a53", "no system\nHint: x"),))
    said = checked_on(found)
    assert said[0].startswith("answers compared on emulated-haswell (haswell, emulated) with those here")
    assert said[1] == "onnxruntime-cpu int8-dynamic was not checked on emulated-cortex-a53: no system"
    assert matrix(found)[1][0][3:] == ("equal, 0 of 500", "not checked")


def test_nothing_is_said_of_places_that_nobody_asked_for(evidence: Evidence) -> None:
    assert matrix(evidence)[1] == []
    assert checked_on(evidence) == ()
    assert "Parity on other processors" not in render_markdown(evidence)
    assert "on other processors" not in render_html(evidence)
    said = [text for text in limits(evidence) if "one processor" in text]
    assert said == [
        "Every answer is from one processor (Example CPU @ 2.40GHz, avx2, avx512_vnni). int8 sums can come out "
        "otherwise on one with other instructions: parity.hosts compares."
    ]


def test_every_report_holds_the_matrix(certified: Evidence) -> None:
    markdown, html = render_markdown(certified), render_html(certified)
    assert (
        "| onnxruntime-cpu int8-dynamic | logit | 0.012 (0.2 %) | 0.012 (0.2 %), 3 of 500 | equal, 0 of 500 |"
        in markdown
    )
    assert "The same files on other processors" in html
    assert "0.012 (0.2 %), 3 of 500" in html
    for width in (80, 140, 200):
        console = Console(file=io.StringIO(), width=width)
        render(certified, console)
        printed = console.file.getvalue()  # type: ignore[attr-defined]
        assert "parity on other processors" in printed
        assert MEANING.split()[0] in printed
        assert max(map(len, printed.splitlines())) <= width
    assert not [text for text in limits(certified) if "one processor" in text]


def test_names_from_files_cannot_break_the_tables(evidence: Evidence) -> None:
    bad = replace(evidence, places=(Place("a|b<i>\x1b[31m", "emulated", "haswell", ""),))
    target = bad.targets[0]
    item = replace(target.candidates[1], parity=(*target.candidates[1].parity, row("a|b<i>\x1b[31m", 0.1)))
    bad = replace(bad, targets=(replace(target, candidates=(target.candidates[0], item)), *bad.targets[1:]))
    assert "\x1b" not in render_markdown(bad)
    assert "<i>" not in render_html(bad)
    assert "0.10" in render_markdown(bad)


def test_a_difference_of_a_constant_output_has_no_share() -> None:
    assert difference(row("x", 0.5, spread=0.0)) == "0.50 (-)"


def test_the_distance_from_the_graph_is_apart(certified: Evidence) -> None:
    item = next(item for item in certified.targets[0].candidates if item.scheme == "int8-dynamic")
    assert [found.reference for found in item.fidelity] == ["torch"]
    assert [found.place for found in item.elsewhere] == ["emulated-haswell", "emulated-cortex-a53"]
    assert "| int8-dynamic | logit | local |" not in render_markdown(certified)


def test_it_survives_a_round_trip_and_older_evidence_is_read(certified: Evidence, evidence: Evidence) -> None:
    assert from_json(Evidence, to_json(certified)) == certified
    plain = json.loads(to_json(evidence))
    del plain["places"]
    for target in plain["targets"]:
        for item in target["candidates"]:
            del item["unchecked"]
            for found in item["parity"]:
                del found["place"], found["flips"]
    assert from_json(Evidence, json.dumps(plain)) == evidence

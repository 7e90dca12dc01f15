"""`edge-compress report`: the reports again, from the evidence alone."""

from __future__ import annotations

from pathlib import Path

from approval_kit import make_out
from cli_command import Command
from tiny_project import Project, tree


def test_the_reports_of_a_run_are_made_again_from_its_evidence(finished: Project, command: Command) -> None:
    before = tree(finished.out)
    said = command("report", "out", "--html", "a.html", "--markdown", "a.md", "--card", "c.md", folder=finished.folder)
    assert (said.code, said.out) == (0, "written: a.html\nwritten: a.md\nwritten: c.md\n")
    for made, own in (("a.html", "report.html"), ("a.md", "report.md"), ("c.md", "model_card.md")):
        assert (finished.folder / made).read_bytes() == (finished.out / own).read_bytes()
    assert tree(finished.out) == before


def test_the_page_is_what_is_written_by_default(tmp_path: Path, command: Command) -> None:
    make_out(tmp_path / "out")
    assert command("report", "out/evidence.json", folder=tmp_path).out == "written: report.html\n"
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")


def test_what_a_run_wrote_is_not_changed(tmp_path: Path, command: Command) -> None:
    out = make_out(tmp_path / "out")
    before = tree(out)
    for arguments in (("report", ".."), ("report", "out", "--html", "out/new.html")):
        said = command(*arguments[:2], *arguments[2:], folder=tmp_path)
        assert said.code == 2
    said = command("report", "../out", folder=out)
    assert (said.code, "lies in the folder of the run" in said.err) == (2, True)
    assert tree(out) == before


def test_evidence_that_is_not_there_is_told(tmp_path: Path, command: Command) -> None:
    assert command("report", "nothing", folder=tmp_path).code == 2
    (tmp_path / "evidence.json").write_text("{}")
    assert command("report", ".", folder=tmp_path).code == 2
    assert not (tmp_path / "report.html").exists()

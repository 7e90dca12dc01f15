"""`approve`, `history`, `rollback` and `verify` as a user meets them: words, exit codes, JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from approval_kit import ADA, make_out
from cli_command import Command
from tiny_project import Project

BY = ("--by", ADA)


@pytest.fixture
def project_folder(tmp_path: Path) -> Path:
    make_out(tmp_path / "out")
    return tmp_path


def test_an_approval_a_failure_and_a_rollback(project_folder: Path, command: Command) -> None:
    out = project_folder / "out"
    said = command("approve", "out", *BY, "--reason", "quarterly review", folder=project_folder)
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("credit: release 1 is in force, approved by Ada Byron <ada@bank.example>\n  phone  ")
    assert "deploy from: approved/models/credit/current/\n" in said.out
    assert "edge-compress rollback credit --registry approved" in said.out

    make_out(out, "b")
    assert command("approve", "out", *BY).code == 0
    make_out(out, "c", status="FAIL")
    said = command("approve", "out", *BY)
    assert said.code == 1
    assert "error: out: the gate says FAIL, not PASS: phone: nothing ships: int8 loses 0.1 AUC" in said.err
    assert "--override REASON" in said.err

    said = command("verify")
    assert said.code == 0
    assert said.out.startswith("OK: 2 entries in one chain, 9 files (")
    assert "  credit: release 2 is in force\n  entry 1: not signed\n" in said.out

    said = command("rollback", "credit", *BY, "--reason", "incident 12")
    assert said.code == 0
    assert said.out.startswith("credit: release 1 is in force again (entry 3, by Ada Byron")
    assert (project_folder / "approved/models/credit/current/report.md").read_text() == "report a"

    said = command("history")
    assert said.code == 0
    rows = [line for line in said.out.splitlines() if line[2:4].strip().isdecimal()]
    assert [row.split()[0] for row in rows] == ["1", "2", "*"]
    assert "rollback" in rows[2]
    said = command("history", "credit", "--json")
    assert [(entry["sequence"], entry["in_force"]) for entry in json.loads(said.out)["entries"]] == [
        (1, False),
        (2, False),
        (3, True),
    ]


def test_damage_is_named_and_exits_1(project_folder: Path, command: Command) -> None:
    command("approve", "out", *BY, folder=project_folder)
    log = project_folder / "approved" / "log.jsonl"
    log.write_bytes(log.read_bytes().replace(b"Ada Byron", b"Eve Byron"))
    said = command("verify")
    assert said.code == 1
    assert said.out.startswith("damaged: log.jsonl: entry 1, the last, was edited: its sha256 is ")
    assert said.err == "approved: 1 thing is not as approved\n"
    assert command("history").code == 1
    for arguments in (("approve", "out", *BY), ("rollback", "credit", *BY)):
        said = command(*arguments)
        assert said.code == 1
        assert "log.jsonl is damaged, nothing is decided by it" in said.err
    said = command("verify", "--json")
    assert said.code == 1
    assert len(json.loads(said.out)["problems"]) == 1


def test_nothing_checked_is_never_a_pass(tmp_path: Path, command: Command) -> None:
    assert command("verify", folder=tmp_path).code == 2
    (tmp_path / "approved").mkdir()
    said = command("verify")
    assert said.code == 3
    assert "nothing was checked" in said.out
    said = command("history")
    assert (said.code, said.out) == (0, "nothing was approved yet\n")
    assert command("history", "credit").code == 2


def test_an_override_is_told_and_kept(project_folder: Path, command: Command) -> None:
    make_out(project_folder / "out", "b", status="INCONCLUSIVE")
    arguments = ("approve", "out", *BY, "--override", "pilot", "--ship", "phone=int8")
    said = command(*arguments, folder=project_folder)
    assert said.code == 0
    assert "in spite of the gate (INCONCLUSIVE): pilot" in said.out
    assert json.loads(command("history", "--json").out)["entries"][0]["override"] == "pilot"
    assert command("approve", "out", *BY, "--override", "x", "--ship", "phone").code == 2


def test_who_may_come_from_the_environment(
    project_folder: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command("approve", "out", folder=project_folder).code == 2
    monkeypatch.setenv("EDGE_COMPRESS_BY", ADA)
    assert command("approve", "out").code == 0


def test_a_hash_noted_elsewhere_is_looked_for(project_folder: Path, command: Command) -> None:
    said = command("approve", "out", *BY, folder=project_folder)
    head = said.out.partition("head of the log: ")[2].split()[0]
    assert command("verify", "--head", head).code == 0
    assert command("verify", "--head", "0" * 64).code == 1


def test_a_real_run_is_approved_and_a_worse_one_is_not(finished: Project, command: Command) -> None:
    assert command("approve", "out", *BY, folder=finished.folder).code == 0
    shipped = sorted(path.name for path in (finished.folder / "approved/models/tiny/current/artifacts").iterdir())
    before = command("history", "--json").out
    finished.change(gate={"auc_margin": 0.05, "min_agreement": 0.9, "min_sqnr_db": 300.0}).run()
    assert command("approve", "out", *BY).code == 1
    assert (
        sorted(path.name for path in (finished.folder / "approved/models/tiny/current/artifacts").iterdir()) == shipped
    )
    assert command("history", "--json").out == before
    assert command("verify", "tiny").code == 0

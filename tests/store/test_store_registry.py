from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from killed import killed_while_writing
from ledger_kit import approve, in_force, leftovers, lines, rollback

from compress.errors import ApprovalError, StoreError
from compress.store import ledger_registry as module
from compress.store.ledger_check import check_registry
from compress.store.ledger_registry import Registry


@pytest.fixture
def registry(tmp_path):
    """Two approvals of credit: `b` is in force."""
    made = Registry(tmp_path / "approved")
    approve(made, "a")
    approve(made, "b")
    return made


def problems(registry, **given):
    return list(check_registry(registry, **given).problems)


def test_what_is_approved_is_read_through_the_pointer(registry):
    assert in_force(registry) == "model b"
    assert os.readlink(registry.folder / "models/credit/current") == "releases/0002"
    rollback(registry, 1)
    assert in_force(registry) == "model a"
    assert (registry.folder / "models/credit/current/report.md").read_text() == "the same in every release"
    assert problems(registry) == []


def test_equal_content_is_kept_once_and_cannot_be_written_by_accident(registry):
    kept = [path for path in (registry.folder / "objects").rglob("*") if path.is_file()]
    assert len(kept) == 5
    assert {path.stat().st_mode & 0o777 for path in kept} == {0o444}


def test_a_registry_can_be_moved_as_a_whole(registry, tmp_path):
    moved = Registry(registry.folder.rename(tmp_path / "elsewhere"))
    assert in_force(moved) == "model b"
    assert problems(moved) == []


def objects(registry, number, name):
    entry = registry.read().entries[number - 1]
    return registry.path(entry.files[name].sha256)


def changed(path, content=b"evil"):
    path.chmod(0o644)
    path.write_bytes(content)


def test_a_changed_artifact_is_named_with_its_release(registry):
    changed(objects(registry, 1, "artifacts/model.onnx"), b"model A")
    (said,) = problems(registry)
    assert said.startswith("artifacts/model.onnx of credit release 1 (objects/")
    assert "was changed: its sha256 is" in said
    changed(objects(registry, 1, "artifacts/model.onnx"), b"longer than before")
    assert problems(registry)[0].endswith("18 bytes instead of 7")


def test_changed_evidence_is_named(registry):
    changed(objects(registry, 2, "evidence.json"))
    assert ["evidence.json of credit release 2" in said for said in problems(registry)] == [True]


def test_a_file_that_two_releases_share_is_named_with_both(registry):
    objects(registry, 1, "report.md").unlink()
    (said,) = problems(registry)
    assert said.startswith("report.md of credit release 1 and report.md of credit release 2 (objects/")
    assert said.endswith("is missing")


def test_only_the_named_model_is_checked_but_the_whole_chain(registry):
    approve(registry, "x", model="fraud")
    changed(objects(registry, 1, "artifacts/model.onnx"))
    assert problems(registry, model="fraud") == []
    assert len(problems(registry, model="credit")) == 1
    assert check_registry(registry, "fraud").entries == 3
    with pytest.raises(StoreError, match="no model 'fruad' was approved here") as caught:
        check_registry(registry, "fruad")
    assert "did you mean 'fraud'" in caught.value.hint


def replaced(path):
    path.unlink()
    path.write_bytes(b"other")


def pointed(path):
    path.unlink()
    path.symlink_to("/etc/passwd")


RELEASES = {
    "lost": (lambda folder: (folder / "report.md").unlink(), "models/credit/releases/0002/report.md is missing"),
    "replaced": (
        lambda folder: replaced(folder / "artifacts/model.onnx"),
        "models/credit/releases/0002/artifacts/model.onnx was replaced by something that is no link",
    ),
    "pointed": (
        lambda folder: pointed(folder / "artifacts/model.onnx"),
        "models/credit/releases/0002/artifacts/model.onnx was pointed elsewhere: /etc/passwd",
    ),
    "added": (
        lambda folder: (folder / "artifacts/more.onnx").write_bytes(b"x"),
        "models/credit/releases/0002/artifacts/more.onnx was added",
    ),
}


@pytest.mark.parametrize("damage", RELEASES)
def test_a_release_that_is_not_what_was_approved_is_named(registry, damage):
    change, expected = RELEASES[damage]
    change(registry.release("credit", 2))
    assert problems(registry) == [expected]


def test_a_pointer_that_was_moved_by_hand_is_named_and_set_right_by_the_next_command(registry):
    pointer = registry.current("credit")
    pointer.unlink()
    pointer.symlink_to("releases/0001")
    (said,) = problems(registry)
    assert said.startswith("models/credit/current stands at release 1, the log says release 2")
    with registry.locked():
        pass
    assert in_force(registry) == "model b"
    pointer.unlink()
    assert problems(registry)[0].startswith("models/credit/current is missing")


def test_a_hash_noted_elsewhere_must_still_be_in_the_log(registry):
    noted = registry.read().entries[0].sha256
    assert problems(registry, head=noted) == []
    assert problems(registry, head="f" * 64) == [
        f"log.jsonl: no entry has the sha256 {'f' * 64}: it was removed, or edited since"
    ]


def test_nothing_is_written_beside_a_damaged_log(registry):
    before = b"".join(lines(registry)[:1])
    (registry.folder / "log.jsonl").write_bytes(before)
    with pytest.raises(ApprovalError, match="1 entry was cut off the end"):
        approve(registry, "c")
    assert (registry.folder / "log.jsonl").read_bytes() == before
    assert in_force(registry) == "model b"


def test_there_is_no_registry_until_something_is_approved(tmp_path):
    with pytest.raises(StoreError, match="there is no approval log") as caught:
        Registry(tmp_path / "approved").read()
    assert "--registry" in caught.value.hint


def test_a_folder_of_something_else_is_not_taken(tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(StoreError, match="is not a folder of approvals"):
        approve(Registry(tmp_path), "a")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(StoreError, match="is not a folder"):
        approve(Registry(tmp_path / "mine.txt"), "a")


class Died(BaseException):
    """As if the process ended here."""


WRITES = 8


def dying_after(monkeypatch, allowed):
    """Lets the process die instead of its write number `allowed`, whatever it writes: a file, a folder, a pointer."""
    done = []

    def counted(real):
        def write(*arguments):
            if len(done) == allowed:
                raise Died
            done.append(arguments[0])
            return real(*arguments)

        return write

    monkeypatch.setattr(module, "write_atomic", counted(module.write_atomic))
    monkeypatch.setattr(module, "link_atomic", counted(module.link_atomic))
    monkeypatch.setattr(Registry, "_lay_out", counted(Registry._lay_out))
    return done


def test_an_approval_makes_as_many_writes_as_the_kill_tests_reach(registry, monkeypatch):
    done = dying_after(monkeypatch, 99)
    approve(registry, "c", sign=lambda line: b"signature")
    # artifact, evidence (the report was kept before), folder, signature, log, head, pointer
    assert len(done) == WRITES - 1


@pytest.mark.parametrize("allowed", range(WRITES - 1))
def test_an_approval_that_is_killed_at_any_write_leaves_the_old_state_or_the_new(registry, monkeypatch, allowed):
    with monkeypatch.context() as patch:
        dying_after(patch, allowed)
        with pytest.raises(Died):
            approve(registry, "c", sign=lambda line: b"signature")
    # What a deployment reads is whole, and is what it was: the pointer comes last.
    assert in_force(registry) == "model b"
    log = registry.read()
    assert log.problems == ()
    written = len(log.entries) == 3
    assert written == (allowed >= 5)
    found = [said for said in problems(registry) if "signature" not in said]
    if written:
        assert [
            "entry 3 was written by a command that was stopped" in said or "stands at release 2" in said
            for said in found
        ] == [True]
        assert "edge-compress rollback credit --to 3" in found[0]
    else:
        assert found == []
    # The next command finishes it.
    with registry.locked():
        pass
    assert in_force(registry) == ("model c" if written else "model b")
    assert [said for said in problems(registry) if "signature" not in said] == []
    assert leftovers(registry.folder) == []


@pytest.mark.parametrize("allowed", range(3))
def test_a_rollback_that_is_killed_leaves_the_old_state_or_the_new(registry, monkeypatch, allowed):
    with monkeypatch.context() as patch:
        done = dying_after(patch, allowed + 1)
        with pytest.raises(Died):
            rollback(registry, 1)
        assert len(done) == allowed + 1
    assert in_force(registry) == "model b"
    assert registry.read().problems == ()
    with registry.locked():
        pass
    assert in_force(registry) == ("model b" if allowed == 0 else "model a")
    assert problems(registry) == []


@pytest.mark.parametrize("allowed", range(5))
def test_a_full_disk_leaves_what_was_in_force(registry, monkeypatch, allowed):
    real, calls = os.fsync, []

    def full(descriptor):
        if len(calls) == allowed:
            raise OSError(errno.ENOSPC, "No space left on device")
        calls.append(descriptor)
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match="No space left") as caught:
            approve(registry, "c", sign=lambda line: b"signature")
    assert "the disk is full" in caught.value.hint
    assert in_force(registry) == "model b"
    assert leftovers(registry.folder) == []
    approve(registry, "d")
    assert in_force(registry) == "model d"
    assert [said for said in problems(registry) if "signature" not in said] == []


WRITER = f"""
import os, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from ledger_kit import approve, rollback
from compress.store.ledger_registry import Registry

registry = Registry(Path(sys.argv[1]))
number = 0
while True:
    number += 1
    entry = approve(registry, f"{{os.getpid()}} {{number}}")
    if number % 3 == 0:
        rollback(registry, registry.state("credit").before.sequence)
    if number == 1:
        print("ready", flush=True)
"""


def test_commands_that_are_killed_leave_a_sound_log_and_a_whole_release(tmp_path):
    registry = Registry(tmp_path / "approved")
    for delay_s in (0.01, 0.023, 0.04, 0.061):
        killed_while_writing(WRITER, registry.folder, delay_s)
        assert registry.read().problems == ()
        assert in_force(registry).startswith("model ")
    with registry.locked():
        pass
    checked = check_registry(registry)
    assert checked.problems == ()
    assert checked.entries >= 4
    assert leftovers(registry.folder) == []


TWO = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from ledger_kit import approve
from compress.store.ledger_registry import Registry

for number in range(8):
    approve(Registry(Path(sys.argv[1])), f"{{sys.argv[2]}} {{number}}", model=sys.argv[2])
"""


def test_two_approvals_at_once_both_stand_in_one_chain(tmp_path):
    folder = tmp_path / "approved"
    running = [subprocess.Popen([sys.executable, "-c", TWO, str(folder), name]) for name in ("credit", "fraud")]
    assert [process.wait(timeout=60) for process in running] == [0, 0]
    checked = check_registry(Registry(folder))
    assert (checked.entries, checked.problems) == (16, ())


def test_a_command_that_does_not_end_is_told(registry, monkeypatch):
    monkeypatch.setattr(module, "_WAIT_S", 0.0)
    with registry.locked(), pytest.raises(StoreError, match="another command has been writing here"), registry.locked():
        pass

"""Approval of a run: what is copied, what is refused, what is in force afterwards."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from approval_kit import ADA, make_out

from compress.errors import ApprovalError, StoreError
from compress.store.cache import digest
from compress.store.ledger_check import check_registry
from compress.store.ledger_registry import Registry
from compress.workflow.approval import approve, approved_artifact, rollback


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return make_out(tmp_path / "out")


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    return tmp_path / "approved"


def in_force(registry: Path, name: str = "credit") -> str:
    (found,) = (registry / "models" / name / "current" / "artifacts").glob("*.onnx")
    return found.read_text()


def test_what_ships_is_copied_with_what_belongs_to_it_and_no_rows(out: Path, registry: Path) -> None:
    moved = approve(out, ADA, reason="quarterly review")
    assert moved.folder == registry
    assert set(moved.entry.files) == {
        "artifacts/credit.phone.int8.onnx",
        "artifacts/credit.classes.json",
        "evidence.json",
        "manifest.json",
        "report.md",
    }
    for name, record in moved.entry.files.items():
        data = (registry / "models/credit/current" / name).read_bytes()
        assert data == (out / "current" / name).read_bytes()
        assert (digest(data), len(data)) == (record.sha256, record.size_bytes)
    entry = moved.entry
    assert (entry.who, entry.reason, entry.status, entry.override, entry.signed) == (
        ADA,
        "quarterly review",
        "PASS",
        "",
        False,
    )
    assert entry.targets["phone"].scheme == "int8"
    assert entry.evidence == entry.files["evidence.json"].sha256


def test_the_output_folder_may_go_afterwards(out: Path, registry: Path) -> None:
    approve(out, ADA)
    shutil.rmtree(out)
    assert in_force(registry) == "credit phone int8 a"
    assert check_registry(Registry(registry)).problems == ()


@pytest.mark.parametrize("place", [".", "runs/..", "../out"])
def test_approvals_lie_beside_the_output_folder_however_it_is_named(
    out: Path, registry: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(out)
    approve(Path(place), ADA)
    assert in_force(registry) == "credit phone int8 a"
    assert not (out / "approved").exists()


def test_approving_the_same_again_adds_nothing(out: Path, registry: Path) -> None:
    assert approve(out, ADA).is_new
    again = approve(out, "Bob <bob@bank.example>")
    assert not again.is_new
    assert again.entry.who == ADA
    assert len(Registry(registry).read().entries) == 1


@pytest.mark.parametrize("status", ["FAIL", "INCONCLUSIVE", "INCOMPARABLE"])
def test_what_did_not_pass_is_refused_and_the_last_stays(out: Path, registry: Path, status: str) -> None:
    approve(out, ADA)
    make_out(out, "b", status=status)
    with pytest.raises(ApprovalError, match=f"the gate says {status}, not PASS: phone: nothing ships") as caught:
        approve(out, ADA)
    assert caught.value.exit_code == 1
    assert "--override REASON" in caught.value.hint
    assert in_force(registry) == "credit phone int8 a"
    assert len(Registry(registry).read().entries) == 1


def test_an_override_says_what_ships_and_is_kept(out: Path, registry: Path) -> None:
    make_out(out, "b", status="FAIL")
    with pytest.raises(ApprovalError, match="nothing ships on any target") as caught:
        approve(out, ADA, override="pilot with 20 users")
    assert "--ship TARGET=SCHEME" in caught.value.hint
    entry = approve(out, ADA, override="pilot with 20 users", ship={"phone": "float32"}).entry
    assert (entry.status, entry.override) == ("FAIL", "pilot with 20 users")
    assert in_force(registry) == "credit phone float32 b"


def test_to_choose_against_the_gate_needs_a_reason(out: Path) -> None:
    with pytest.raises(StoreError, match="--ship chooses against the gate"):
        approve(out, ADA, ship={"phone": "float32"})


@pytest.mark.parametrize(
    ("ship", "message"),
    [({"fone": "int8"}, "no target 'fone'"), ({"phone": "int4"}, "no artifact of 'int4' on phone")],
)
def test_a_choice_that_is_not_there_is_told(out: Path, ship: dict[str, str], message: str) -> None:
    with pytest.raises(StoreError, match=message) as caught:
        approve(out, ADA, override="x", ship=ship)
    assert caught.value.exit_code == 2
    assert "did you mean" in caught.value.hint


DAMAGE = {
    "artifact": lambda run: (run / "artifacts/credit.phone.int8.onnx").write_bytes(b"evil"),
    "evidence": lambda run: (run / "evidence.json").write_bytes(b"{}"),
    "lost file": lambda run: (run / "report.md").unlink(),
    "manifest": lambda run: (run / "manifest.json").write_bytes(
        (run / "manifest.json").read_bytes().replace(b'"PASS"', b'"FAIL"')
    ),
    "no manifest": lambda run: (run / "manifest.json").unlink(),
    "a list": lambda run: (run / "manifest.json").write_bytes(b"[]"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_run_that_was_changed_is_not_approved(out: Path, registry: Path, damage: str) -> None:
    DAMAGE[damage]((out / "current").resolve())
    with pytest.raises(StoreError) as caught:
        approve(out, ADA)
    assert caught.value.exit_code == 2
    assert not registry.exists()


def forged(out: Path, change) -> None:
    """A run whose manifest was written anew, under the name that fits it."""
    run = (out / "current").resolve()
    manifest = json.loads((run / "manifest.json").read_bytes())
    change(manifest, run)
    text = json.dumps(manifest).encode()
    (run / "manifest.json").write_bytes(text)
    os.rename(run, run.parent / digest(text)[:12])
    (out / "current").unlink()
    (out / "current").symlink_to(f"runs/{digest(text)[:12]}")


@pytest.mark.parametrize("path", ["../../../secret", "/etc/hostname", "link"])
def test_a_manifest_cannot_reach_out_of_its_run(out: Path, registry: Path, path: str) -> None:
    (out.parent / "secret").write_text("secret")

    def change(manifest, run):
        (run / "link").symlink_to(out.parent / "secret")
        manifest["files"].append({"path": path, "sha256": digest(b"secret")})
        manifest["attachments"].append(path)

    forged(out, change)
    with pytest.raises(StoreError, match="leads out of the run"):
        approve(out, ADA)
    assert not registry.exists()


def test_a_status_in_the_manifest_alone_counts_for_nothing(out: Path) -> None:
    make_out(out, "b", status="FAIL")
    forged(out, lambda manifest, run: manifest.update(status="PASS"))
    with pytest.raises(ApprovalError, match="the gate says FAIL"):
        approve(out, ADA)


def test_a_folder_without_a_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="holds no finished run"):
        approve(tmp_path, ADA)


@pytest.mark.parametrize("who", ["", "Ada", "ada@bank.example", "Ada <ada>", "Ada <a@b>\n", "A\x1b[2J <a@b>"])
def test_who_approves_is_a_name_and_a_mail(out: Path, registry: Path, who: str) -> None:
    with pytest.raises(StoreError, match="--by must be"):
        approve(out, who)
    with pytest.raises(StoreError, match="--by must be"):
        rollback(registry, "credit", who)
    with pytest.raises(StoreError, match="one line of text"):
        approve(out, ADA, reason="two\nlines")


def test_several_targets_and_models_share_one_log(tmp_path: Path, registry: Path) -> None:
    approve(make_out(tmp_path / "out", targets=("phone", "server")), ADA)
    approve(make_out(tmp_path / "fraud", name="fraud"), ADA)
    log = Registry(registry).read()
    assert [(entry.sequence, entry.model) for entry in log.entries] == [(1, "credit"), (2, "fraud")]
    assert set(log.entries[0].targets) == {"phone", "server"}
    assert in_force(registry, "fraud") == "fraud phone int8 a"


def test_rollback_is_one_call_and_adds_to_the_log(out: Path, registry: Path) -> None:
    approve(out, ADA)
    approve(make_out(out, "b"), ADA)
    entry = rollback(registry, "credit", ADA, reason="incident 12").entry
    assert (entry.action, entry.release, entry.reason) == ("rollback", 1, "incident 12")
    assert in_force(registry) == "credit phone int8 a"
    with pytest.raises(StoreError, match="before release 1 there is none"):
        rollback(registry, "credit", ADA)
    assert rollback(registry, "credit", ADA, to=2).entry.sequence == 4
    assert in_force(registry) == "credit phone int8 b"
    assert not rollback(registry, "credit", ADA, to=2).is_new
    assert check_registry(Registry(registry)).problems == ()


def test_a_rollback_to_nowhere_is_told(out: Path, registry: Path) -> None:
    with pytest.raises(StoreError, match="there is no approval log"):
        rollback(registry, "credit", ADA)
    assert not registry.exists()
    approve(out, ADA)
    with pytest.raises(StoreError, match="no model 'crdit'") as caught:
        rollback(registry, "crdit", ADA)
    assert "did you mean 'credit'" in caught.value.hint
    with pytest.raises(StoreError, match="credit has no release 7") as caught:
        rollback(registry, "credit", ADA, to=7)
    assert "releases: 1." in caught.value.hint


def damage(registry: Path, sha: str) -> None:
    path = Registry(registry).path(sha)
    path.chmod(0o644)
    path.write_bytes(b"evil")


def test_a_rollback_to_a_damaged_release_is_refused_and_the_current_one_stays(out: Path, registry: Path) -> None:
    first = approve(out, ADA).entry
    approve(make_out(out, "b"), ADA)
    damage(registry, first.targets["phone"].sha256)
    with pytest.raises(ApprovalError, match=r"release 1 of credit: artifacts/.* was changed.*; release 2 stays"):
        rollback(registry, "credit", ADA)
    assert in_force(registry) == "credit phone int8 b"


def test_approving_again_mends_a_damaged_file(out: Path, registry: Path) -> None:
    entry = approve(out, ADA).entry
    damage(registry, entry.targets["phone"].sha256)
    assert not approve(out, ADA).is_new
    assert check_registry(Registry(registry)).problems == ()


def test_an_approved_artifact_is_given_only_whole(out: Path, registry: Path) -> None:
    entry = approve(out, ADA).entry
    found = approved_artifact(registry, "credit", "phone")
    assert found.path.read_bytes() == b"credit phone int8 a"
    assert (found.sha256, found.entry) == (digest(b"credit phone int8 a"), entry)
    assert json.loads(found.evidence.read_bytes())["name"] == "credit"
    with pytest.raises(StoreError, match="ships nothing on 'fone'"):
        approved_artifact(registry, "credit", "fone")
    damage(registry, entry.evidence)
    with pytest.raises(ApprovalError, match=r"evidence.json was changed"):
        approved_artifact(registry, "credit", "phone")
    damage(registry, found.sha256)
    with pytest.raises(ApprovalError, match=r"credit.phone.int8.onnx was changed"):
        approved_artifact(registry, "credit", "phone")


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed here")
def test_an_approved_artifact_must_be_signed_where_signers_are_named(out: Path, registry: Path) -> None:
    key = out.parent / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    allowed = out.parent / "allowed"
    allowed.write_text("ada@bank.example " + key.with_suffix(".pub").read_text())
    approve(out, ADA, key=key)
    assert approved_artifact(registry, "credit", "phone", allowed).sha256 == digest(b"credit phone int8 a")
    approve(make_out(out, "b"), ADA)
    with pytest.raises(ApprovalError, match="entry 2: is not signed"):
        approved_artifact(registry, "credit", "phone", allowed)
    rollback(registry, "credit", ADA)
    with pytest.raises(ApprovalError, match="entry 3: is not signed"):
        approved_artifact(registry, "credit", "phone", allowed)
    rollback(registry, "credit", ADA, to=2)
    rollback(registry, "credit", ADA, to=1, key=key)
    assert approved_artifact(registry, "credit", "phone", allowed).entry.sequence == 1


def test_a_key_that_cannot_sign_leaves_what_was_in_force(out: Path, registry: Path) -> None:
    approve(out, ADA)
    with pytest.raises(StoreError, match="no such key"):
        approve(make_out(out, "b"), ADA, key=out / "none")
    assert in_force(registry) == "credit phone int8 a"
    assert len(Registry(registry).read().entries) == 1

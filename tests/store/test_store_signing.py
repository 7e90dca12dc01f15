from __future__ import annotations

import shutil
import subprocess

import pytest
from ledger_kit import WHEN, WHO, approve, edited, lines

from compress.errors import ApprovalError, MissingPackageError, StoreError
from compress.store.ledger import read_log
from compress.store.ledger_check import check_registry
from compress.store.ledger_registry import Registry
from compress.store.signing import Signer, check_signature, mail_of

installed = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed here")


def make_key(folder, name, password=""):
    path = folder / name
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", password, "-C", name, "-f", str(path)], check=True)
    return path


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Keys of Ada and Eve, and files of allowed signers that know Ada."""
    folder = tmp_path_factory.mktemp("keys")
    public = {}
    for name in ("ada", "eve"):
        make_key(folder, name)
        public[name] = " ".join((folder / f"{name}.pub").read_text().split()[:2])
    (folder / "allowed").write_text(f'ada@bank.example namespaces="edge-compress" {public["ada"]}\n')
    (folder / "elsewhere").write_text(f'ada@bank.example namespaces="git" {public["ada"]}\n')
    (folder / "expired").write_text(f'ada@bank.example valid-before="20260201" {public["ada"]}\n')
    (folder / "later").write_text(f'ada@bank.example valid-before="20260401" {public["ada"]}\n')
    return folder


@installed
def test_a_signature_holds_for_its_data_and_its_signer(keys):
    signature = Signer(keys / "ada").sign(b"data")
    assert check_signature(b"data", signature, WHO, WHEN, keys / "allowed") == "signed by ada@bank.example"
    assert check_signature(b"data", signature, WHO, WHEN, None) == "signed, by whom was not checked"


CASES = {
    "other data": (lambda keys: (b"date", Signer(keys / "ada").sign(b"data"), WHO, keys / "allowed")),
    "other data, no list": (lambda keys: (b"date", Signer(keys / "ada").sign(b"data"), WHO, None)),
    "another key": (lambda keys: (b"data", Signer(keys / "eve").sign(b"data"), WHO, keys / "allowed")),
    "another person": (
        lambda keys: (b"data", Signer(keys / "ada").sign(b"data"), "Eve <eve@bank.example>", keys / "allowed")
    ),
    "another namespace": (lambda keys: (b"data", Signer(keys / "ada").sign(b"data"), WHO, keys / "elsewhere")),
    "a key that had expired": (lambda keys: (b"data", Signer(keys / "ada").sign(b"data"), WHO, keys / "expired")),
    "no signature": (lambda keys: (b"data", b"-----BEGIN SSH SIGNATURE-----\n", WHO, keys / "allowed")),
}


@installed
@pytest.mark.parametrize("case", CASES)
def test_a_signature_that_is_not_good_is_refused(keys, case):
    data, signature, who, allowed = CASES[case](keys)
    with pytest.raises(ApprovalError, match="is not good") as caught:
        check_signature(data, signature, who, WHEN, allowed)
    assert caught.value.exit_code == 1


@installed
def test_a_key_that_expired_later_was_good_then(keys):
    signature = Signer(keys / "ada").sign(b"data")
    assert check_signature(b"data", signature, WHO, WHEN, keys / "later") == "signed by ada@bank.example"


@installed
def test_keys_and_lists_that_cannot_be_used_are_told(keys, tmp_path):
    with pytest.raises(StoreError, match="there is no such key"):
        Signer(tmp_path / "none").sign(b"data")
    (tmp_path / "bad").write_text("no key")
    (tmp_path / "bad").chmod(0o600)
    with pytest.raises(StoreError, match="cannot sign"):
        Signer(tmp_path / "bad").sign(b"data")
    with pytest.raises(StoreError, match="no such file of allowed signers"):
        check_signature(b"data", b"", WHO, WHEN, tmp_path / "none")


def test_without_ssh_keygen_it_is_said_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "key").write_text("x")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(MissingPackageError, match="ssh-keygen"):
        Signer(tmp_path / "key").sign(b"data")


@pytest.mark.parametrize(
    ("who", "mail"),
    [
        (WHO, "ada@bank.example"),
        ("A. B. <a+b@c>", "a+b@c"),
        ("ada@bank.example", ""),
        ("<ada@bank.example>", ""),
        ("Ada <*@bank.example>", ""),
        ("Ada <ada@bank.example,eve@bank.example>", ""),
        ("Ada <!ada@bank.example>", ""),
        ("Ada <ada>", ""),
        ("", ""),
    ],
)
def test_a_mail_is_one_plain_address(who, mail):
    assert mail_of(who) == mail


@pytest.fixture
def signed(keys, tmp_path):
    registry = Registry(tmp_path / "approved")
    approve(registry, "a", sign=Signer(keys / "ada").sign)
    return registry


@installed
def test_verify_checks_who_signed(signed, keys):
    assert check_registry(signed, allowed=keys / "allowed").problems == ()
    assert check_registry(signed, allowed=keys / "allowed").signatures == ("entry 1: signed by ada@bank.example",)
    (said,) = check_registry(signed, allowed=keys / "elsewhere").problems
    assert said.startswith("log.jsonl: entry 1: the signature of Ada Byron <ada@bank.example> is not good")


@installed
def test_an_entry_without_a_signature_is_not_accepted_where_signers_are_named(signed, keys):
    approve(signed, "b")
    assert check_registry(signed).signatures == ("entry 1: signed, by whom was not checked", "entry 2: not signed")
    (said,) = check_registry(signed, allowed=keys / "allowed").problems
    assert said.startswith("log.jsonl: entry 2: is not signed")


@installed
def test_a_signature_that_was_taken_away_is_missed(signed):
    signed.signature_path(signed.read().entries[0]).unlink()
    (said,) = check_registry(signed).problems
    assert said.startswith("log.jsonl: entry 1: its signature ")
    assert "is missing" in said


@installed
def test_a_forged_chain_does_not_keep_its_signatures(signed, keys):
    """Who can write the folder can make the chain again from the start, but not sign it."""
    entry = signed.read().entries[0]
    signature = signed.signature_path(entry).read_bytes()
    forged = edited(lines(signed)[0], reason="forged")
    log = read_log(forged, None)
    assert log.problems == ()
    with pytest.raises(ApprovalError, match="is not good"):
        check_signature(log.entries[0].line, signature, WHO, WHEN, keys / "allowed")

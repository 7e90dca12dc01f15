from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_kit import approve, edited, lines, rollback, write_lines

from compress.store.ledger import START, Entry, is_inside, read_log, state_of
from compress.store.ledger_registry import Registry


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """Entries 1 to 4: three approvals of credit and a rollback to the second; 5 is of another model."""
    registry = Registry(tmp_path_factory.mktemp("ledger") / "approved")
    for mark in "abc":
        approve(registry, mark)
    rollback(registry, 2)
    approve(registry, "x", model="fraud")
    return registry


@pytest.fixture
def log(template, tmp_path):
    """The lines of that log in a folder of the test's own, with its head."""
    registry = Registry(tmp_path / "approved")
    registry.folder.mkdir()
    for name in ("log.jsonl", "head.json"):
        (registry.folder / name).write_bytes((template.folder / name).read_bytes())
    return registry


def test_a_line_holds_the_hash_of_the_line_before(template):
    content = lines(template)
    previous = START
    for number, line in enumerate(content, start=1):
        entry = json.loads(line)
        assert (entry["sequence"], entry["previous"]) == (number, previous)
        previous = hashlib.sha256(line).hexdigest()
    assert json.loads((template.folder / "head.json").read_bytes()) == {"sequence": 5, "sha256": previous}


def test_a_log_that_nobody_touched_has_no_problems(template):
    log = template.read()
    assert log.problems == ()
    assert log.unfinished is None
    assert [(entry.action, entry.model, entry.release) for entry in log.entries] == [
        ("approve", "credit", 1),
        ("approve", "credit", 2),
        ("approve", "credit", 3),
        ("rollback", "credit", 2),
        ("approve", "fraud", 5),
    ]
    assert b"".join(entry.line for entry in log.entries) == b"".join(lines(template))


DAMAGE = {
    "an entry edited": (
        lambda old: [old[0], edited(old[1], who="Eve <eve@bank.example>"), *old[2:]],
        ["entry 2 was edited"],
    ),
    "the first edited": (lambda old: [edited(old[0], reason="better"), *old[1:]], ["entry 1 was edited"]),
    "the last edited": (
        lambda old: [*old[:4], edited(old[4], who="Eve <eve@b.example>")],
        ["entry 5, the last, was edited"],
    ),
    "a predecessor for the first": (
        lambda old: [edited(old[0], previous="1" * 64), *old[1:]],
        ["entry 1 was edited: it states a predecessor", "entry 1 was edited: its sha256"],
    ),
    "one entry removed": (lambda old: [old[0], *old[2:]], ["entry 2 is missing"]),
    "one removed at the end": (lambda old: old[:4], ["1 entry was cut off the end: it ends with entry 4"]),
    "three removed at the end": (lambda old: old[:2], ["3 entries were cut off the end: it ends with entry 2"]),
    "all removed": (lambda old: old[:0], ["5 entries were cut off the end: it ends with entry 0"]),
    "two swapped": (
        lambda old: [old[0], old[2], old[1], *old[3:]],
        ["line 2: holds entry 3: the lines were reordered"],
    ),
    "one twice": (lambda old: [*old[:2], old[1], *old[2:]], ["entry 2 stands 2 times"]),
    "the last line cut": (lambda old: [*old[:4], old[4][:80]], ["line 5: the line is cut off"]),
    "a newline lost": (lambda old: [*old[:4], old[4][:-1]], ["line 5: the line is cut off"]),
    "a line that is no JSON": (lambda old: [b"hello\n", *old[1:]], ["line 1: is no JSON"]),
    "bytes that are no text": (lambda old: [*old[:2], b"\xff\xfe\n", *old[3:]], ["line 3: is no JSON"]),
    "a line of another shape": (lambda old: [*old[:2], b"[]\n", *old[3:]], ["line 3: is no entry"]),
    "an empty line": (lambda old: [*old[:2], b"\n", *old[2:]], ["line 3: is no JSON"]),
    "a key removed": (
        lambda old: [
            json.dumps({k: v for k, v in json.loads(old[0]).items() if k != "who"}).encode() + b"\n",
            *old[1:],
        ],
        ["line 1: is no entry: who"],
    ),
    "a key added": (lambda old: [edited(old[0], extra=1), *old[1:]], ["line 1: was edited: it is not in the form"]),
    "spaces added": (
        lambda old: [old[0].replace(b",", b", ", 1), *old[1:]],
        ["line 1: was edited: it is not in the form"],
    ),
    "a newer schema": (lambda old: [*old[:4], edited(old[4], schema=2)], ["line 5: schema 2; this version reads 1"]),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_to_the_log_is_named_exactly(log, damage):
    change, expected = DAMAGE[damage]
    write_lines(log, change(lines(log)))
    problems = log.read().problems
    assert len(problems) == len(expected)
    for problem, words in zip(problems, expected, strict=True):
        assert problem.startswith("log.jsonl")
        assert words in problem


HEADS = {
    "lost": (None, "head.json: is missing beside 5 entries"),
    "no JSON": (b"{", "head.json: is damaged"),
    "of another shape": (b'{"sequence": "5", "sha256": 3}', "head.json: is damaged"),
    "behind": (b'{"sequence": 3, "sha256": ""}', "head.json: names entry 3 as the last, log.jsonl ends with entry 5"),
    "another hash": (b'{"sequence": 5, "sha256": "00"}', "entry 5, the last, was edited"),
    "ahead": (b'{"sequence": 6, "sha256": "00"}', "1 entry was cut off the end"),
}


@pytest.mark.parametrize("head", HEADS)
def test_damage_to_the_head_is_named(log, head):
    content, expected = HEADS[head]
    path = log.folder / "head.json"
    path.write_bytes(content) if content is not None else path.unlink()
    assert [expected in problem for problem in log.read().problems] == [True]


def rewritten(content, change):
    """A chain made again from the start after a change, as someone would who knows how: only its content can tell."""
    entries, previous = [], START
    for line in content:
        entry = change({**json.loads(line), "previous": previous})
        entries.append(edited(b"{}", **entry))
        previous = hashlib.sha256(entries[-1]).hexdigest()
    head = json.dumps({"sequence": len(entries), "sha256": previous}).encode()
    return b"".join(entries), head


def with_value(number, key, value):
    return lambda entry: {**entry, key: value} if entry["sequence"] == number else entry


IMPOSSIBLE = {
    "a path that leads out": (
        lambda e: (
            {**e, "files": {**e["files"], "../../etc/passwd": e["files"]["report.md"]}} if e["sequence"] == 1 else e
        ),
        "entry 1: '../../etc/passwd' leads out of its release",
    ),
    "a name that leads out": (with_value(5, "model", "../x"), "entry 5: '../x' is no name of a model"),
    "a hash that leads out": (with_value(1, "evidence", "../" * 20), "is no sha256"),
    "a rollback to what was not approved": (with_value(4, "release", 5), "entry 4: rolls back to release 5"),
    "a rollback to other files": (with_value(4, "release", 1), "entry 4: rolls back to release 1"),
    "an approval of another release": (with_value(3, "release", 1), "entry 3: an approval states release 1"),
    "a shipped file that was not kept": (
        with_value(3, "targets", {"phone": {"file": "x", "sha256": "a" * 64, "size_bytes": 1, "scheme": "s"}}),
        "entry 3: what ships on 'phone' is not among its files",
    ),
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_content_that_cannot_be_is_named_though_the_chain_holds(template, case):
    change, expected = IMPOSSIBLE[case]
    problems = read_log(*rewritten(lines(template), change)).problems
    assert any(expected in problem for problem in problems)


def test_a_chain_that_was_made_again_is_seen_by_a_hash_noted_elsewhere(template):
    noted = template.read().head.sha256
    log = read_log(*rewritten(lines(template), with_value(1, "reason", "another")))
    assert log.problems == ()
    assert noted not in {entry.sha256 for entry in log.entries}


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_no_change_of_a_byte_goes_unseen(template, data):
    content = b"".join(lines(template))
    head = (template.folder / "head.json").read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != content[place]))
    assert read_log(content[:place] + bytes([byte]) + content[place + 1 :], head).problems


@given(st.lists(st.sampled_from(["approve", "back", "to"]), max_size=12), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_where_a_model_stands_follows_from_its_entries(actions, random):
    entries: list[Entry] = []
    for action in ["approve", *actions]:
        state = state_of(entries, "m")
        number = len(entries) + 1
        if action == "approve":
            release = number
        elif action == "to":
            release = random.choice(list(state.releases))
        elif state.before is None:
            continue
        else:
            release = state.before.sequence
            assert release < state.current.sequence
            assert release not in state.withdrawn
        kind = "approve" if action == "approve" else "rollback"
        entries.append(Entry(number, "", kind, "m", release, {}, {}, "", "PASS", "", "w", "t", "", "0", False))
        after = state_of(entries, "m")
        assert after.current.sequence == release
        assert after.moved is entries[-1]
        assert release not in after.withdrawn
    assert state_of(entries, "other") is None


def test_a_rollback_passes_over_what_was_rolled_back_from(tmp_path):
    registry = Registry(tmp_path / "approved")
    for mark in "ab":
        approve(registry, mark)
    rollback(registry, 1)
    approve(registry, "c")
    state = registry.state("credit")
    assert state.withdrawn == {2}
    assert state.before.sequence == 1
    rollback(registry, 2)
    assert registry.state("credit").withdrawn == {4}


@pytest.mark.parametrize("path", ["", ".", "..", "/etc", "a//b", "a/../b", "a/", "../a", "a\\b", "a\0b"])
def test_a_path_that_leads_out_is_not_inside(path):
    assert not is_inside(path)
    assert is_inside("artifacts/credit.onnx")

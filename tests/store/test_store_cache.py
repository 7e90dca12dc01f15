from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from killed import killed_while_writing

from compress.errors import StoreError
from compress.store import cache as module
from compress.store.cache import Cache, digest, key

PLAIN = st.recursive(
    st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3), max_leaves=6
)
INPUTS = st.dictionaries(st.text("abcdef", min_size=1, max_size=4), PLAIN, max_size=4)


@given(INPUTS, INPUTS)
@settings(deadline=None)
def test_a_key_is_equal_for_equal_inputs_alone(one, other):
    assert (key("step", **one) == key("step", **other)) == (one == other)
    assert key("step", **one) == key("step", **dict(reversed(one.items())))
    assert key("step", **one) != key("steps", **one)


def test_a_finished_step_is_found_again_by_another_process(tmp_path):
    first = Cache(tmp_path)
    assert first.get("lower-1") is None
    put = first.put("lower-1", {"figure": 1.5, "names": ["a"]}, model=b"content", other=b"")
    second = Cache(tmp_path)
    assert second.get("lower-1") == put
    assert second.require(put["blobs"]["model"]) == b"content"
    assert second.require(put["blobs"]["other"]) == b""
    assert (first.reused, first.made) == ([], ["lower-1"])
    assert (second.reused, second.made) == (["lower-1"], [])


def test_equal_content_is_kept_once(tmp_path):
    cache = Cache(tmp_path)
    cache.put("a", {}, model=b"same")
    cache.put("b", {}, model=b"same")
    assert len([path for path in (tmp_path / "objects").rglob("*") if path.is_file()]) == 1


DAMAGE = {
    "a byte changed": lambda path: path.write_bytes(b"Content"),
    "cut short": lambda path: path.write_bytes(b"cont"),
    "emptied": lambda path: path.write_bytes(b""),
    "lost": lambda path: path.unlink(),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_blob_counts_as_absent_and_so_does_its_step(tmp_path, damage):
    cache = Cache(tmp_path)
    sha = cache.put("lower-1", {}, model=b"content")["blobs"]["model"]
    DAMAGE[damage](cache.path(sha))
    assert cache.blob(sha) is None
    assert cache.get("lower-1") is None
    assert cache.reused == []
    with pytest.raises(StoreError, match="is gone or damaged"):
        cache.require(sha)


def test_a_damaged_blob_is_made_again(tmp_path):
    cache = Cache(tmp_path)
    sha = cache.put("lower-1", {}, model=b"content")["blobs"]["model"]
    cache.path(sha).write_bytes(b"damage")
    cache.put("lower-1", {}, model=b"content")
    assert cache.blob(sha) == b"content"
    assert cache.get("lower-1") is not None


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[]", b"3", b"{}", b'{"blobs": 3}', b'{"blobs": ["x"]}', b'{"blobs": {"model": 3}}'],
)
def test_a_damaged_step_counts_as_absent(tmp_path, content):
    cache = Cache(tmp_path)
    cache.put("lower-1", {"figure": 1}, model=b"content")
    (tmp_path / "steps" / "lower-1.json").write_bytes(content)
    assert cache.get("lower-1") is None


def test_a_result_that_json_cannot_hold_is_not_written(tmp_path):
    cache = Cache(tmp_path)
    with pytest.raises(ValueError, match="JSON"):
        cache.put("bad", {"figure": float("nan")})
    assert cache.get("bad") is None
    assert cache.made == []


@pytest.mark.parametrize("allowed", [0, 1, 2])
def test_a_step_is_never_visible_before_all_that_it_names(tmp_path, monkeypatch, allowed):
    """As if the process died at each of its three writes."""
    real, calls = module.write_atomic, []

    def dying(path, data):
        if len(calls) == allowed:
            raise KeyboardInterrupt
        calls.append(path)
        real(path, data)

    monkeypatch.setattr(module, "write_atomic", dying)
    with pytest.raises(KeyboardInterrupt):
        Cache(tmp_path).put("lower-1", {}, one=b"1", two=b"2")
    assert not (tmp_path / "steps").exists()
    assert Cache(tmp_path).get("lower-1") is None


WRITER = """
import os, sys
from pathlib import Path
from compress.store.cache import Cache

cache = Cache(Path(sys.argv[1]))
number = 0
while True:
    number += 1
    content = [(f"{os.getpid()} {number} {blob} " * 3000).encode() for blob in range(3)]
    cache.put(f"step-{os.getpid()}-{number}", {"number": number}, one=content[0], two=content[1], three=content[2])
    if number == 1:
        print("ready", flush=True)
"""


def test_killed_runs_leave_only_whole_results(tmp_path):
    for delay_s in (0.004, 0.011, 0.023, 0.05):
        killed_while_writing(WRITER, tmp_path, delay_s)
    cache = Cache(tmp_path)
    steps = sorted((tmp_path / "steps").glob("step-*.json"))
    assert steps
    for step in steps:
        result = cache.get(step.stem)
        assert result is not None
        assert [digest(cache.require(sha)) for sha in result["blobs"].values()] == list(result["blobs"].values())
        assert json.loads(step.read_bytes())["number"] == int(step.stem.rpartition("-")[2])

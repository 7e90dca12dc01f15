from __future__ import annotations

import errno
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.errors import StoreError
from compress.store.atomic import link_atomic, write_atomic


@pytest.fixture
def failing(monkeypatch):
    """Lets one call of the operating system fail from now on."""

    def fail(name, number):
        def refuse(*_, **__):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, name, refuse)

    return fail


def leftovers(folder):
    return sorted(path.name for path in folder.iterdir())


@given(st.lists(st.binary(max_size=2000), min_size=1, max_size=4))
@settings(max_examples=25, deadline=None)
def test_the_last_content_stands_there(tmp_path_factory, contents):
    path = tmp_path_factory.mktemp("store") / "deep" / "er" / "file.bin"
    for content in contents:
        write_atomic(path, content)
        assert path.read_bytes() == content
    assert leftovers(path.parent) == ["file.bin"]


FAILURES = [
    ("fsync", errno.ENOSPC, "No space left", "the disk is full"),
    ("replace", errno.ENOSPC, "No space left", "the disk is full"),
    ("fsync", errno.EDQUOT, "quota", "the disk is full"),
    ("replace", errno.EACCES, "Permission denied", "read-only"),
    ("replace", errno.EROFS, "Read-only", "read-only"),
    ("fsync", errno.EIO, "Input/output", "check the path"),
]


@pytest.mark.parametrize(("call", "number", "message", "hint"), FAILURES, ids=lambda value: str(value))
@pytest.mark.parametrize("old", [None, b"old"], ids=["new file", "old file"])
def test_a_failed_write_leaves_the_old_content_and_nothing_beside_it(
    tmp_path, failing, old, call, number, message, hint
):
    path = tmp_path / "file.bin"
    if old is not None:
        path.write_bytes(old)
    failing(call, number)
    with pytest.raises(StoreError, match=message) as caught:
        write_atomic(path, b"new")
    assert caught.value.message.startswith(f"{path}: cannot be written: ")
    assert hint in caught.value.hint
    assert caught.value.exit_code == 2
    assert leftovers(tmp_path) == ([] if old is None else ["file.bin"])
    assert old is None or path.read_bytes() == old


def test_a_device_that_is_full_is_told(tmp_path, monkeypatch):
    """The kernel's own answer, not a pretended one: whatever is written goes to /dev/full."""
    scratch = tmp_path / ".file.bin.full.tmp"
    scratch.symlink_to("/dev/full")
    monkeypatch.setattr(type(scratch), "with_name", lambda self, name: scratch)
    monkeypatch.setattr(type(scratch), "open", lambda self, mode: open(os.fspath(self), "wb"))  # noqa: SIM115
    with pytest.raises(StoreError, match="No space left on device"):
        write_atomic(tmp_path / "file.bin", b"new")
    assert leftovers(tmp_path) == []


def test_a_file_where_a_folder_is_needed_is_told(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="cannot be written") as caught:
        write_atomic(tmp_path / "file" / "inside.bin", b"new")
    assert "a file stands where a folder is needed" in caught.value.hint
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError, match="cannot be written") as caught:
        write_atomic(tmp_path / "folder", b"new")
    assert "a file stands where a folder is needed" in caught.value.hint
    assert leftovers(tmp_path) == ["file", "folder"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_told(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(StoreError, match="Permission denied") as caught:
            write_atomic(tmp_path / "file.bin", b"new")
    finally:
        tmp_path.chmod(0o700)
    assert "choose another one with --out" in caught.value.hint


def test_a_link_replaces_a_link_and_nothing_else(tmp_path):
    link_atomic(tmp_path / "current", "runs/a")
    link_atomic(tmp_path / "current", "runs/b")
    assert os.readlink(tmp_path / "current") == "runs/b"
    for name in ("file", "folder"):
        (tmp_path / name).mkdir() if name == "folder" else (tmp_path / name).write_text("x")
        with pytest.raises(StoreError, match="stands in the way of a link to runs/a"):
            link_atomic(tmp_path / name, "runs/a")
    assert leftovers(tmp_path) == ["current", "file", "folder"]


@pytest.mark.parametrize("call", ["replace", "symlink"])
def test_a_failed_link_leaves_the_old_one_and_nothing_beside_it(tmp_path, failing, call):
    link_atomic(tmp_path / "current", "runs/a")
    failing(call, errno.ENOSPC)
    with pytest.raises(StoreError, match="No space left"):
        link_atomic(tmp_path / "current", "runs/b")
    assert os.readlink(tmp_path / "current") == "runs/a"
    assert leftovers(tmp_path) == ["current"]

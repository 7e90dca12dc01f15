from __future__ import annotations

import errno
import json
import os
import subprocess
import sys

import pytest
from killed import killed_while_writing

from compress.errors import StoreError
from compress.store.cache import digest
from compress.store.outdir import OutputFolder

VIEWS = {"artifacts", "evidence.json", "manifest.json", "report.md", "report.html", "model_card.md"}


def folder(tmp_path, owner="recipe"):
    return OutputFolder(tmp_path / "out", owner)


def files(mark="a"):
    return {"artifacts/model.onnx": f"model {mark}".encode(), "evidence.json": b"{}", "report.md": mark.encode()}


def publish(output, mark="a"):
    with output.claimed():
        return output.publish(files(mark), {"mark": mark})


def whole(run):
    """Whether every file of a run is what its manifest says, and there is no other."""
    manifest = json.loads((run / "manifest.json").read_bytes())
    listed = {entry["path"]: entry for entry in manifest["files"]}
    there = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()} - {"manifest.json"}
    return there == set(listed) and all(
        (digest(data), len(data)) == (listed[name]["sha256"], listed[name]["size_bytes"])
        for name in there
        for data in [(run / name).read_bytes()]
    )


def test_a_published_run_is_seen_through_links_that_never_change(tmp_path):
    output = folder(tmp_path)
    run = publish(output)
    out = tmp_path / "out"
    assert run.parent == out / "runs"
    assert os.readlink(out / "current") == f"runs/{run.name}"
    assert (out / "artifacts" / "model.onnx").read_bytes() == b"model a"
    assert (out / "report.md").read_bytes() == b"a"
    before = {name: os.readlink(out / name) for name in VIEWS}
    publish(output, "b")
    assert (out / "report.md").read_bytes() == b"b"
    assert {name: os.readlink(out / name) for name in VIEWS} == before
    assert whole(run)
    assert whole((out / "current").resolve())


def test_the_manifest_lists_every_file_and_keeps_what_it_was_given(tmp_path):
    output = folder(tmp_path)
    publish(output)
    manifest = output.current_manifest()
    assert manifest["mark"] == "a"
    assert {entry["path"] for entry in manifest["files"]} == set(files())


def test_publishing_the_same_again_gives_the_same_run(tmp_path):
    output = folder(tmp_path)
    first = publish(output)
    stamp = (first / "report.md").stat().st_mtime_ns
    publish(output, "b")
    assert publish(output) == first
    assert (first / "report.md").stat().st_mtime_ns == stamp
    assert (tmp_path / "out" / "current").resolve() == first
    assert len(list((tmp_path / "out" / "runs").iterdir())) == 2


def test_publishing_the_same_again_mends_a_damaged_run(tmp_path):
    output = folder(tmp_path)
    run = publish(output)
    (run / "report.md").write_bytes(b"damaged")
    assert publish(output) == run
    assert whole(run)


@pytest.mark.parametrize("name", ["artifacts/model.onnx", "report.md", "manifest.json"])
@pytest.mark.parametrize("damage", ["changed", "lost"])
def test_a_damaged_run_is_not_called_current(tmp_path, name, damage):
    output = folder(tmp_path)
    assert output.current_manifest() is None
    run = publish(output)
    (run / name).write_bytes(b"{}") if damage == "changed" else (run / name).unlink()
    assert output.current_manifest() is None


def test_a_failure_while_publishing_leaves_the_last_run_in_place(tmp_path, monkeypatch):
    output = folder(tmp_path)
    first = publish(output)
    real, calls = os.fsync, []

    def failing(descriptor):
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        calls.append(descriptor)
        real(descriptor)

    with output.claimed():
        monkeypatch.setattr(os, "fsync", failing)
        with pytest.raises(StoreError, match="No space left") as caught:
            output.publish(files("b"), {})
    assert "finished steps are kept" in caught.value.hint
    assert (tmp_path / "out" / "current").resolve() == first
    assert [path.name for path in (tmp_path / "out" / "runs").iterdir()] == [first.name]


def test_a_new_folder_is_made_and_an_empty_one_is_taken(tmp_path):
    publish(OutputFolder(tmp_path / "new" / "deep", "recipe"))
    (tmp_path / "empty").mkdir()
    publish(OutputFolder(tmp_path / "empty", "recipe"))
    assert (tmp_path / "new" / "deep" / "report.md").exists()
    assert (tmp_path / "empty" / "report.md").exists()


def test_a_folder_with_foreign_files_is_refused_and_left_alone(tmp_path):
    output = folder(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    for attempt in (output.check, lambda: publish(output)):
        with pytest.raises(StoreError, match=r"was not made by a run \(it holds 'thesis.tex'\)"):
            attempt()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]


def test_the_folder_of_another_recipe_is_refused_and_left_alone(tmp_path):
    first = publish(folder(tmp_path, "first"))
    for attempt in (folder(tmp_path, "second").check, lambda: publish(folder(tmp_path, "second"), "b")):
        with pytest.raises(StoreError, match=r"belongs to another recipe \(first\), this one is second"):
            attempt()
    assert (tmp_path / "out" / "current").resolve() == first


def test_a_file_is_no_output_folder(tmp_path):
    (tmp_path / "out").write_text("x")
    with pytest.raises(StoreError, match="is not a folder"):
        folder(tmp_path).check()


def test_a_path_through_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "file").chmod(0o755)
    output = OutputFolder(tmp_path / "file" / "out", "recipe")
    with pytest.raises(StoreError, match="file is not a folder"):
        output.check()
    with pytest.raises(StoreError, match="cannot be written"):
        publish(output)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(StoreError, match="is read-only"):
            folder(tmp_path).check()
        with pytest.raises(StoreError, match="Permission denied"):
            publish(folder(tmp_path))
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff"])
def test_a_mark_that_cannot_be_read_is_told(tmp_path, content):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".edge-compress.json").write_bytes(content)
    with pytest.raises(StoreError, match=r"\.edge-compress\.json: cannot be read"):
        folder(tmp_path).check()


@pytest.mark.parametrize("view", ["current", "report.md", "artifacts"])
def test_a_file_where_a_link_belongs_is_told_before_anything_is_done(tmp_path, view):
    output = folder(tmp_path)
    publish(output)
    (tmp_path / "out" / view).unlink()
    (tmp_path / "out" / view).write_text("mine")
    for attempt in (output.check, lambda: publish(output, "b")):
        with pytest.raises(StoreError, match=f"{view}: stands where a run puts a link"):
            attempt()
    assert len(list((tmp_path / "out" / "runs").iterdir())) == 1
    assert (tmp_path / "out" / view).read_text() == "mine"


def test_a_check_leaves_no_trace(tmp_path):
    folder(tmp_path).check()
    assert list(tmp_path.iterdir()) == []


def test_a_second_run_is_refused_while_one_is_under_way(tmp_path):
    program = (
        "import sys\nfrom pathlib import Path\nfrom compress.errors import StoreError\n"
        "from compress.store.outdir import OutputFolder\n"
        "try:\n with OutputFolder(Path(sys.argv[1]), 'recipe').claimed():\n  print('taken')\n"
        "except StoreError as error:\n print(error.message)"
    )

    def second():
        command = [sys.executable, "-c", program, str(tmp_path / "out")]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    with folder(tmp_path).claimed():
        assert second().endswith("another run is writing here")
        with pytest.raises(StoreError, match="another run is writing here"), folder(tmp_path).claimed():
            pass
    assert second() == "taken"


def test_a_claim_ends_with_its_run_even_when_that_fails(tmp_path):
    with pytest.raises(KeyError), folder(tmp_path).claimed():
        raise KeyError
    with folder(tmp_path).claimed():
        pass


def test_a_claim_sweeps_what_a_killed_run_left(tmp_path):
    output = folder(tmp_path)
    run = publish(output)
    out = tmp_path / "out"
    left = [
        out / "runs" / ".abc.1234.tmp" / "artifacts" / "x",
        out / ".cache" / "objects" / "ab" / ".ab.1.tmp",
        out / ".m.2.tmp",
    ]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    (out / ".current.3.tmp").symlink_to("runs/none")
    with output.claimed():
        assert not [path for path in out.rglob("*.tmp") if path.name.startswith(".")]
    assert whole(run)
    assert (out / "current").resolve() == run


@pytest.mark.parametrize("name", [".lock", "..edge-compress.json.0a1b2c3d.tmp"])
def test_a_run_that_was_killed_while_it_took_the_folder_does_not_lock_it_out(tmp_path, name):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_bytes(b"")
    folder(tmp_path).check()
    publish(folder(tmp_path))


PUBLISHER = """
import sys
from pathlib import Path
from compress.store.outdir import OutputFolder

output = OutputFolder(Path(sys.argv[1]), "recipe")
with output.claimed():
    number = 0
    while True:
        number += 1
        text = (f"{number} " * 2000).encode()
        output.publish({"artifacts/m.onnx": text, "evidence.json": text, "report.md": text}, {"number": number})
        if number == 1:
            print("ready", flush=True)
"""


def test_current_is_a_whole_run_whenever_the_publisher_is_killed(tmp_path):
    out = tmp_path / "out"
    for delay_s in (0.002, 0.009, 0.021, 0.05):
        killed_while_writing(PUBLISHER, out, delay_s)
        assert whole((out / "current").resolve())
        assert OutputFolder(out, "recipe").current_manifest() is not None
    with OutputFolder(out, "recipe").claimed():
        pass
    assert all(whole(run) for run in (out / "runs").iterdir())


def test_a_reader_sees_whole_runs_while_another_process_publishes(tmp_path):
    out = tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-c", PUBLISHER, str(out)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "ready\n"
        runs = set()
        while len(runs) < 15:
            run = (out / "current").resolve()
            assert whole(run)
            runs.add(run)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()

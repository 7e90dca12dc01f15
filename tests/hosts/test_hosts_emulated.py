"""The emulated host around QEMU, with a stand-in for it that runs what it is given on this very processor."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import pytest
from stand_in_qemu import on_x86, put_qemu, put_system, write_manifest

from compress.errors import CompressError, WorkerError
from compress.hosts import HOSTS, open_host, timing_host
from compress.hosts.emulated import TIMED, EmulatedHost
from compress.hosts.emulation import emulation_folder, find_emulation, installed_runtimes
from compress.processors import PROCESSORS
from compress.target import Target
from compress.worker.job import NEEDED

JOB = {"action": "outputs", "runtime": "onnxruntime", "artifact": "/models/credit.onnx", "threads": 1}
SETUP = "edge-compress doctor --setup emulated"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return on_x86(tmp_path, monkeypatch)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return place


def host(name: str, tmp_path: Path, code: str = "") -> EmulatedHost:
    """The host, with a worker that runs `code`; `job` is loaded and `answer` writes the result."""
    worker = tmp_path / "worker"
    worker.mkdir(exist_ok=True)
    start = """
import json, os, signal, sys, time
job = json.load(open(sys.argv[1]))
def answer(**values):
    open(job["result"], "w").write(json.dumps({"schema": 1, **values}))
"""
    (worker / "__main__.py").write_text(start + code)
    return EmulatedHost(PROCESSORS[name], worker=worker)


def test_this_architecture_runs_this_python(folder: Path, tmp_path: Path, temporary: Path) -> None:
    log = put_qemu(folder)
    answer = host("haswell", tmp_path, "answer(python=sys.executable, isolated=sys.flags.isolated)").run(JOB, 30)
    assert (answer["python"], answer["isolated"]) == (sys.executable, 1)
    options, program, isolated, worker, job = log.read_text().split()[:2], *log.read_text().split()[2:]
    assert options == ["-cpu", "Haswell-v4"]
    assert (program, isolated, worker) == (sys.executable, "-I", str(tmp_path / "worker"))
    assert Path(job).name == "job.json"
    assert not list(temporary.iterdir())


def test_another_architecture_runs_the_python_of_its_system_in_the_root_of_its_core(
    folder: Path, tmp_path: Path
) -> None:
    log, system = put_qemu(folder), put_system(folder)
    assert host("cortex-a53", tmp_path, "answer(it=1)").run(JOB, 30)["it"] == 1
    link = folder / "aarch64"
    assert log.read_text().split()[:5] == [
        "-cpu",
        "cortex-a53",
        "-L",
        str(link / "processors" / "cortex-a53"),
        str(link / "root" / "usr" / "bin" / "python3.11"),
    ]
    assert link.resolve() == system


def test_on_arm_it_is_the_other_way_round(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from compress.hosts import emulation

    monkeypatch.setattr(emulation, "this_architecture", lambda: "aarch64")
    put_qemu(folder)
    put_system(folder, "x86_64", ("haswell",))
    assert find_emulation(PROCESSORS["cortex-a53"], folder).python == Path(sys.executable)
    assert "-L" in find_emulation(PROCESSORS["haswell"], folder, "onnxruntime").launcher


@pytest.mark.parametrize("action", TIMED)
def test_times_are_refused_before_anything_is_looked_for(tmp_path: Path, action: str, folder: Path) -> None:
    with pytest.raises(WorkerError, match="an emulated haswell gives answers, not speed") as error:
        host("haswell", tmp_path).run({**JOB, "action": action}, 30)
    assert "on the device" in error.value.hint


def test_what_takes_no_times_is_not_refused() -> None:
    assert set(NEEDED) - set(TIMED) == {"outputs", "describe", "empty", "build"}


def test_without_qemu_the_command_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match="qemu-x86_64-static is not installed") as error:
        host("haswell", tmp_path).run(JOB, 30)
    assert SETUP in error.value.hint
    assert "apt-get install qemu-user-static" in error.value.hint


def test_without_a_system_the_command_is_named(folder: Path, tmp_path: Path) -> None:
    put_qemu(folder)
    with pytest.raises(WorkerError, match="there is no aarch64 system to run cortex-a53 in") as error:
        host("cortex-a53", tmp_path).run(JOB, 30)
    assert error.value.hint == f"{SETUP}."


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": 0}'])
def test_a_damaged_system_counts_as_none(folder: Path, tmp_path: Path, content: str) -> None:
    put_qemu(folder)
    (put_system(folder) / "manifest.json").write_text(content)
    with pytest.raises(WorkerError, match="there is no aarch64 system"):
        host("cortex-a53", tmp_path).run(JOB, 30)


def test_a_system_without_the_core_is_not_whole(folder: Path, tmp_path: Path) -> None:
    put_qemu(folder)
    put_system(folder)
    with pytest.raises(WorkerError, match="lacks cortex-a76") as error:
        host("cortex-a76", tmp_path).run(JOB, 30)
    assert error.value.hint == f"{SETUP}."


@pytest.mark.parametrize(("version", "said"), [("0.1", "0.1"), (None, "(none)")])
def test_another_version_is_not_compared_with(folder: Path, tmp_path: Path, version: str | None, said: str) -> None:
    put_qemu(folder)
    there = {"onnxruntime": version} if version else {}
    write_manifest(put_system(folder), runtimes=there)
    with pytest.raises(WorkerError) as error:
        host("cortex-a53", tmp_path).run(JOB, 30)
    here = installed_runtimes()["onnxruntime"]
    assert f"holds onnxruntime {said}, here is {here}: answers would be compared across versions" in error.value.message
    assert error.value.hint == f"{SETUP}."


def test_a_runtime_without_a_system_says_where_it_runs(folder: Path, tmp_path: Path) -> None:
    put_qemu(folder)
    put_system(folder)
    with pytest.raises(WorkerError, match="executorch cannot be emulated on cortex-a53") as error:
        host("cortex-a53", tmp_path).run({**JOB, "runtime": "executorch"}, 30)
    assert "onnxruntime, litert" in error.value.hint
    assert host("haswell", tmp_path, "answer()").run({**JOB, "runtime": "executorch"}, 30) == {"schema": 1}


def test_a_processor_that_qemu_lacks_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match="cascade-lake cannot be emulated"):
        host("cascade-lake", tmp_path).run(JOB, 30)


def test_an_illegal_instruction_is_explained(folder: Path, tmp_path: Path) -> None:
    put_qemu(folder)
    with pytest.raises(WorkerError) as error:
        host("haswell", tmp_path, "os.kill(os.getpid(), signal.SIGILL)").run(JOB, 30)
    # The list of what QEMU leaves out is no last word.
    assert error.value.message == (
        "on the emulated haswell: the worker was killed by SIGILL while computing outputs of credit.onnx in onnxruntime"
    )
    assert error.value.hint == "the runtime uses an instruction that haswell does not have: it does not run there."


def test_last_words_stay(folder: Path, tmp_path: Path) -> None:
    put_qemu(folder)
    with pytest.raises(WorkerError) as error:
        host("haswell", tmp_path, "print('no memory', file=sys.stderr); sys.exit(3)").run(JOB, 30)
    assert error.value.message.splitlines()[1:] == ["no memory"]


def test_a_hang_is_ended(folder: Path, tmp_path: Path, temporary: Path) -> None:
    put_qemu(folder)
    start = time.monotonic()
    with pytest.raises(WorkerError, match=r"on the emulated haswell: the worker was ended after 1 s") as error:
        host("haswell", tmp_path, "time.sleep(60)").run(JOB, 1)
    assert time.monotonic() - start < 20
    assert "timeout_s" in error.value.hint
    assert not list(temporary.iterdir())


def test_an_old_qemu_that_does_not_know_the_core_is_named(folder: Path, tmp_path: Path) -> None:
    put_qemu(folder, "echo \"qemu: unable to find CPU model 'Haswell-v4'\" >&2; exit 1")
    with pytest.raises(WorkerError, match="unable to find CPU model") as error:
        host("haswell", tmp_path).run(JOB, 30)
    assert "newer" in error.value.hint


def test_a_qemu_that_cannot_be_started_is_an_error(folder: Path, tmp_path: Path) -> None:
    put_qemu(folder)
    (folder / "qemu" / "usr" / "bin" / "qemu-x86_64-static").write_bytes(b"\x7fELF nonsense")
    with pytest.raises(WorkerError, match="cannot be run"):
        host("haswell", tmp_path).run(JOB, 30)


def test_an_installed_qemu_comes_first(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_qemu(folder)
    put_qemu(tmp_path / "machine")
    installed = tmp_path / "machine" / "qemu" / "usr" / "bin"
    monkeypatch.setenv("PATH", str(installed))
    assert find_emulation(PROCESSORS["haswell"], folder).launcher[0] == str(installed / "qemu-x86_64-static")


def test_a_target_names_its_processor(folder: Path) -> None:
    target = Target.model_validate(
        {"schema": 1, "name": "t", "runtime": "litert", "host": "emulated", "cpu": "haswell"}
    )
    assert HOSTS.load("emulated") is EmulatedHost
    found = open_host(target)
    assert (found.tells_time, found.machine) == (False, "haswell")
    put_qemu(folder)
    assert found.machine == "haswell (qemu-stand-in version 9.9)"
    with pytest.raises(CompressError, match=r"the target 't' is emulated: it gives answers, not speed"):
        timing_host(target)


def test_this_machine_takes_times() -> None:
    target = Target.model_validate({"schema": 1, "name": "t", "runtime": "litert"})
    found = timing_host(target)
    assert (found.tells_time, found.machine) == (True, "")


def test_the_folder_follows_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGE_COMPRESS_CACHE", str(tmp_path / "mine"))
    assert emulation_folder() == tmp_path / "mine" / "emulation"
    monkeypatch.delenv("EDGE_COMPRESS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert emulation_folder() == tmp_path / "xdg" / "edge-compress" / "emulation"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert emulation_folder() == tmp_path / ".cache" / "edge-compress" / "emulation"

"""The local host, with stand-ins for the worker that do what workers should not."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from compress.errors import CompressError, WorkerError
from compress.hosts import HOSTS
from compress.hosts.local import LocalHost

JOB = {"action": "latency", "runtime": "onnxruntime", "artifact": "/models/credit.onnx", "threads": 1}


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for all temporary files, so that a test sees what was left behind."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def stand_in(tmp_path: Path, code: str) -> Path:
    """A worker folder that runs `code` with `job` loaded and `answer` to write the result."""
    folder = tmp_path / "worker"
    folder.mkdir()
    start = """
import json, os, signal, subprocess, sys, time
job = json.load(open(sys.argv[1]))
def answer(**values):
    open(job["result"], "w").write(json.dumps({"schema": 1, **values}))
"""
    (folder / "__main__.py").write_text(start + code)
    return folder


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def read_pids(path: Path) -> list[int]:
    deadline = time.monotonic() + 10
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return [int(word) for word in path.read_text().split()]


def test_an_answer_comes_back_and_nothing_is_left(tmp_path: Path, temporary: Path) -> None:
    worker = stand_in(tmp_path, "print('chatter'); answer(seen=job)")
    result = LocalHost(worker).run(JOB, 30)
    assert result["schema"] == 1
    assert {key: result["seen"][key] for key in JOB} == JOB
    assert result["seen"]["limit_s"] > 30
    assert not list(temporary.iterdir())


def test_an_answered_error_is_returned_as_it_is(tmp_path: Path) -> None:
    worker = stand_in(tmp_path, "answer(error={'message': 'no', 'hint': ''}); sys.exit(1)")
    assert LocalHost(worker).run(JOB, 30)["error"]["message"] == "no"


def test_the_environment_is_scrubbed(tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("SECRET_TOKEN", "s3cret")
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    monkeypatch.setenv("GOMP_SPINCOUNT", "10000")
    worker = stand_in(tmp_path, "answer(env=dict(os.environ), cwd=os.getcwd(), path=sys.path)")
    result = LocalHost(worker).run({**JOB, "threads": 2}, 30)
    assert not [name for name in result["env"] if name.startswith("PYTHON") or "SECRET" in name]
    assert result["env"]["OMP_NUM_THREADS"] == result["env"]["OPENBLAS_NUM_THREADS"] == "2"
    # Threads that are timed wait as a service's would.
    assert "GOMP_SPINCOUNT" not in result["env"]
    assert result["env"]["PATH"] == os.environ["PATH"]
    assert Path(result["env"]["TMPDIR"]).parent == temporary
    assert result["cwd"] == result["env"]["TMPDIR"]
    assert "/elsewhere" not in result["path"]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs processor affinity")
def test_the_worker_is_sent_to_the_last_processors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 5, 7})
    worker = stand_in(tmp_path, "answer(cpus=job['cpus'])")
    assert LocalHost(worker).run({**JOB, "threads": 2}, 30)["cpus"] == [5, 7]
    assert LocalHost(worker).run({**JOB, "threads": 4}, 30)["cpus"] == []
    assert LocalHost(worker, pin=False).run(JOB, 30)["cpus"] == []


def test_a_hanging_worker_is_killed_with_all_it_started(tmp_path: Path, temporary: Path) -> None:
    pids = tmp_path / "pids"
    code = f"""
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
open({str(pids)!r} + ".new", "w").write(f"{{os.getpid()}} {{child.pid}}")
os.rename({str(pids)!r} + ".new", {str(pids)!r})
time.sleep(60)
"""
    start = time.monotonic()
    with pytest.raises(WorkerError) as error:
        LocalHost(stand_in(tmp_path, code)).run(JOB, 2)
    assert time.monotonic() - start < 20
    assert (
        error.value.message
        == "the worker was ended after 2 s while measuring the latency of credit.onnx in onnxruntime"
    )
    assert "timeout_s" in error.value.hint
    worker, child = read_pids(pids)
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)
    # The signal has been sent; nobody can wait for a process that is not one's own child.
    deadline = time.monotonic() + 10
    while is_running(child) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_running(child)
    assert not list(temporary.iterdir())


def test_an_interruption_leaves_no_worker(tmp_path: Path, temporary: Path) -> None:
    pids = tmp_path / "pids"
    code = f"open({str(pids)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    worker = stand_in(tmp_path, code)

    def interrupt() -> None:
        read_pids(pids)
        os.kill(os.getpid(), signal.SIGUSR1)

    def on_signal(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, on_signal)
    thread = threading.Thread(target=interrupt)
    try:
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            LocalHost(worker).run(JOB, 60)
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, before)
    with pytest.raises(ProcessLookupError):
        os.kill(read_pids(pids)[0], 0)
    assert not list(temporary.iterdir())


def test_a_crash_names_the_signal_and_the_last_words(tmp_path: Path, temporary: Path) -> None:
    code = "[print(f'line {i}', file=sys.stderr) for i in range(9000)]; sys.stderr.flush(); os.abort()"
    with pytest.raises(WorkerError) as error:
        LocalHost(stand_in(tmp_path, code)).run({**JOB, "action": "outputs"}, 30)
    first, *words = error.value.message.splitlines()
    assert first.startswith(
        "the worker was killed by SIGABRT while computing outputs of credit.onnx in onnxruntime; its last words:"
    )
    assert words == [f"line {index}" for index in range(8995, 9000)]
    assert not list(temporary.iterdir())


def test_a_worker_killed_from_outside_hints_at_memory(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match="killed by SIGKILL") as error:
        LocalHost(stand_in(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)")).run(JOB, 30)
    assert "out of memory" in error.value.hint


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("sys.exit(3)", "ended with code 3 and no result while measuring"),
        ("pass", "ended with code 0 and no result"),
        ("print('bad job', file=sys.stderr); sys.exit(1)", "bad job"),
        ("open(job['result'], 'w').write('{garbage')", "unreadable result"),
        ("open(job['result'], 'wb').write(bytes([255, 254]))", "unreadable result"),
        ("open(job['result'], 'w').write('[1, 2]')", "no JSON object"),
    ],
)
def test_no_usable_result_is_a_worker_error(tmp_path: Path, temporary: Path, code: str, message: str) -> None:
    with pytest.raises(WorkerError) as error:
        LocalHost(stand_in(tmp_path, code)).run(JOB, 30)
    assert message in error.value.message
    assert not list(temporary.iterdir())


def test_a_python_that_is_not_there_is_named(tmp_path: Path, temporary: Path) -> None:
    with pytest.raises(WorkerError, match="/no/python: No such file"):
        LocalHost(python="/no/python").run(JOB, 30)
    assert not list(temporary.iterdir())


def test_hosts_are_found_by_name() -> None:
    assert "local" in HOSTS.names()
    assert HOSTS.load("local") is LocalHost
    with pytest.raises(CompressError, match="unknown host 'lokal'"):
        HOSTS.load("lokal")


def test_the_real_worker_answers(tmp_path: Path) -> None:
    result: dict[str, Any] = LocalHost().run({"action": "empty", "runtime": "onnxruntime"}, 60)
    assert result["peak_rss_bytes"] > 1 << 20
    assert json.dumps(result)
    assert sys.executable

"""The SSH host against a real server on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sshd import SSHD, Server, running

from compress.errors import RecipeError, WorkerError
from compress.hosts import open_host
from compress.hosts.calls import ask, run_outputs
from compress.hosts.ssh import SshHost
from compress.target import SshSettings, Target, load_target

pytestmark = pytest.mark.skipif(SSHD is None, reason="no sshd here: apt-get install openssh-server")
EMPTY = {"action": "empty", "runtime": "onnxruntime"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "remote").mkdir()
    with running(tmp_path / "sshd", tmp_path / "remote") as made:
        yield made


@pytest.fixture
def host(server: Server) -> Iterator[SshHost]:
    made = SshHost(SshSettings(address="device", python=sys.executable, config=str(server.config)))
    yield made
    made.close()


@pytest.fixture
def doubling(tmp_path: Path) -> Path:
    """A model file that doubles its input, and is too large for a line of a terminal."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    two = numpy_helper.from_array(np.full((1, 4096), 2, np.float32), "two")
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "two"], ["y"])],
        "double",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4096])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4096])],
        [two],
    )
    path = tmp_path / "double it.onnx"
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def outputs(host: SshHost, path: Path) -> Any:
    rows = np.arange(3 * 4096, dtype=np.float32).reshape(3, 4096)
    made = run_outputs(host, "onnxruntime", path, {"x": rows}, threads=1, batch=2, timeout_s=120)
    np.testing.assert_array_equal(made["y"], rows * 2)
    return made


def test_files_go_there_answers_come_back_and_nothing_is_left(host: SshHost, server: Server, doubling: Path) -> None:
    outputs(host, doubling)
    (folder,) = server.temporary.iterdir()
    assert len(list((folder / "files").iterdir())) == 2
    outputs(host, doubling)
    # The same bytes are carried once; no job's folder outlives it.
    assert len(list((folder / "files").iterdir())) == 2
    assert sorted(path.name for path in folder.iterdir()) == ["files", "worker"]
    assert "Python" in host.machine
    host.close()
    assert server.left() == []


def test_times_and_errors_of_the_artifact_come_back(host: SshHost, doubling: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.npz"
    np.savez(rows, x=np.zeros((1, 4096), np.float32))
    job = {"runtime": "onnxruntime", "artifact": str(doubling), "inputs": str(rows), "seconds": 0.02}
    assert ask(host, {**job, "action": "latency"}, 120)["load_ms"] > 0
    assert ask(host, {**job, "action": "duel", "rival": str(doubling)}, 120)["rival_wall_ms"]
    (tmp_path / "cut.onnx").write_bytes(doubling.read_bytes()[:100])
    with pytest.raises(WorkerError, match=r"cut\.onnx"):
        ask(host, {**job, "action": "latency", "artifact": str(tmp_path / "cut.onnx")}, 120)
    # The connection lives on.
    assert ask(host, {**job, "action": "latency"}, 120)["first_ms"] > 0


def test_a_missing_runtime_is_named_with_what_to_install(host: SshHost) -> None:
    with pytest.raises(WorkerError, match="unknown runtime 'tensorfoo'"):
        ask(host, {"action": "empty", "runtime": "tensorfoo"}, 120)


def test_a_worker_that_hangs_is_ended_there(host: SshHost, server: Server, doubling: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.npz"
    np.savez(rows, x=np.zeros((1, 4096), np.float32))
    job = {"action": "latency", "runtime": "onnxruntime", "artifact": str(doubling), "inputs": str(rows), "seconds": 60}
    begin = time.monotonic()
    with pytest.raises(WorkerError, match="on device: the worker was ended after 3 s"):
        host.run(job, 3)
    assert time.monotonic() - begin < 50
    assert host.run(EMPTY, 120)["peak_rss_bytes"] > 0
    host.close()
    assert server.left() == []


def test_a_cut_connection_ends_the_worker_and_cleans_up(
    host: SshHost, server: Server, doubling: Path, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.npz"
    np.savez(rows, x=np.zeros((1, 4096), np.float32))
    job = {"action": "latency", "runtime": "onnxruntime", "artifact": str(doubling), "inputs": str(rows), "seconds": 60}

    def cut() -> None:
        end = time.monotonic() + 60
        while not list(server.temporary.glob("*/job-*/stderr")) and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(0.5)
        subprocess.run(["pkill", "-KILL", "-f", str(server.config)], check=False)

    thread = threading.Thread(target=cut)
    thread.start()
    with pytest.raises(WorkerError, match="on device: "):
        host.run(job, 100)
    thread.join()
    assert server.left() == []
    end = time.monotonic() + 20
    while (left := [one for one in running_workers() if str(server.temporary) in one]) and time.monotonic() < end:
        time.sleep(0.05)
    assert left == []
    # The next job connects again.
    assert host.run(EMPTY, 120)["peak_rss_bytes"] > 0


def running_workers() -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return found


def test_an_interruption_leaves_nothing_there(host: SshHost, server: Server, doubling: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.npz"
    np.savez(rows, x=np.zeros((1, 4096), np.float32))
    job = {"action": "latency", "runtime": "onnxruntime", "artifact": str(doubling), "inputs": str(rows), "seconds": 60}

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    timer = threading.Timer(4, lambda: os.kill(os.getpid(), signal.SIGUSR1))
    try:
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            host.run(job, 100)
    finally:
        timer.cancel()
        signal.signal(signal.SIGUSR1, before)
    assert server.left() == []


def test_a_full_disk_is_told_with_what_is_free(host: SshHost, server: Server, tmp_path: Path) -> None:
    if (
        os.getuid()
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(server.temporary)], check=False, capture_output=True
        ).returncode
    ):
        pytest.skip("only root can make a small disk")
    try:
        large = tmp_path / "large.onnx"
        large.write_bytes(os.urandom(4 << 20))
        with pytest.raises(WorkerError, match="No space left on device") as error:
            host.run({"action": "describe", "runtime": "onnxruntime", "artifact": str(large)}, 60)
        assert "free some there" in error.value.hint
        assert server.left() == []
    finally:
        host.close()
        subprocess.run(["umount", str(server.temporary)], check=True)


def test_a_host_key_is_never_accepted_unseen(host: SshHost, server: Server) -> None:
    known = server.config.parent / "known"
    kept = known.read_text()
    known.write_text("")
    with pytest.raises(WorkerError, match="Host key verification failed") as error:
        host.run(EMPTY, 60)
    assert "compare the fingerprint: ssh device" in error.value.hint
    assert known.read_text() == ""
    known.write_text(kept.replace((server.config.parent / "host.pub").read_text().split()[1], other_key(server)))
    with pytest.raises(WorkerError, match="on device: "):
        host.run(EMPTY, 60)


def other_key(server: Server) -> str:
    return (server.config.parent / "user.pub").read_text().split()[1]


@pytest.mark.parametrize(
    ("key", "value", "said", "hint"),
    [
        ("IdentityFile", "/dev/null", "Permission denied", "ssh-copy-id device"),
        ("Port", "1", "Connection refused", "start its ssh server"),
        ("HostName", "no-such-machine.invalid", "Could not resolve hostname", "ssh.address"),
    ],
)
def test_who_cannot_be_reached_is_told_with_what_helps(
    host: SshHost, server: Server, key: str, value: str, said: str, hint: str
) -> None:
    server.edit(key, value)
    with pytest.raises(WorkerError, match=said) as error:
        host.run(EMPTY, 60)
    assert hint in error.value.hint
    assert host.machine == "device"


def test_a_python_that_is_not_there_or_too_old_is_told(server: Server, tmp_path: Path) -> None:
    settings = SshSettings(address="device", python="/no/python3", config=str(server.config))
    with pytest.raises(WorkerError, match="/no/python3") as error:
        SshHost(settings).run(EMPTY, 60)
    assert "ssh.python" in error.value.hint
    old = tmp_path / "old"
    old.write_text(f'#!/bin/sh\nshift 2\nexec {sys.executable} -c "import sys; sys.version_info = (3, 8)\n$1"\n')
    old.chmod(0o755)
    with pytest.raises(WorkerError, match=r"Python 3\.10 or newer is needed"):
        SshHost(settings.model_copy(update={"python": str(old)})).run(EMPTY, 60)
    assert server.left() == []


def test_a_login_shell_that_talks_is_told(server: Server, tmp_path: Path) -> None:
    chatty = tmp_path / "chatty"
    chatty.write_text(f'#!/bin/sh\necho Welcome\nexec {sys.executable} "$@"\n')
    chatty.chmod(0o755)
    with pytest.raises(WorkerError, match="its login shell says 'Welcome'"):
        SshHost(SshSettings(address="device", python=str(chatty), config=str(server.config))).run(EMPTY, 60)
    assert server.left() == []


def test_a_target_names_the_machine(tmp_path: Path) -> None:
    path = tmp_path / "pi.toml"
    text = 'schema = 1\nruntime = "litert"\nhost = "ssh"\n'
    path.write_text(text + '[ssh]\naddress = "pi@branch-7"\nconfig = "keys/config"\n')
    target = load_target(str(path), tmp_path)
    assert target.ssh is not None
    assert target.ssh.config == str(tmp_path / "keys/config")
    assert isinstance(open_host(target), SshHost)
    for broken in (
        text,
        text.replace("ssh", "local") + '[ssh]\naddress = "pi"\n',
        text + '[ssh]\naddress = "-oProxyCommand=x"\n',
    ):
        path.write_text(broken)
        with pytest.raises(RecipeError, match="ssh"):
            load_target(str(path), tmp_path)


def test_for_target_needs_the_table() -> None:
    with pytest.raises(ValueError, match=r"no table \[ssh\]"):
        SshHost.for_target(Target.model_validate({"schema": 1, "runtime": "litert"}))


def test_doctor_says_whether_a_target_answers(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from compress.cli.doctor import reach

    monkeypatch.chdir(tmp_path)
    text = f'schema = 1\nruntime = "onnxruntime"\nhost = "ssh"\n[ssh]\naddress = "device"\nconfig = "{server.config}"\n'
    (tmp_path / "there.toml").write_text(text + f'python = "{sys.executable}"\n')
    found = reach("there.toml")
    assert (found.works, found.target, found.why_not) == (True, "there", "")
    assert found.version
    assert "Python" in found.machine
    server.edit("Port", "1")
    found = reach("there.toml")
    assert not found.works
    assert "Connection refused" in found.why_not

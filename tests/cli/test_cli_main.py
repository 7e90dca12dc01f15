"""The program as a whole: how quickly it answers, what it loads, how it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from cli_command import Command
from tiny_project import Project, environment, program

import compress
from compress import cli
from compress.errors import InternalError

# The product promises 0.6 s; a shared build machine may be several times slower than a free one.
NOISY_S = 1.5
COMMANDS = ("run", "init", "inspect", "targets", "doctor")


def test_help_names_every_command(command: Command) -> None:
    for flag in ("--help", "-h"):
        said = command(flag)
        assert (said.code, said.err) == (0, "")
        assert all(f"  {name}" in said.out for name in COMMANDS)
        assert "Exit codes" in said.out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(command: Command, name: str) -> None:
    for flag in ("--help", "-h"):
        said = command(name, flag)
        assert (said.code, said.err) == (0, "")
        assert said.out.startswith(f"Usage: edge-compress {name} ")


def test_the_short_command_has_its_own_help(command: Command) -> None:
    said = command("-h", entry=cli.compress_and_export)
    assert said.code == 0
    assert said.out.startswith("Usage: compress-and-export [OPTIONS] RECIPE|MODEL")


def test_version(command: Command) -> None:
    assert command("--version").out == f"edge-compress, version {compress.__version__}\n"


def test_without_a_command_it_shows_its_help(command: Command) -> None:
    said = command()
    assert said.code == 2
    assert "Usage: edge-compress" in said.err + said.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("rum",), "there is no command 'rum'; did you mean 'run'?"),
        (("frobnicate",), "there is no command 'frobnicate'; known: approve, "),
        (("run", "recipe.toml", "--targt", "x"), "No such option"),
        (("run", "recipe.toml", "--targt", "x"), "--target"),
        (("run", "recipe.toml", "--cutoff", "half"), "--cutoff"),
        (("run", "recipe.toml", "--link", "odds"), "'odds' is not one of 'auto', 'logit', 'probability'"),
        (("run",), "Missing argument 'RECIPE|MODEL'"),
        (("init", "model.py:build"), "Missing option '--data'"),
        (("targets", "extra"), "unexpected extra argument"),
    ],
)
def test_usage_errors(command: Command, arguments: tuple[str, ...], message: str) -> None:
    said = command(*arguments)
    assert (said.code, said.out) == (2, "")
    assert message in said.err


def test_an_internal_error_says_how_to_see_more(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: object) -> int:
        raise ZeroDivisionError("division by zero")

    from compress.cli import targets

    monkeypatch.setattr(targets.command, "callback", broken)
    said = command("targets")
    assert said.code == 4
    assert said.err.startswith(
        "error: internal error: ZeroDivisionError: division by zero\nhint: set EDGE_COMPRESS_DEBUG"
    )
    monkeypatch.setenv("EDGE_COMPRESS_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        cli.main(["targets"])


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InternalError("a rule was broken", "report it."), 4, "error: a rule was broken\nhint: report it.\n"),
        (
            OSError(28, "No space left on device", "/tmp/x"),
            2,
            "error: /tmp/x: No space left on device\nhint: free some",
        ),
        (KeyboardInterrupt(), 130, "interrupted; finished steps are kept"),
        (click.Abort(), 130, "interrupted"),
        (BrokenPipeError(), 0, ""),
    ],
)
def test_every_end_has_its_exit_code(
    command: Command, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, message: str
) -> None:
    def broken(**_: object) -> int:
        raise error

    from compress.cli import targets

    monkeypatch.setattr(targets.command, "callback", broken)
    # The descriptor that a reader has left is replaced; here it is that of the test run itself.
    monkeypatch.setattr(os, "dup2", lambda *_: None)
    said = command("targets")
    assert said.code == code
    assert message in said.err
    assert "Traceback" not in said.err


def _quickest(arguments: list[str], folder: Path, code: int) -> float:
    taken = []
    for _ in range(4):
        start = time.perf_counter()
        ended = subprocess.run(arguments, cwd=folder, env=environment(), capture_output=True, check=False)
        taken.append(time.perf_counter() - start)
        assert ended.returncode == code, ended.stderr.decode()
    return min(taken)


def test_help_and_recipe_errors_answer_at_once(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.write("typo.toml", project.recipe.read_text().replace('"label"', '"lable"'))
    project.write("target.toml", project.recipe.read_text().replace("onnxruntime-cpu", "onnxruntime-cp"))
    asked = {
        "--help": (program("--help"), 0),
        "run --help": (program("run", "--help"), 0),
        "a misspelt key": (program("run", "typo.toml"), 2),
        "an unknown target": (program("run", "target.toml"), 2),
    }
    took = {name: _quickest(arguments, project.folder, code) for name, (arguments, code) in asked.items()}
    with capsys.disabled():
        print("\n" + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in took.items()))
    assert all(seconds < NOISY_S for seconds in took.values()), took


AT_ONCE = (
    "compress",
    "compress.cli",
    "compress.cli.run",
    "compress.cli.init",
    "compress.cli.targets",
    "compress.cli.doctor",
    "compress.recipe",
    "compress.target",
    "compress.evidence",
    "compress.gate",
    "compress.report",
    "compress.workflow.plan",
)


@pytest.mark.parametrize("imported", AT_ONCE)
def test_what_answers_at_once_does_not_load_torch(imported: str, loads_torch: dict[str, bool]) -> None:
    assert loads_torch[imported] is False


@pytest.fixture(scope="module")
def loads_torch() -> dict[str, bool]:
    # One process, the lightest module first: one that loads torch spoils all that follow, and fails itself.
    text = f"import sys\nfor name in {AT_ONCE!r}:\n    __import__(name); print(name, 'torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", text], env=environment(), capture_output=True, text=True, check=True)
    return {line.split()[0]: line.split()[1] == "True" for line in said.stdout.splitlines()}


def test_sigterm_unwinds_the_stack(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    unwound = []

    def waits(**_: object) -> int:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(30)
        finally:
            unwound.append(True)
        return 0

    from compress.cli import targets

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(targets.command, "callback", waits)
    assert command("targets").code == 128 + signal.SIGTERM
    assert unwound == [True]
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_interrupted_run_leaves_no_worker(project: Project) -> None:
    project.change(schemes=["float32"], measure={"seconds": 30.0})
    scratch = project.folder / "scratch"
    scratch.mkdir()
    process = subprocess.Popen(
        program("run", "recipe.toml"),
        cwd=project.folder,
        env=environment(TMPDIR=str(scratch)),
        stderr=subprocess.PIPE,
        text=True,
        # A suite that runs in the background has a shell that ignores this signal, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    limit = time.monotonic() + 100
    while not _timing(scratch, project.out) and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    assert said.rstrip().endswith("interrupted; finished steps are kept, run the same command again to go on")
    assert "Traceback" not in said
    assert _workers(scratch) == []
    assert list(scratch.iterdir()) == []
    assert not (project.out / "current").exists()


def _timing(scratch: Path, out: Path) -> bool:
    """Whether a worker runs behind the last step before the timing: the placement of the only artifact."""
    return bool(list((out / ".cache" / "steps").glob("placement-*.json")) and _workers(scratch))


def _workers(scratch: Path) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(scratch) in line:
                found.append(line)
    return found


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({}, "10000"),
        ({"OMP_WAIT_POLICY": "active"}, None),
        ({"GOMP_SPINCOUNT": "9"}, "9"),
        ({"KMP_BLOCKTIME": "1"}, None),
    ],
)
def test_threads_do_not_spin_for_long_unless_somebody_says_so(
    command: Command, monkeypatch: pytest.MonkeyPatch, given: dict[str, str], kept: str | None
) -> None:
    for name in cli._WAITING:
        # Set first: what a test sets is taken back behind it, what the program sets would stay.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert command("--version").code == 0
    assert os.environ.get("GOMP_SPINCOUNT") == kept
    assert os.environ.get("OMP_WAIT_POLICY") == given.get("OMP_WAIT_POLICY")

"""The command line: arguments in, text out. Each command loads only what it needs."""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

import click

import compress
from compress.errors import CompressError, did_you_mean

# Command -> (module, one line of help). The module is imported when its command is run.
_COMMANDS = {
    "run": ("compress.cli.run", "Compress a model, export it to every target, measure and report."),
    "init": ("compress.cli.init", "Write a commented starter recipe for a model and its data."),
    "inspect": ("compress.cli.inspect_command", "Describe a model file: inputs, outputs, cost, operators, precision."),
    "evaluate": (
        "compress.cli.evaluate",
        "Judge any two models or score files by a recipe's policy.",
    ),
    "report": ("compress.cli.report", "Write the reports of a run again, from its evidence alone."),
    "approve": ("compress.cli.approve", "Take the last run of an output folder as what is in force."),
    "history": ("compress.cli.history", "List who approved or rolled back what, and when."),
    "rollback": ("compress.cli.rollback", "Put an older release in force again."),
    "verify": ("compress.cli.verify", "Compute every hash of what was approved again, and check the signatures."),
    "bench": ("compress.cli.bench", "Measure model files beside each other: latency, throughput, memory, operators."),
    "baseline": ("compress.cli.baseline", "Save, list or restore what `check` compares with."),
    "check": ("compress.cli.check", "Say whether what ships now is slower than its baseline."),
    "targets": ("compress.cli.targets", "List the targets that a recipe can name here."),
    "doctor": ("compress.cli.doctor", "Say which runtimes run here, and what is missing for the others."),
}


_SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

# What says how threads of OpenMP wait for each other: the standard's word, GNU's, and LLVM's.
_WAITING = frozenset({"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"})

# What the disk or its owner refuses, wherever it happens: no fault of the program.
_REFUSED = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EMFILE, errno.ENFILE)


class _Lazy(click.Group):
    """A group whose commands are imported when used, so that `--help` answers at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(_COMMANDS[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            raise click.UsageError(f"there is no command {args[0]!r}; {did_you_mean(args[0], _COMMANDS)}")
        return super().resolve_command(ctx, args)


@click.group(cls=_Lazy)
@click.version_option(compress.__version__, prog_name="edge-compress")
def cli() -> None:
    r"""Shrink trained risk models for phones and edge servers, and judge the shipped file beside its original.

    \b
    Start with:
      edge-compress init model.py:build --weights model.safetensors --data rows.csv --label defaulted
      edge-compress run recipe.toml

    Exit codes: 0 pass, 1 gate failed, 2 usage, recipe or input error, 3 inconclusive, 4 internal error.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command `edge-compress` and exits with its code."""
    sys.exit(_run(cli, arguments, "edge-compress"))


def compress_and_export(arguments: Sequence[str] | None = None) -> None:
    """Runs the command `compress-and-export`, which is `edge-compress run`."""
    from compress.cli.run import command

    sys.exit(_run(command, arguments, "compress-and-export"))


def _run(command: click.Command, arguments: Sequence[str] | None, name: str) -> int:
    # Before torch is loaded. GNU's threads spin for milliseconds while they wait for each other: where other work wants
    # the cores, that made the calibration of a small MobileNet 25 times as slow. So few rounds cost an idle machine
    # little (0 to 5 %, "passive" 30 %). Workers that time something do not inherit it.
    if not _WAITING.intersection(os.environ):
        os.environ["GOMP_SPINCOUNT"] = "10000"
    with _ending_on_sigterm(), warnings.catch_warnings():
        # Torch warns of itself whenever it copies an exported graph.
        warnings.filterwarnings("ignore", r".*isinstance\(treespec, LeafSpec\)", FutureWarning)
        return _answer(command, arguments, name)


@contextlib.contextmanager
def _ending_on_sigterm() -> Iterator[None]:
    """Lets SIGTERM unwind the stack: a worker that measures would outlive a process that just ends."""

    def end(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _answer(command: click.Command, arguments: Sequence[str] | None, name: str) -> int:
    try:
        given = None if arguments is None else list(arguments)
        result = command.main(args=given, prog_name=name, standalone_mode=False, **_SETTINGS)
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return 2
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted; finished steps are kept, run the same command again to go on", err=True)
        return 130
    except BrokenPipeError:
        # Whoever read the output has gone (`| head`); that is no error of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except CompressError as error:
        _complain(error.message, error.hint)
        return error.exit_code
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _REFUSED:
            _complain(
                f"{error.filename or tempfile.gettempdir()}: {error.strerror}",
                "free some space or choose other folders (TMPDIR, --out); finished steps are kept.",
            )
            return 2
        if os.environ.get("EDGE_COMPRESS_DEBUG"):
            raise
        _complain(
            f"internal error: {type(error).__name__}: {error}",
            "set EDGE_COMPRESS_DEBUG=1 to see where, and report it.",
        )
        return 4
    return result if isinstance(result, int) else 0


def _complain(message: str, hint: str) -> None:
    click.echo(click.style("error: ", fg="red", bold=True) + message, err=True)
    if hint:
        click.echo(click.style("hint: ", bold=True) + hint, err=True)

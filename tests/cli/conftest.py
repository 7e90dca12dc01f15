from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# The tests of the command line and of the workflow use the same project.
sys.path.insert(0, str(Path(__file__).parent.parent / "workflow"))

from cli_command import Command, Said
from shared_projects import canned_latency, fails_for, finished, on_both, project

from compress import cli

__all__ = ["canned_latency", "fails_for", "finished", "on_both", "project"]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs the command line in this process, as if in a folder."""
    monkeypatch.setenv("COLUMNS", "100")

    def run(*arguments: object, folder: Path | None = None, entry: Callable[..., None] = cli.main) -> Said:
        if folder is not None:
            monkeypatch.chdir(folder)
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            entry([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Said(ended.value.code, captured.out, captured.err)

    return run

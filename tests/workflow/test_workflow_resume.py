"""A run that is killed leaves nothing half-written and resumes; two runs never write in one folder."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_project import Project, check_whole, environment, owner_of, program, tree

from compress.errors import StoreError
from compress.store.outdir import OutputFolder

PATIENCE_S = 100


def _start(project: Project) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        program("run", "recipe.toml"),
        cwd=project.folder,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _kill_when(process: subprocess.Popen[bytes], ready: Callable[[], bool], jitter_s: float) -> None:
    limit = time.monotonic() + PATIENCE_S
    while not ready() and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.005)
    time.sleep(jitter_s)
    process.kill()
    process.wait()


def _steps(out: Path) -> int:
    folder = out / ".cache" / "steps"
    return len(list(folder.glob("*.json"))) if folder.is_dir() else 0


def _check_absent_or_whole(out: Path) -> None:
    if (out / "current").exists():
        check_whole(out)
    for view in ("evidence.json", "manifest.json", "report.md", "artifacts"):
        assert not (out / view).is_symlink() or (out / view).exists()
    for run in (out / "runs").glob("[!.]*"):
        assert (run / "manifest.json").is_file()


@pytest.mark.timeout(300)
def test_killed_at_any_point_it_resumes(project: Project) -> None:
    project.change(schemes=["float32", "int8-dynamic"])
    chance = random.Random(0)
    reached = 0
    # While the model is read, behind the first lowering, while it scores, while it is timed, while it publishes.
    for steps in (0, 1, 3, 8, 12):
        process = _start(project)

        def ready(steps: int = steps) -> bool:
            return _steps(project.out) >= steps and (steps < 12 or (project.out / "runs").is_dir())

        _kill_when(process, ready, chance.uniform(0, 0.3) if steps < 12 else 0)
        _check_absent_or_whole(project.out)
        # What was finished stays finished.
        assert _steps(project.out) >= max(reached, steps)
        reached = _steps(project.out)
    done = project.run()
    assert done.reused > 0 and done.exit_code == 0
    assert done.made + done.reused == reached
    check_whole(project.out)
    assert list(project.out.rglob("*.tmp")) == []
    assert project.run().made == 0


def test_a_killed_publication_is_swept_away(finished: Project) -> None:
    before = tree(finished.out)
    scratch = finished.out / "runs" / ".0123456789ab.deadbeef.tmp"
    scratch.mkdir()
    (scratch / "evidence.json").write_text("half", encoding="utf-8")
    (finished.out / ".cache" / "steps" / ".x.json.0badcafe.tmp").write_text("half", encoding="utf-8")
    finished.run()
    assert tree(finished.out) == before


def test_a_second_run_in_the_same_folder_is_refused(finished: Project) -> None:
    before = tree(finished.out)
    with (
        OutputFolder(finished.out, owner_of(finished.load(), finished.recipe, finished.out)).claimed(),
        pytest.raises(StoreError, match="another run is writing here") as caught,
    ):
        finished.run()
    assert caught.value.exit_code == 2
    assert tree(finished.out) == before
    # The folder is free again.
    assert finished.run().made == 0

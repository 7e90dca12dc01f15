"""Which processors a worker is to stay on, and how its end is seen."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from compress.worker import launch
from compress.worker.launch import NobodyWaitsError, choose_cpus, run_worker


def cores(root: Path, *pairs: str) -> Path:
    """A machine whose processors share cores like this: `0,4`, `1,5`."""
    for pair in pairs:
        for cpu in pair.split(","):
            folder = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
            folder.mkdir(parents=True)
            (folder / "thread_siblings_list").write_text(f"{pair}\n")
    return root


@pytest.mark.parametrize(
    ("pairs", "allowed", "threads", "chosen"),
    [
        # Nothing is told: the last ones.
        ((), [0, 1, 2, 3], 2, [2, 3]),
        # Siblings beside each other: one of each core.
        (("0,1", "2,3"), [0, 1, 2, 3], 1, [3]),
        (("0,1", "2,3"), [0, 1, 2, 3], 2, [1, 3]),
        # More threads than cores: then siblings as well.
        (("0,1", "2,3"), [0, 1, 2, 3], 3, [1, 2, 3]),
        (("0,2", "1,3"), [0, 1, 2, 3], 2, [2, 3]),
        # All of them: it may move.
        (("0,1", "2,3"), [0, 1, 2, 3], 4, []),
        (("0,1",), [1], 1, []),
    ],
)
def test_a_thread_gets_a_core_of_its_own(
    tmp_path: Path, pairs: tuple[str, ...], allowed: list[int], threads: int, chosen: list[int]
) -> None:
    assert choose_cpus(threads, allowed, cores(tmp_path, *pairs)) == chosen


@pytest.fixture(params=["pidfd", "thread"])
def seen(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a process is seen with and without what old kernels lack."""
    if request.param == "thread":

        def missing(_: int) -> int:
            raise OSError(38, "Function not implemented")

        monkeypatch.setattr(launch.os, "pidfd_open", missing, raising=False)


@pytest.mark.usefixtures("seen")
def test_an_asker_is_answered_and_one_that_is_gone_ends_the_worker(tmp_path: Path) -> None:
    worker = tmp_path / "worker.py"
    worker.write_text("import sys, time\ntime.sleep(float(open(sys.argv[1] + '.s').read()))\nsys.exit(7)\n")
    asker, other = os.pipe()

    def run(seconds: float, timeout_s: float) -> int | None:
        (tmp_path / "job.json.s").write_text(str(seconds))
        return run_worker([sys.executable, str(worker)], {}, tmp_path, timeout_s, asker=asker).code

    try:
        assert run(0, 60) == 7
        assert run(60, 0.2) is None
        os.close(other)
        with pytest.raises(NobodyWaitsError):
            run(60, 60)
    finally:
        os.close(asker)

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "workflow"))

from check_kit import Bench, LocalHost, write_model

from compress.errors import WorkerError
from compress.pytest_plugin import LatencyGate

ROOT = Path(__file__).parents[1]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench(tmp_path)
    write_model(tmp_path / "new.onnx", "v2")
    monkeypatch.setattr(LocalHost, "run", lambda host, job, timeout_s: made.answer(job, timeout_s))
    return made


def test_no_regression_passes_and_returns_what_was_found(bench: Bench) -> None:
    found = LatencyGate()(bench.folder / "new.onnx", baseline=bench.file)
    assert (found.verdict, found.pairs) == ("SAME", 11)


def test_a_regression_fails_with_ratio_and_interval(bench: Bench) -> None:
    bench.ratio = 1.2
    with pytest.raises(pytest.fail.Exception, match=r"1\.2\d\dx|1\.19\dx|1\.20\dx") as error:
        LatencyGate()(bench.folder / "new.onnx", baseline=bench.file)
    assert "SLOWER (allowed is 1.02x)" in str(error.value)


def test_a_wider_tolerance_lets_it_pass(bench: Bench) -> None:
    bench.ratio = 1.2
    assert LatencyGate()(bench.folder / "new.onnx", baseline=bench.file, tolerance=0.5).verdict == "SAME"


def test_undecided_is_no_pass(bench: Bench) -> None:
    with pytest.raises(pytest.fail.Exception, match="undecided is no pass"):
        LatencyGate()(bench.folder / "new.onnx", baseline=bench.file, budget_s=0)


def test_a_budget_is_kept_or_not(bench: Bench) -> None:
    assert LatencyGate()(bench.file, budget_ms=3.0).verdict == "FASTER"
    with pytest.raises(pytest.fail.Exception, match=r"of the budget of 1\.5 ms"):
        LatencyGate()(bench.file, budget_ms=1.5)


def test_a_worker_that_crashes_is_no_pass(bench: Bench) -> None:
    bench.crash["duel"] = WorkerError("killed by SIGSEGV")
    with pytest.raises(pytest.fail.Exception, match="not measured: killed by SIGSEGV"):
        LatencyGate()(bench.folder / "new.onnx", baseline=bench.file)


def test_one_question_at_a_time(bench: Bench) -> None:
    with pytest.raises(ValueError, match="either budget_ms or baseline"):
        LatencyGate()(bench.file)


def test_a_users_suite_gets_the_fixture_and_no_torch(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m.onnx", "v1")
    (tmp_path / "test_user.py").write_text(
        "import sys\n"
        "def test_light():\n    assert not {'torch', 'onnxruntime', 'compress.workflow'} & set(sys.modules)\n"
        f"def test_budget(latency_gate):\n    latency_gate({str(model)!r}, budget_ms=10_000)\n"
    )
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-p", "no:edge-compress"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-p", "compress.pytest_plugin", "test_user.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "2 passed" in done.stdout, done.stdout

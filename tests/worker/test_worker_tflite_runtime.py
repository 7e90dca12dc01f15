"""The worker folder under the old interpreter's Python and numpy 1: every action, as it is deployed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress.errors import WorkerError
from compress.hosts.calls import ask, describe, run_outputs
from compress.hosts.local import LocalHost
from compress.worker.arrays import write_arrays
from compress.workflow.bench import BenchOptions, bench
from compress.workflow.progress import Silent

pytestmark = pytest.mark.usefixtures("tflite_runtime")
RUNTIME = "tflite_runtime"


@pytest.fixture
def job(tmp_path: Path, rows: dict[str, Any], tflite_files: dict[str, Path]) -> dict[str, Any]:
    inputs = tmp_path / "rows.npz"
    write_arrays(inputs, rows)
    return {
        "runtime": RUNTIME,
        "artifact": str(tflite_files["fixed"]),
        "inputs": str(inputs),
        "seconds": 0.02,
        "warmup_s": 0.01,
    }


def test_it_answers_every_row(tflite_files: dict[str, Path], rows: dict[str, Any], score: Any) -> None:
    made = run_outputs(LocalHost(), RUNTIME, tflite_files["fixed"], rows, threads=1, batch=3, timeout_s=60)
    np.testing.assert_allclose(made["score"], score, rtol=1e-5, atol=1e-5)
    opened = describe(LocalHost(), RUNTIME, tflite_files["fixed"], precision="float", threads=1, timeout_s=60)
    assert opened.inputs["x"].shape == (1, 4)
    taken = {item.operator: item.accelerated for item in opened.placement.operators}
    assert opened.placement.path == "XNNPACK" and taken["FULLY_CONNECTED"]


def test_what_xnnpack_leaves_is_listed(tflite_files: dict[str, Path]) -> None:
    found = describe(LocalHost(), RUNTIME, tflite_files["ids"], precision="float", threads=1, timeout_s=60)
    left = {item.operator: item.reason for item in found.placement.operators if not item.accelerated}
    assert left["EMBEDDING_LOOKUP"] == "XNNPACK did not take it"


def test_it_is_timed(job: dict[str, Any]) -> None:
    empty = ask(LocalHost(), {"action": "empty", "runtime": RUNTIME}, 60)
    assert empty["version"] == "2.14.0"
    timed = ask(LocalHost(), {**job, "action": "latency"}, 60)
    assert timed["samples_ms"] and timed["load_ms"] > 0 and timed["peak_rss_bytes"] > empty["peak_rss_bytes"] / 2
    rival = {"rival": job["artifact"]}
    assert ask(LocalHost(), {**job, **rival, "action": "duel"}, 60)["artifact_wall_ms"]
    assert len(ask(LocalHost(), {**job, "action": "sparse", "calls": 2, "pause_s": 0.0}, 60)["calls_ms"]) == 2


def test_it_has_no_profiler(job: dict[str, Any]) -> None:
    with pytest.raises(WorkerError, match="no operator profiler"):
        ask(LocalHost(), {**job, "action": "profile"}, 60)


@pytest.mark.parametrize("content", [b"", b"not a model", None])
def test_a_file_that_is_no_model_or_was_cut_is_named(
    tmp_path: Path, job: dict[str, Any], content: bytes | None
) -> None:
    path = tmp_path / "broken.tflite"
    whole = Path(job["artifact"]).read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(WorkerError, match=r"broken\.tflite: tflite-runtime 2\.14\.0 cannot open it"):
        ask(LocalHost(), {**job, "action": "latency", "artifact": str(path)}, 60)


def test_a_file_is_benched_on_the_target_that_is_named(tflite_files: dict[str, Path]) -> None:
    options = BenchOptions(target="tflite-runtime-cpu", pairs=5, seconds=0.02, sparse_calls=0)
    found = bench([tflite_files["fixed"]], options, Silent())
    assert (found.target, found.runtime) == ("tflite-runtime-cpu", RUNTIME)
    (file,) = found.artifacts
    assert file.latency is not None and not file.error
    assert found.environment.packages["tflite-runtime"] == "2.14.0"

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from compress.hosts.calls import ask
from compress.hosts.local import LocalHost
from compress.worker.actions import perform
from compress.worker.arrays import write_arrays
from compress.worker.base_session import BaseSession
from compress.worker.duel import MIN_QUADS, time_duel
from compress.worker.errors import JobError
from compress.worker.job import Job
from compress.worker.litert_profile import DELEGATED, OPERATOR, Event, operator_times
from compress.worker.sparse import UNKNOWN_CACHE_BYTES, last_cache_bytes, time_sparse


def spin(seconds: float) -> Callable[[], None]:
    def call() -> None:
        end = time.thread_time() + seconds
        while time.thread_time() < end:
            pass

    return call


def test_turns_go_first_second_second_first_and_then_the_other_way() -> None:
    order: list[str] = []
    time_duel(
        lambda: (order.append("a"), time.sleep(0.001))[1],  # type: ignore[func-returns-value]
        lambda: (order.append("b"), time.sleep(0.001))[1],  # type: ignore[func-returns-value]
        0,
    )
    # Each turn is an untimed call, then the timed one.
    assert "".join(order[2:][1::2]) == "abba" + "baab" + "abba"
    assert order[2:][::2] == order[2:][1::2]


def test_the_ratio_is_that_of_the_work() -> None:
    quads = time_duel(spin(0.001), spin(0.002), 0.1)
    ratio = statistics.median(b / a for a, b in zip(quads.first_cpu_ms, quads.second_cpu_ms, strict=True))
    assert ratio == pytest.approx(2, rel=0.2)
    assert len(quads.first_wall_ms) == len(quads.second_cpu_ms) >= MIN_QUADS


def test_a_call_that_waits_is_told_from_one_that_computes() -> None:
    quads = time_duel(spin(0.001), lambda: time.sleep(0.001), 0.05)
    assert quads.first_waits < 0.05
    assert quads.second_waits >= 0.9
    assert statistics.median(quads.second_cpu_ms) < 0.5 * statistics.median(quads.second_wall_ms)


def test_short_calls_are_repeated_within_a_turn() -> None:
    quads = time_duel(lambda: None, spin(0.001), 0.02)
    assert quads.first_calls > 20
    assert quads.second_calls == 1


@pytest.fixture
def inputs(tmp_path: Path, rows: dict[str, Any]) -> Path:
    write_arrays(tmp_path / "in.npz", rows)
    return tmp_path / "in.npz"


def job(action: str, artifact: Path, inputs: Path, **more: Any) -> Job:
    return Job(action, "onnxruntime", "unused", artifact=str(artifact), inputs=str(inputs), **more)


@pytest.mark.parametrize("flip", [False, True])
def test_a_duel_names_its_sides_whoever_is_opened_first(onnx_file: Path, inputs: Path, flip: bool) -> None:
    result = perform(job("duel", onnx_file, inputs, rival=str(onnx_file), flip=flip, seconds=0.01, rival_threads=1))
    for side in ("artifact", "rival"):
        assert len(result[f"{side}_wall_ms"]) >= MIN_QUADS
        assert all(value > 0 for value in result[f"{side}_cpu_ms"])
        assert result[f"{side}_calls"] >= 1


def test_a_duel_runs_in_a_worker_process(onnx_file: Path, onnx_int8_file: Path, inputs: Path) -> None:
    asked = {"action": "duel", "runtime": "onnxruntime", "artifact": str(onnx_file), "rival": str(onnx_int8_file)}
    result = ask(LocalHost(), {**asked, "inputs": str(inputs), "seconds": 0.01}, 60)
    assert result["action"] == "duel"
    assert result["rival_waits"] >= 0


def test_a_rival_may_take_rows_of_its_own(onnx_file: Path, inputs: Path, tmp_path: Path, rows: dict[str, Any]) -> None:
    write_arrays(tmp_path / "two.npz", {name: array[:1] for name, array in rows.items()})
    asked = job("duel", onnx_file, inputs, rival=str(onnx_file), rival_inputs=str(tmp_path / "two.npz"), seconds=0.01)
    assert perform(asked)["rival_calls"] >= 1
    # Only its own rows decide what the rival is fed.
    with pytest.raises(JobError, match=r"two\.npz: holds 1 rows; the batch is 2"):
        perform(replace(asked, batch=2))


def test_rare_calls_are_apart_and_see_cold_caches(onnx_file: Path, inputs: Path) -> None:
    begin = time.perf_counter()
    result = perform(job("sparse", onnx_file, inputs, calls=3, pause_s=0.02))
    assert len(result["calls_ms"]) == 3
    assert time.perf_counter() - begin >= 0.06
    assert time_sparse(lambda: None, calls=2, pause_s=0)[0] >= 0


def test_the_last_cache_is_the_largest_and_an_unknown_one_is_large(tmp_path: Path) -> None:
    assert last_cache_bytes(tmp_path) == UNKNOWN_CACHE_BYTES
    for index, size in enumerate(("32K", "512K", "16M", "odd")):
        (tmp_path / f"index{index}").mkdir()
        (tmp_path / f"index{index}" / "size").write_text(size + "\n")
    assert last_cache_bytes(tmp_path) == 16 << 20


def test_operators_are_timed_by_name(onnx_file: Path, inputs: Path) -> None:
    result = perform(job("profile", onnx_file, inputs, calls=4))
    names = [item["name"] for item in result["operators"]]
    assert "second_layer" in names
    assert all(item["ms"] >= 0 for item in result["operators"])
    assert np.isfinite([item["ms"] for item in result["operators"]]).all()


def test_what_a_delegate_swallowed_is_timed_by_the_name_of_its_output(
    tflite_files: dict[str, Path], inputs: Path
) -> None:
    asked = {"action": "profile", "runtime": "litert", "artifact": str(tflite_files["fixed"]), "inputs": str(inputs)}
    operators = ask(LocalHost(), {**asked, "calls": 3}, 60)["operators"]
    products = [item for item in operators if item["operator"].startswith("Fully Connected")]
    assert len({item["name"] for item in products}) == 2
    assert not {item["name"] for item in products} & {item["operator"] for item in operators}
    assert all(item["ms"] >= 0 for item in operators)


def test_names_inside_a_delegate_are_kept_back_where_their_number_is_not_that_of_the_file() -> None:
    made = [Event("Convolution (NHWC, F32) IGEMM", DELEGATED, 0, 0.2), Event("CUMSUM", OPERATOR, 1, 0.1)]
    slow = [Event("Convolution (NHWC, F32) IGEMM", DELEGATED, 0, 0.6), Event("CUMSUM", OPERATOR, 1, 0.1)]
    names = {0: "stem", 1: "total"}
    assert [item.name for item in operator_times([made], ["stem"], names)] == ["stem", "total"]
    assert [item.name for item in operator_times([made], ["stem", "more"], names)] == [made[0].tag, "total"]
    assert [item.ms for item in operator_times([made, slow, slow[:1]], ["stem"], names)] == [0.4, 0.1]


def test_a_runtime_without_a_profiler_says_so() -> None:
    with pytest.raises(JobError, match="exposes no operator profiler"):
        BaseSession.profile(cast(Any, None), {}, 2)

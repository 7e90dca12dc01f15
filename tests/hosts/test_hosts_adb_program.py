"""The adb host with a runtime's benchmark program, through stand-ins for adb and for these programs."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from phone_kit import TOOLS, Bench, Phones

from compress.bench.conductor import BenchItem, measure
from compress.bench.duels import Fighter, Ring, in_turns
from compress.errors import WorkerError
from compress.hosts.adb import AdbHost
from compress.hosts.calls import ask, describe
from compress.target import AdbSettings


@pytest.fixture
def phones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Phones:
    made = Phones(tmp_path / "phones")
    monkeypatch.setenv("PATH", made.path)
    monkeypatch.setenv("ADB_STAND_IN", str(made.folder))
    return made


@pytest.fixture
def bench(phones: Phones) -> Bench:
    return Bench(phones.add())


def add_onnx(path: Path, note: str = "add") -> Path:
    import onnx
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("Cast", ["ids"], ["n"], to=TensorProto.FLOAT), helper.make_node("Add", ["x", "n"], ["y"])],
        note,
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4]),
            helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", 1]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
    )
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def add_tflite(path: Path, note: str = "add") -> Path:
    """`y = x + ids`, with names as converters write them."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    def tensor(name: str, size: int, kind: int) -> Any:
        made = schema.TensorT()
        made.name, made.shape, made.shapeSignature = name, [1, size], [-1, size]
        made.type, made.buffer = kind, 0
        return made

    def named(name: str, index: int) -> Any:
        made = schema.TensorMapT()
        made.name, made.tensorIndex = name, index
        return made

    types, builtin = schema.TensorType, schema.BuiltinOperator
    graph, model, signature = schema.SubGraphT(), schema.ModelT(), schema.SignatureDefT()
    graph.tensors = [
        tensor("serving_default_args_0:0", 4, types.FLOAT32),
        tensor("serving_default_args_1:0", 1, types.INT32),
        tensor("cast", 1, types.FLOAT32),
        tensor("StatefulPartitionedCall:0", 4, types.FLOAT32),
    ]
    graph.inputs, graph.outputs, graph.operators, model.operatorCodes = [0, 1], [3], [], []
    for code, given, made in ((builtin.CAST, [1], 2), (builtin.ADD, [0, 2], 3)):
        operator, entry = schema.OperatorT(), schema.OperatorCodeT()
        operator.opcodeIndex, operator.inputs, operator.outputs = len(model.operatorCodes), given, [made]
        entry.builtinCode = entry.deprecatedBuiltinCode = code
        entry.version = 1
        if code == builtin.ADD:
            operator.builtinOptionsType, operator.builtinOptions = (
                schema.BuiltinOptions.AddOptions,
                schema.AddOptionsT(),
            )
        graph.operators.append(operator)
        model.operatorCodes.append(entry)
    signature.signatureKey, signature.subgraphIndex = "serving_default", 0
    signature.inputs, signature.outputs = [named("x", 0), named("ids", 1)], [named("y", 3)]
    model.version, model.subgraphs, model.signatureDefs = 3, [graph], [signature]
    model.buffers, model.description = [schema.BufferT()], note
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


MAKERS: dict[str, Callable[..., Path]] = {"litert": add_tflite, "onnxruntime": add_onnx}


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.npz"
    np.savez(path, x=np.ones((3, 4), np.float32), ids=np.arange(3, dtype=np.int64).reshape(3, 1))
    return path


def job(runtime: str, artifact: Path, rows: Path, **values: Any) -> dict[str, Any]:
    made = {"action": "latency", "runtime": runtime, "artifact": str(artifact), "inputs": str(rows)}
    return {**made, "seconds": 0.1, "warmup_s": 0.02, **values}


def test_benchmark_model_gets_the_rows_and_its_figures_are_read(bench: Bench, rows: Path, tmp_path: Path) -> None:
    host = bench.host("litert")
    artifact = add_tflite(tmp_path / "add.tflite")
    found = ask(host, job("litert", artifact, rows, batch=3), 60)
    assert (found["samples_ms"], found["load_ms"], found["first_ms"]) == ([1.5], 1.5, 3.0)
    assert (found["calls_per_sample"], found["singles_ms"]) == (50, [])
    assert found["peak_rss_bytes"] == 2.5 * 2**20
    (asked,) = bench.asked()
    assert asked["input_layer"] == "serving_default_args_0:0,serving_default_args_1:0"
    # 64-bit ids become the 32 bits that the file takes: the stand-in compares bytes.
    assert asked["input_layer_shape"] == "3,4:3,1"
    assert (asked["num_threads"], asked["min_secs"], asked["warmup_min_secs"]) == ("1", "0.1", "0.02")
    host.close()
    assert bench.phone.left() == []


def test_perf_test_gets_the_rows_and_its_calls_are_read(bench: Bench, rows: Path, tmp_path: Path) -> None:
    import onnx

    host = bench.host("onnxruntime")
    artifact = add_onnx(tmp_path / "add.onnx")
    found = ask(host, job("onnxruntime", artifact, rows, batch=2, threads=2), 60)
    # The first calls, 20 ms of them, were for warming up; two calls fill a sample of 2 ms.
    assert found["calls_per_sample"] == 2
    assert found["singles_ms"] == pytest.approx([1.5] * 89)
    assert found["samples_ms"] == pytest.approx([1.5] * 44)
    assert (found["load_ms"], found["first_ms"], found["peak_rss_bytes"]) == (2.5, 3.0, 9_000_000)
    (asked,) = bench.asked()
    given = [onnx.TensorProto.FromString(bytes.fromhex(row)) for row in asked["rows"]]
    assert [item.name for item in given] == ["x", "ids"]
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(given[0]), np.ones((2, 4), np.float32))
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(given[1]), np.array([[0], [1]]))
    assert (asked["-t"], asked["-x"], asked["-e"], asked["-o"]) == ("1", "2", "cpu", "99")
    host.close()
    assert bench.phone.left() == []


@pytest.mark.parametrize("runtime", TOOLS)
def test_files_are_measured_and_compared_like_on_any_host(
    bench: Bench, rows: Path, tmp_path: Path, runtime: str
) -> None:
    slow, fast = (MAKERS[runtime](tmp_path / name, name) for name in ("slow", "fast and longer"))
    np.savez(rows, x=np.ones((1, 4), np.float32), ids=np.zeros((1, 1), np.int64))
    bench.says(ms={"other": 2.0, str(slow.stat().st_size): 4.0})
    host = bench.host(runtime)
    sample = in_turns(host, Fighter(slow, 1), Fighter(fast, 1), Ring(runtime, rows, 1, 60))(True)
    assert (sample.log_ratio, sample.clock) == (pytest.approx(-np.log(2)), "wall")
    assert sample.load_log_ratio == 0
    if runtime == "onnxruntime":
        # One is enough for what is the same on every host.
        host.close()
        return
    items = [BenchItem(path.name, runtime, path) for path in (slow, fast)]
    found = measure(
        host, items, rows, threads=1, batch=1, seconds=0.1, pairs=5, max_pairs=5, tolerance=0.02, seed=0, timeout_s=60
    )
    latency = found[fast.name].latency
    assert latency is not None
    assert (latency.median_ms, latency.processes) == (pytest.approx(2.0), 5)
    assert latency.comparison is not None
    assert latency.comparison.verdict == "FASTER"
    memory = found[fast.name].memory
    assert memory is not None
    # It says what it took above its own start.
    assert memory.above_empty_bytes == 2.5 * 2**20
    host.close()


def test_a_file_is_carried_once_and_the_phone_is_asked_nothing_else(bench: Bench, rows: Path, tmp_path: Path) -> None:
    host = bench.host("litert")
    work = job("litert", add_tflite(tmp_path / "add.tflite"), rows)
    host.run(work, 60)
    calls = (bench.phone.root.parent / "calls").read_text().count("push")
    host.run(work, 60)
    assert (bench.phone.root.parent / "calls").read_text().count("push") == calls == 3
    host.close()


def test_what_it_cannot_do_is_said(bench: Bench, rows: Path, tmp_path: Path) -> None:
    host = bench.host("litert")
    artifact = add_tflite(tmp_path / "add.tflite")
    assert host.times_only == "benchmark_model takes times and gives no outputs"
    for action in ("outputs", "sparse", "profile", "describe"):
        with pytest.raises(WorkerError, match=f"benchmark_model takes times and memory; it cannot do '{action}'"):
            host.run(job("litert", artifact, rows, action=action), 60)
    # What a file takes is asked of this machine.
    found = describe(host, "litert", artifact, precision="float", threads=1, timeout_s=60)
    assert set(found.inputs) == {"x", "ids"}
    with pytest.raises(WorkerError, match="no benchmark program of executorch is known"):
        AdbHost(AdbSettings(benchmark_binary="device:/x"), "executorch").run({"action": "empty"}, 60)
    host.close()


@pytest.mark.parametrize("runtime", TOOLS)
def test_an_empty_call_says_memory_and_a_version(bench: Bench, runtime: str) -> None:
    bench.says(ms={"other": 1.0}, peak=5_000_000)
    host = bench.host(runtime)
    found = ask(host, {"action": "empty", "runtime": runtime}, 60)
    assert found["peak_rss_bytes"] == (0 if runtime == "litert" else 5_000_000)
    assert found["version"].startswith(f"{TOOLS[runtime]} sha256 ")
    host.close()


@pytest.mark.parametrize(
    ("runtime", "broken", "said"),
    [
        ("litert", "timings in us", "benchmark_model did not say its times; its last words"),
        ("litert", "count=", "did not say the number of runs"),
        ("litert", "footprint", "did not say its memory"),
        ("litert", "crash", "benchmark_model was killed by signal 6"),
        ("onnxruntime", "rows", "onnxruntime_perf_test did not say the time of any call"),
        ("onnxruntime", "Peak", "did not say its memory"),
    ],
)
def test_what_is_not_said_is_an_error(
    bench: Bench, rows: Path, tmp_path: Path, runtime: str, broken: str, said: str
) -> None:
    bench.says(ms={"other": 1.0}, **{"break": broken})
    host = bench.host(runtime)
    with pytest.raises(WorkerError, match=said):
        host.run(job(runtime, MAKERS[runtime](tmp_path / "add"), rows), 60)
    host.close()
    assert bench.phone.left() == []


def test_rows_and_files_that_do_not_fit_are_told(bench: Bench, rows: Path, tmp_path: Path) -> None:
    for runtime, maker in MAKERS.items():
        host = bench.host(runtime)
        artifact = maker(tmp_path / f"add.{runtime}")
        np.savez(tmp_path / "wrong.npz", x=np.ones((1, 4), np.float32))
        with pytest.raises(WorkerError, match="the input 'ids' is missing"):
            host.run(job(runtime, artifact, tmp_path / "wrong.npz"), 60)
        artifact.write_bytes(b"damaged")
        with pytest.raises(WorkerError, match="its inputs cannot be read"):
            host.run(job(runtime, artifact, rows), 60)
        host.close()


@pytest.mark.parametrize(
    ("fails", "said", "hint"),
    [
        ("full", "No space left on device", "adb shell df /data"),
        ("corrupt", "arrived with other bytes", "another cable"),
    ],
)
def test_a_push_that_fails_is_told_with_what_helps(
    bench: Bench, phones: Phones, rows: Path, tmp_path: Path, fails: str, said: str, hint: str
) -> None:
    host = bench.host("litert")
    host.run({"action": "empty", "runtime": "litert"}, 60)
    phones.change(fails=[fails])
    with pytest.raises(WorkerError, match=f"on A1: .*{said}") as error:
        host.run(job("litert", add_tflite(tmp_path / "add.tflite"), rows), 60)
    assert hint in error.value.hint
    host.close()
    assert bench.phone.left() == []


def test_a_program_that_hangs_is_ended_there(bench: Bench, rows: Path, tmp_path: Path) -> None:
    host = bench.host("litert")
    host.run({"action": "empty", "runtime": "litert"}, 60)
    bench.says(ms={"other": 1.0}, **{"break": "hang"})
    with pytest.raises(WorkerError, match="did not end within 2 s"):
        host.run(job("litert", add_tflite(tmp_path / "add.tflite"), rows), 2)
    assert running(bench.folder) == []
    host.close()
    assert bench.phone.left() == []


def running(folder: Path) -> list[str]:
    """Processes of a program in that folder; waits a moment for what is being ended."""
    end = time.monotonic() + 20
    while True:
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                line = path.read_bytes().decode(errors="replace")
            except OSError:
                continue
            found += [line] if str(folder) in line else []
        if not found or time.monotonic() > end:
            return found
        time.sleep(0.05)


def test_a_phone_that_went_away_leaves_nothing_running(
    bench: Bench, phones: Phones, rows: Path, tmp_path: Path
) -> None:
    host = bench.host("litert")
    work = job("litert", add_tflite(tmp_path / "add.tflite"), rows)
    host.run(work, 60)
    phones.unplug()
    with pytest.raises(WorkerError, match="A1"):
        host.run(work, 60)
    host.close()
    assert bench.phone.left() == []


def test_a_program_of_this_machine_is_carried_there(phones: Phones, tmp_path: Path) -> None:
    binary = tmp_path / "benchmark_model"
    shutil.copy("/bin/true", binary)
    machines = {0x3E: "x86_64", 0xB7: "arm64-v8a"}
    own = machines.get(int.from_bytes(binary.read_bytes()[18:20], "little"))
    if own is None:
        pytest.skip("the processor of this machine is none of Android's")
    phone = phones.add(properties={"ro.product.cpu.abi": own})
    host = AdbHost(AdbSettings(benchmark_binary=str(binary)), "litert")
    with pytest.raises(WorkerError, match="benchmark_model did not say its options"):
        host.run({"action": "empty", "runtime": "litert"}, 60)
    assert [path.name for path in phone.temporary.glob("edge-compress-*/bin/*")] == ["benchmark_model"]
    host.close()
    assert phone.left() == []
    phone.say({"ro.product.cpu.abi": "riscv64"})
    with pytest.raises(WorkerError, match=f"benchmark_model is for {own}; the phone is riscv64"):
        AdbHost(AdbSettings(benchmark_binary=str(binary)), "litert").run({"action": "empty"}, 60)
    for content, said in ((b"#!/bin/sh", "is no program of Android"), (None, "No such file")):
        binary.unlink()
        if content is not None:
            binary.write_bytes(content)
        with pytest.raises(WorkerError, match=said):
            AdbHost(AdbSettings(benchmark_binary=str(binary)), "litert").run({"action": "empty"}, 60)
        binary.touch()
    assert phone.left() == []


def test_a_program_that_is_not_on_the_phone_is_told(phones: Phones) -> None:
    phone = phones.add()
    host = AdbHost(AdbSettings(benchmark_binary="device:/data/local/tmp/nowhere"), "litert")
    with pytest.raises(WorkerError, match="/data/local/tmp/nowhere is not there") as error:
        host.run({"action": "empty"}, 60)
    assert "adb push benchmark_model" in error.value.hint
    assert phone.left() == []


def test_it_stays_on_the_last_processors_of_the_phone(bench: Bench, rows: Path, tmp_path: Path) -> None:
    host = bench.host("litert")
    artifact = add_tflite(tmp_path / "add.tflite")
    assert ask(host, job("litert", artifact, rows), 60)["cpus"] == [3]
    assert ask(host, job("litert", artifact, rows, threads=2), 60)["cpus"] == [2, 3]
    # All of them: it may move.
    assert ask(host, job("litert", artifact, rows, threads=4), 60)["cpus"] == []
    assert (bench.phone.root / "masks").read_text().split() == ["8", "c"]
    host.close()

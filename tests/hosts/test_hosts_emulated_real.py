"""Real emulation: every processor that can be emulated, with the runtimes that are installed here.

It needs what `edge-compress doctor --setup emulated` brings, and is skipped with that command where it is missing.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compress.errors import WorkerError
from compress.hosts.calls import ask, describe, run_outputs
from compress.hosts.emulated import EmulatedHost
from compress.hosts.emulation import emulation_folder, find_emulation, in_system
from compress.hosts.local import LocalHost
from compress.processors import PROCESSORS, adds_in_16_bits, emulated

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
TIMEOUT_S = 600

# Runs machine code: an instruction, then a return. On a core that lacks the instruction it is illegal.
RUN_CODE = """
import ctypes, json, mmap, sys
job = json.load(open(sys.argv[1]))
page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(bytes.fromhex("{code}"))
ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
open(job["result"], "w").write(json.dumps({{"schema": 1}}))
"""
# sdot v0.4s, v0.16b, v0.16b; ret
SDOT = "0094804ec0035fd6"
# vpaddd ymm0, ymm0, ymm0 (AVX2); ret
AVX2 = "c5fdfec0c3"
# vpdpbusd zmm0, zmm0, zmm0 (AVX-512 VNNI); ret
VNNI = "62f27d4850c0c3"


@pytest.fixture(params=[item.name for item in emulated()])
def processor(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    try:
        find_emulation(PROCESSORS[name], emulation_folder(), "onnxruntime")
    except WorkerError as error:
        pytest.skip(str(error))
    return name


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """`y = x @ w`, integers that are exact in float32, so that every processor must agree."""
    weight = np.arange(-32, 32, dtype=np.float32).reshape(8, 8)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 8])],
        [numpy_helper.from_array(weight, "w")],
    )
    path = tmp_path_factory.mktemp("onnx") / "product.onnx"
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), path)
    yield path


def test_the_unmodified_runtime_gives_the_same_answers(processor: str, product: Path) -> None:
    x = {"x": np.arange(40, dtype=np.float32).reshape(5, 8)}
    host = EmulatedHost(PROCESSORS[processor])
    there = run_outputs(host, "onnxruntime", product, x, threads=2, batch=2, timeout_s=TIMEOUT_S)
    here = run_outputs(LocalHost(), "onnxruntime", product, x, threads=1, batch=2, timeout_s=60)
    np.testing.assert_array_equal(there["y"], here["y"])


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_every_runtime_starts(processor: str, runtime: str) -> None:
    answer = ask(EmulatedHost(PROCESSORS[processor]), {"action": "empty", "runtime": runtime}, TIMEOUT_S)
    here = ask(LocalHost(), {"action": "empty", "runtime": runtime}, 60)
    assert answer["version"] == here["version"]


def test_a_file_is_described_there(processor: str, product: Path) -> None:
    host = EmulatedHost(PROCESSORS[processor])
    found = describe(host, "onnxruntime", product, precision="float", threads=1, timeout_s=TIMEOUT_S)
    assert found.placement.total == 1 and list(found.outputs) == ["y"]


def test_what_the_runtime_refuses_is_its_answer(processor: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\x7fELF of another machine")
    with pytest.raises(WorkerError, match=r"broken\.onnx: ONNX Runtime .* cannot open it"):
        run_outputs(
            EmulatedHost(PROCESSORS[processor]),
            "onnxruntime",
            broken,
            {"x": np.zeros((1, 8), np.float32)},
            threads=1,
            batch=1,
            timeout_s=TIMEOUT_S,
        )


@pytest.fixture(scope="module")
def sums(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`y = x @ w` in integers: uint8 by the int8 weights 127 and -127, by column."""
    weight = np.tile(np.array([[127, -127]], np.int8), (256, 4))
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "w"], ["y"])],
        "sums",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["batch", 256])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, ["batch", 8])],
        [numpy_helper.from_array(weight, "w")],
    )
    path = tmp_path_factory.mktemp("onnx") / "sums.onnx"
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def test_8_bit_sums_are_exact_wherever_they_are_used(processor: str, sums: Path) -> None:
    """The largest products there are. This is what decides where 7-bit weights are needed; see decision 45."""
    x = {"x": np.full((3, 256), 255, np.uint8)}
    host = EmulatedHost(PROCESSORS[processor])
    made = run_outputs(host, "onnxruntime", sums, x, threads=1, batch=3, timeout_s=TIMEOUT_S)["y"]
    exact = bool((np.abs(made) == 256 * 255 * 127).all())
    assert exact or adds_in_16_bits(processor)
    if processor == "haswell":
        assert not exact


@pytest.mark.parametrize(
    ("name", "code", "runs"),
    [
        ("cortex-a76", SDOT, True),
        ("cortex-a72", SDOT, False),
        ("cortex-a53", SDOT, False),
        ("haswell", AVX2, True),
        ("sandy-bridge", AVX2, False),
        ("nehalem", AVX2, False),
        ("haswell", VNNI, False),
    ],
)
def test_a_processor_has_its_instructions_and_no_others(tmp_path: Path, name: str, code: str, runs: bool) -> None:
    try:
        find_emulation(PROCESSORS[name], emulation_folder())
    except WorkerError as error:
        pytest.skip(str(error))
    (tmp_path / "__main__.py").write_text(RUN_CODE.format(code=code))
    host = EmulatedHost(PROCESSORS[name], worker=tmp_path)
    job = {"action": "outputs", "runtime": "onnxruntime", "artifact": "code"}
    if runs:
        assert host.run(job, TIMEOUT_S) == {"schema": 1}
        return
    with pytest.raises(WorkerError, match=f"on the emulated {name}: the worker was killed by SIGILL") as error:
        host.run(job, TIMEOUT_S)
    assert f"an instruction that {name} does not have" in error.value.hint


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the system of another architecture is that of Arm")
def test_a_system_of_the_wrong_architecture_is_told_apart(tmp_path: Path) -> None:
    import json
    import sys

    from compress.hosts.emulation import find_qemu, installed_runtimes
    from compress.hosts.folders import SCHEMA

    qemu = find_qemu("aarch64", emulation_folder())
    if qemu is None:
        pytest.skip("edge-compress doctor --setup emulated")
    (tmp_path / "processors" / "cortex-a53").mkdir(parents=True)
    (tmp_path / "root" / "usr" / "bin").mkdir(parents=True)
    (tmp_path / "root" / "usr" / "bin" / "python3.11").symlink_to(sys.executable)
    manifest = {"schema": SCHEMA, "digest": "0" * 64, "python": "3.11", "runtimes": installed_runtimes()}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    wrong = in_system(PROCESSORS["cortex-a53"], qemu, tmp_path, "onnxruntime")
    with pytest.raises(WorkerError, match=r"(?s)on the emulated cortex-a53: .*(ELF|architecture)"):
        EmulatedHost(PROCESSORS["cortex-a53"], wrong).run({"action": "empty", "runtime": "onnxruntime"}, 60)


def test_a_hang_is_ended_there_too(tmp_path: Path, processor: str) -> None:
    (tmp_path / "__main__.py").write_text("import time\ntime.sleep(600)\n")
    with pytest.raises(WorkerError, match="was ended after 5 s"):
        EmulatedHost(PROCESSORS[processor], worker=tmp_path).run({"action": "empty", "runtime": "onnxruntime"}, 5)

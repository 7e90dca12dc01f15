"""The adb host with the worker on the phone, through a stand-in for adb; the worker is the real one."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from phone_kit import Phone, Phones

from compress.errors import RecipeError, WorkerError
from compress.hosts import adb as adb_module
from compress.hosts import far, open_host
from compress.hosts.adb import AdbHost
from compress.hosts.calls import ask, run_outputs
from compress.target import AdbSettings, load_target

EMPTY = {"action": "empty", "runtime": "onnxruntime"}


@pytest.fixture
def phones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Phones:
    made = Phones(tmp_path / "phones")
    monkeypatch.setenv("PATH", made.path)
    monkeypatch.setenv("ADB_STAND_IN", str(made.folder))
    monkeypatch.setattr(adb_module, "LOOK_S", 0.05)
    return made


@pytest.fixture
def phone(phones: Phones) -> Phone:
    return phones.add()


@pytest.fixture
def host(phone: Phone) -> Iterator[AdbHost]:
    made = AdbHost(AdbSettings(python="python3", cool_s=0), "onnxruntime")
    yield made
    made.close()


@pytest.fixture
def doubling(tmp_path: Path) -> Path:
    import onnx
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        "double",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
    )
    path = tmp_path / "double.onnx"
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


@pytest.fixture
def latency(doubling: Path, tmp_path: Path) -> dict[str, Any]:
    rows = tmp_path / "rows.npz"
    np.savez(rows, x=np.zeros((1, 4), np.float32))
    job = {"action": "latency", "runtime": "onnxruntime", "artifact": str(doubling), "inputs": str(rows)}
    return {**job, "seconds": 0.02}


def test_answers_and_times_come_from_the_phone_and_nothing_is_left(
    host: AdbHost, phone: Phone, doubling: Path, latency: dict[str, Any]
) -> None:
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    made = run_outputs(host, "onnxruntime", doubling, {"x": rows}, threads=1, batch=2, timeout_s=120)
    np.testing.assert_array_equal(made["y"], rows * 2)
    assert ask(host, latency, 120)["load_ms"] > 0
    assert len(list(phone.temporary.glob("edge-compress-*/files/*"))) == 3
    assert (host.tells_time, host.times_only) == (True, "")
    host.close()
    assert phone.left() == []


def test_the_phone_says_what_it_is_and_how_it_stands(host: AdbHost, phone: Phone) -> None:
    assert host.machine == "Acme Lite 4, Unisoc SC9863A, arm64-v8a, Android 13"
    phone.battery(status="2")
    phone.clock(3, 1_200_000)
    found = host.facts()
    told = {key: found[key] for key in ("serial", "abi", "sdk", "cores", "governor", "allowed_mhz", "highest_mhz")}
    assert told == {
        "serial": "A1",
        "abi": "arm64-v8a",
        "sdk": 33,
        "cores": 4,
        "governor": "schedutil",
        "allowed_mhz": "cpu0-2 1600, cpu3 1200",
        "highest_mhz": "cpu0-3 1600",
    }
    assert found["temperatures_c"] == {"cpu-thermal": 36.5}
    assert (found["battery_percent"], found["battery_status"], found["battery_powered_by"]) == (85, "charging", "USB")
    assert (found["battery_temperature_c"], found["thermal_status"]) == (28.7, "none")
    assert found["memory_bytes"] == 1_900_000 * 1024
    assert found["warnings"] == [
        "the clock of 1 processors is limited: cpu3 to 1200 of 1600 MHz",
        "it is charging, which warms it",
    ]


def test_what_an_older_phone_does_not_tell_is_said(host: AdbHost, phone: Phone) -> None:
    (phone.root / "thermalservice.txt").unlink()
    (phone.root / "sys/class/thermal/thermal_zone0/temp").unlink()
    found = host.facts()
    assert (found["thermal_status"], found["temperatures_c"]) == ("not told", {})
    assert "does not tell its thermal status" in found["warnings"][0]


@pytest.mark.parametrize(
    ("status", "said"), [(1, ""), (2, r"thermal status is 2 \(moderate\)"), (4, r"thermal status is 4 \(critical\)")]
)
def test_times_are_refused_while_it_throttles(
    host: AdbHost, phone: Phone, latency: dict[str, Any], status: int, said: str
) -> None:
    phone.thermal(status)
    if not said:
        assert host.run(latency, 120)["first_ms"] > 0
        return
    with pytest.raises(WorkerError, match=f"on A1: it throttles: its {said}, and did not stop within 0 s") as error:
        host.run(latency, 120)
    assert "adb.cool_s" in error.value.hint
    # Answers are not times: they are given all the same.
    assert host.run(EMPTY, 120)["version"]


def test_it_waits_until_the_phone_has_cooled(phone: Phone, latency: dict[str, Any]) -> None:
    host = AdbHost(AdbSettings(python="python3", cool_s=60), "onnxruntime")
    phone.thermal(3)
    timer = threading.Timer(1, lambda: phone.thermal(0))
    timer.start()
    try:
        assert host.run(latency, 120)["first_ms"] > 0
        assert timer.finished.is_set()
    finally:
        timer.join()
        host.close()


def test_a_battery_below_the_targets_bound_is_refused_at_once(phone: Phone, latency: dict[str, Any]) -> None:
    phone.battery(level="29")
    host = AdbHost(AdbSettings(python="python3", min_battery=30), "onnxruntime")
    with pytest.raises(WorkerError, match=r"battery holds 29 %, less than adb\.min_battery = 30") as error:
        host.run(latency, 120)
    assert error.value.hint == "charge it first."


def test_times_during_which_a_clock_was_capped_are_thrown_away(
    host: AdbHost, phone: Phone, latency: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    host.run(latency, 120)
    done: list[float] = []
    real = AdbHost._run

    def capped(self: AdbHost, *arguments: Any) -> dict[str, Any]:
        found = real(self, *arguments)
        done.append(found["first_ms"])
        phone.clock(2, 1_200_000)
        return found

    monkeypatch.setattr(AdbHost, "_run", capped)
    with pytest.raises(WorkerError, match="the clock limit of cpu2 fell from 1600 to 1200 MHz"):
        host.run(latency, 120)
    assert len(done) == 1


def test_which_phone_must_be_clear(phones: Phones) -> None:
    host = AdbHost(AdbSettings(python="python3"), "onnxruntime")
    with pytest.raises(WorkerError, match="adb lists no device") as error:
        host.run(EMPTY, 60)
    assert "USB debugging" in error.value.hint
    phones.add("A1")
    phones.add("B2", "unauthorized")
    with pytest.raises(WorkerError, match=r"2 devices: A1 \(device\), B2 \(unauthorized\)") as error:
        host.run(EMPTY, 60)
    assert "adb.serial" in error.value.hint
    with pytest.raises(WorkerError, match="adb lists no device 'C3'; it lists A1"):
        AdbHost(AdbSettings(python="python3", serial="C3"), "onnxruntime").run(EMPTY, 60)
    named = AdbHost(AdbSettings(python="python3", serial="A1"), "onnxruntime")
    assert named.run(EMPTY, 120)["version"]
    named.close()


@pytest.mark.parametrize(
    ("state", "hint"),
    [
        ("unauthorized", "allow this computer"),
        ("offline", "adb reconnect"),
        ("no permissions (user in plugdev group; are your udev rules wrong?); see [docs]", "let this user open it"),
        ("recovery", "adb reboot"),
    ],
)
def test_a_phone_that_is_not_ready_is_told_with_what_helps(phones: Phones, state: str, hint: str) -> None:
    phones.add(state=state)
    with pytest.raises(WorkerError, match=f"the device A1 is {state[:10]}") as error:
        AdbHost(AdbSettings(python="python3"), "onnxruntime").run(EMPTY, 60)
    assert hint in error.value.hint


@pytest.mark.parametrize(
    ("properties", "said"),
    [
        ({"ro.product.cpu.abi": "mips64"}, "its instruction set 'mips64' is unknown"),
        ({"ro.build.version.sdk": "23"}, "Android 8 .* or newer is needed; it says 23"),
    ],
)
def test_a_phone_that_cannot_be_used_is_refused(phones: Phones, properties: dict[str, str], said: str) -> None:
    phones.add(properties=properties)
    with pytest.raises(WorkerError, match=said):
        AdbHost(AdbSettings(python="python3"), "onnxruntime").run(EMPTY, 60)


def test_without_adb_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    host = AdbHost(AdbSettings(python="python3", serial="A1"), "onnxruntime")
    with pytest.raises(WorkerError, match="there is no adb here") as error:
        host.run(EMPTY, 60)
    assert "apt-get install adb" in error.value.hint
    assert (host.machine, host.facts()) == ("A1", {})


def test_adbs_own_failure_is_told(phones: Phones, phone: Phone) -> None:
    phones.change(fails=["daemon"])
    with pytest.raises(WorkerError, match="cannot connect to daemon") as error:
        AdbHost(AdbSettings(python="python3"), "onnxruntime").run(EMPTY, 60)
    assert "adb start-server" in error.value.hint


def test_a_python_that_is_not_there_is_told(phone: Phone) -> None:
    host = AdbHost(AdbSettings(python="/data/data/com.termux/files/usr/bin/python3"), "onnxruntime")
    with pytest.raises(WorkerError, match=r"on A1: .*com\.termux.*not found") as error:
        host.run(EMPTY, 60)
    assert "adb.python" in error.value.hint
    assert phone.left() == []


def test_the_worker_can_run_as_an_app(phone: Phone) -> None:
    phone.tool("run-as", 'echo "$1" > "$PHONE/as"; shift; exec "$@"')
    host = AdbHost(AdbSettings(python="python3", run_as="com.termux"), "onnxruntime")
    assert host.run(EMPTY, 120)["version"]
    assert (phone.root / "as").read_text() == "com.termux\n"
    host.close()
    assert phone.left() == []
    phone.tool("run-as", 'echo "run-as: package not debuggable: $1: is not debuggable" >&2; exit 1')
    with pytest.raises(WorkerError, match="is not debuggable") as error:
        host.run(EMPTY, 60)
    assert "adb.benchmark_binary" in error.value.hint


def test_a_cable_pulled_in_the_middle_ends_the_worker_and_cleans_up(
    host: AdbHost, phones: Phones, phone: Phone, latency: dict[str, Any]
) -> None:
    def pull() -> None:
        end = time.monotonic() + 60
        while not list(phone.temporary.glob("*/job-*/stderr")) and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(0.3)
        phones.unplug()

    thread = threading.Thread(target=pull)
    thread.start()
    with pytest.raises(WorkerError, match=r"on A1: .*the phone is not found") as error:
        host.run({**latency, "seconds": 60}, 100)
    thread.join()
    assert "adb.serial" in error.value.hint
    assert phone.left() == []
    phones.add("A2")
    # The next job looks for a phone again.
    assert host.run(EMPTY, 120)["version"]


def test_a_worker_that_hangs_is_ended_there(host: AdbHost, phone: Phone, latency: dict[str, Any]) -> None:
    with pytest.raises(WorkerError, match="on A1: the worker was ended after 2 s"):
        host.run({**latency, "seconds": 60}, 2)
    assert host.run(EMPTY, 120)["version"]


def test_a_phone_that_does_not_answer_is_given_up(
    phones: Phones, phone: Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compress.hosts.adb_client.Adb.shell.__defaults__", (1.0,))
    phones.change(fails=["deaf"])
    with pytest.raises(WorkerError, match="adb -s A1 shell did not end within 1 s") as error:
        AdbHost(AdbSettings(python="python3"), "onnxruntime").run(EMPTY, 60)
    assert "adb kill-server" in error.value.hint


TARGET = 'schema = 1\nruntime = "onnxruntime"\nhost = "adb"\n'


def test_a_target_names_the_phone(tmp_path: Path) -> None:
    path = tmp_path / "phone.toml"
    path.write_text(TARGET + '[adb]\nserial = "A1"\nbenchmark_binary = "tools/onnxruntime_perf_test"\n')
    target = load_target(str(path), tmp_path)
    assert target.adb is not None
    assert target.adb.benchmark_binary == str(tmp_path / "tools/onnxruntime_perf_test")
    host = open_host(target)
    assert isinstance(host, AdbHost)
    assert host.times_only == "onnxruntime_perf_test takes times and gives no outputs"
    path.write_text(TARGET + '[adb]\nbenchmark_binary = "device:/data/local/tmp/perf"\n')
    target = load_target(str(path), tmp_path)
    assert target.adb is not None
    assert target.adb.benchmark_binary == "device:/data/local/tmp/perf"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (TARGET, "needs a table"),
        (TARGET + '[adb]\nserial = "A1"\n', "give one of python"),
        (TARGET + '[adb]\npython = "p"\nbenchmark_binary = "b"\n', "give one of python"),
        (TARGET + '[adb]\nbenchmark_binary = "b"\nrun_as = "com.termux"\n', "run_as"),
        (TARGET + '[adb]\nbenchmark_binary = "device:x"\n', "absolute path"),
        (TARGET + '[adb]\npython = "-c"\n', r"adb\.python"),
        (TARGET + '[adb]\npython = "p"\nserial = "-s x"\n', r"adb\.serial"),
        (TARGET + '[adb]\npython = "p"\nfolder = "/data; rm"\n', r"adb\.folder"),
        (TARGET + '[adb]\npython = "p"\nmin_battery = 101\n', r"adb\.min_battery"),
        (TARGET.replace('"adb"', '"local"') + '[adb]\npython = "p"\n', "read only with host"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "phone.toml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=said):
        load_target(str(path), tmp_path)


def test_doctor_says_whether_the_phone_answers(
    phones: Phones, phone: Phone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from compress.cli.doctor import reach

    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.toml").write_text(TARGET + '[adb]\npython = "python3"\n')
    found = reach("there.toml")
    assert (found.works, found.why_not) == (True, "")
    assert found.version
    assert found.machine.startswith("Acme Lite 4")
    phones.change(state="unauthorized")
    found = reach("there.toml")
    assert not found.works
    assert "the device A1 is unauthorized" in found.why_not
    assert "allow this computer" in found.remedy


def test_a_file_is_hashed_once_as_long_as_it_stays_the_same(
    host: AdbHost, latency: dict[str, Any], doubling: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    real = far.sha256_of

    def counted(path: Path) -> str:
        read.append(path)
        return real(path)

    monkeypatch.setattr(far, "sha256_of", counted)
    for _ in range(3):
        ask(host, latency, 120)
    assert read.count(doubling) == 1
    doubling.write_bytes(b"something else")
    with pytest.raises(WorkerError, match=r"double\.onnx"):
        ask(host, latency, 120)
    assert read.count(doubling) == 2

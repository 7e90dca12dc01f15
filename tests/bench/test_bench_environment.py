from __future__ import annotations

import os
from pathlib import Path

import pytest

from compress.bench import environment as module
from compress.bench.environment import cpu_times, environment
from compress.evidence import Environment, from_json, to_json

X86 = "processor : 0\nmodel name : Quiet CPU @ 2 GHz\nflags : fpu sse4_1 avx avx2 avx512f avx512_vnni rdtscp\n"
ARM = "processor : 0\nFeatures : fp asimd asimddp aes\n"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with nothing to warn about."""
    monkeypatch.setattr(module, "WINDOW_S", 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    for name, text in {
        "proc/cpuinfo": X86,
        "proc/stat": "cpu 100 0 50 800 10 1 2 5 0 0\ncpu0 1 2 3\n",
        "proc/meminfo": "MemTotal: 8000000 kB\nMemAvailable: 6000000 kB\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance\n",
        "sys/fs/cgroup/cpu.max": "max 100000\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def busy(monkeypatch: pytest.MonkeyPatch, root: Path, stat: str) -> None:
    """Changes `/proc/stat` while the processors are watched."""
    monkeypatch.setattr(module.time, "sleep", lambda _: (root / "proc/stat").write_text(stat))


def test_a_quiet_machine_is_described_without_warnings(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    busy(monkeypatch, root, "cpu 101 0 50 890 10 1 2 5 0 0\n")
    found = environment(["numpy", "no-such-package"], root)
    machine = found.machine
    assert machine["cpu"] == "Quiet CPU @ 2 GHz"
    assert set(machine["features"]) == {"sse4_1", "avx", "avx2", "avx512f", "avx512_vnni"}
    assert (machine["governor"], machine["quota_cores"], machine["allowed_cores"]) == ("performance", None, 4)
    assert (machine["busy_share"], machine["steal_share"]) == (pytest.approx(0.011), 0)
    assert (machine["memory_bytes"], machine["available_bytes"]) == (8_192_000_000, 6_144_000_000)
    assert found.packages["numpy"][0].isdigit()
    assert found.packages["no-such-package"] == "not installed"
    assert found.warnings == ()


@pytest.mark.parametrize(
    ("name", "text", "warning"),
    [
        ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n", "the CPU governor is 'powersave'"),
        ("sys/fs/cgroup/cpu.max", "150000 100000\n", "may use 1.5 of 4 cores"),
        ("proc/cpuinfo", X86.replace("avx512_vnni", ""), "none of 5 integer dot-product instructions"),
        ("proc/meminfo", "MemTotal: 8000000 kB\nMemAvailable: 300000 kB\n", "only 293 MiB of memory"),
    ],
)
def test_a_fact_that_disturbs_is_a_warning_with_a_number_and_a_remedy(
    root: Path, name: str, text: str, warning: str
) -> None:
    (root / name).write_text(text)
    (found,) = environment([], root).warnings
    assert warning in found
    assert ":" in found


def test_other_processes_and_the_hypervisor_are_seen_at_work(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    busy(monkeypatch, root, "cpu 150 0 50 840 10 1 2 15 0 0\n")
    load, steal = environment([], root).warnings
    assert load.startswith("other processes keep 50% of")
    assert steal.startswith("the hypervisor takes 10% of")


def test_arm_features_are_read_and_an_unknown_system_says_nothing(root: Path, tmp_path: Path) -> None:
    (root / "proc/cpuinfo").write_text(ARM)
    assert environment([], root).machine["features"] == ["asimd", "asimddp"]
    assert cpu_times(tmp_path / "nowhere") is None


def test_a_system_that_tells_nothing_is_described_all_the_same(tmp_path: Path) -> None:
    found = environment([], tmp_path / "nowhere")
    assert found.machine["busy_share"] is None
    assert found.machine["governor"] == "unknown"
    assert found.warnings == ()


def test_this_machine_goes_to_json_and_back() -> None:
    found = environment(["numpy"])
    assert from_json(Environment, to_json(found)) == found
    assert found.machine["cores"] >= 1

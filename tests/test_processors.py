from __future__ import annotations

import platform
from pathlib import Path

import pytest

from compress import processors
from compress.processors import FEATURES, PROCESSORS, adds_in_16_bits, cpu_features, emulated, this_architecture
from compress.target import CPUS


def machine(tmp_path: Path, text: str) -> Path:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text(text)
    return tmp_path


def test_features_are_read_from_either_architecture(tmp_path: Path) -> None:
    arm = "processor : 0\nFeatures : fp asimd asimddp aes\nprocessor : 1\nFeatures : fp\n"
    assert cpu_features(machine(tmp_path, arm)) == ("asimd", "asimddp")


def test_features_keep_one_order(tmp_path: Path) -> None:
    text = "model name : Quiet CPU\nflags : fpu avx512_vnni sse4_1 avx2 avx512f avx rdtscp\n"
    assert cpu_features(machine(tmp_path, text)) == ("sse4_1", "avx", "avx2", "avx512f", "avx512_vnni")


def test_an_unknown_system_tells_none(tmp_path: Path) -> None:
    assert cpu_features(tmp_path / "nowhere") == ()


@pytest.mark.parametrize(
    ("cpu", "careful"),
    [
        ("any", True),
        ("nehalem", True),
        ("haswell", True),
        ("skylake-server", True),
        ("cascade-lake", False),
        ("alder-lake", False),
        ("cortex-a53", False),
        ("cortex-a72", False),
        ("cortex-a76", False),
    ],
)
def test_x86_without_a_dot_product_is_treated_with_care(cpu: str, careful: bool) -> None:
    assert adds_in_16_bits(cpu) is careful


def test_native_is_what_this_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processors, "this_architecture", lambda: "x86_64")
    assert adds_in_16_bits("native", ["avx2"]) is True
    assert adds_in_16_bits("native", ["avx2", "avx512_vnni"]) is False
    # A system that tells nothing is not trusted with 8 bits.
    assert adds_in_16_bits("native", []) is True
    monkeypatch.setattr(processors, "cpu_features", lambda: ("avx", "avx_vnni"))
    assert adds_in_16_bits("native") is False
    monkeypatch.setattr(processors, "this_architecture", lambda: "aarch64")
    assert adds_in_16_bits("native", []) is False


def test_every_class_can_be_named_in_a_target() -> None:
    assert {*PROCESSORS, "any", "native"} == set(CPUS)
    assert all(name == item.name for name, item in PROCESSORS.items())
    assert all(item.architecture in ("x86_64", "aarch64") and item.title for item in PROCESSORS.values())
    # A feature of x86 under another name would never be found.
    assert all(set(item.features) <= set(FEATURES) for item in PROCESSORS.values() if item.architecture == "x86_64")


def test_what_is_emulated_is_known_by_its_core() -> None:
    assert {"haswell", "cortex-a53", "cortex-a76"} <= {item.name for item in emulated()}
    assert {item.architecture for item in emulated("aarch64")} == {"aarch64"}
    assert all(item.midr >> 24 == 0x41 for item in emulated("aarch64"))
    assert not any("avx512f" in item.features or "avx_vnni" in item.features for item in emulated())


@pytest.mark.parametrize(("said", "name"), [("AMD64", "x86_64"), ("x86_64", "x86_64"), ("arm64", "aarch64")])
def test_an_architecture_has_one_name(monkeypatch: pytest.MonkeyPatch, said: str, name: str) -> None:
    monkeypatch.setattr(platform, "machine", lambda: said)
    assert this_architecture() == name

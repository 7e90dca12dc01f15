"""Classes of processors by name: which instructions they have, and how QEMU calls those that it can stand in for."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

# Instruction sets that decide which integer and float kernels a runtime picks, by their name in /proc/cpuinfo.
AVX = ("sse4_1", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx_vnni_int8")
AVX512_AMX = ("avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16")
ARM = ("asimd", "asimddp", "asimdhp", "i8mm", "bf16", "sve", "sve2", "sme")
FEATURES = (*AVX, *AVX512_AMX, *ARM)
DOT_PRODUCT = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"})

_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
# What every Armv8.0 core has, as Linux lists it.
_ARM_8_0 = ("fp", "asimd", "evtstrm", "aes", "pmull", "sha1", "sha2", "crc32", "cpuid")
# What Armv8.2 cores for phones add, the dot product among it.
_ARM_8_2 = ("atomics", "fphp", "asimdhp", "asimdrdm", "lrcpc", "dcpop", "asimddp", "ssbs")


@dataclass(frozen=True)
class Processor:
    """A class of processors.

    Attributes:
        name: As target files write it.
        architecture: `x86_64` or `aarch64`.
        title: What it is, in words.
        features: Its instruction sets, by their names in `/proc/cpuinfo`.
        qemu: The model that QEMU emulates it with; empty where QEMU lacks its instructions.
        midr: Arm's main identification register, from which libraries tell the core; 0 on x86.
    """

    name: str
    architecture: str
    title: str
    features: tuple[str, ...]
    qemu: str = ""
    midr: int = 0

    @property
    def has_dot_product(self) -> bool:
        """Whether it multiplies and adds four 8-bit numbers into 32 bits in one instruction."""
        return not DOT_PRODUCT.isdisjoint(self.features)


PROCESSORS = {
    item.name: item
    for item in (
        Processor("nehalem", "x86_64", "x86 of 2008: SSE4.2", ("sse4_1",), "Nehalem-v2"),
        Processor("sandy-bridge", "x86_64", "x86 of 2011: AVX", ("sse4_1", "avx"), "SandyBridge-v2"),
        Processor("haswell", "x86_64", "x86 of 2013: AVX2, no VNNI", AVX[:5], "Haswell-v4"),
        Processor("skylake-server", "x86_64", "x86 of 2017: AVX-512, no VNNI", (*AVX[:5], *AVX512_AMX[:2])),
        Processor("cascade-lake", "x86_64", "x86 of 2019: AVX-512 VNNI", (*AVX[:5], *AVX512_AMX[:3])),
        Processor("alder-lake", "x86_64", "x86 of 2021: AVX-VNNI", AVX[:6]),
        Processor("cortex-a53", "aarch64", "Armv8.0, low-end phones", _ARM_8_0, "cortex-a53", 0x410FD034),
        Processor("cortex-a72", "aarch64", "Armv8.0, Raspberry Pi 4", _ARM_8_0, "cortex-a72", 0x410FD083),
        Processor(
            "cortex-a76",
            "aarch64",
            "Armv8.2 with dot product, Raspberry Pi 5",
            (*_ARM_8_0, *_ARM_8_2),
            "cortex-a76",
            0x414FD0B1,
        ),
    )
}


def emulated(architecture: str | None = None) -> tuple[Processor, ...]:
    """Returns the classes that QEMU can stand in for, those of one architecture if it is given."""
    return tuple(item for item in PROCESSORS.values() if item.qemu and architecture in (None, item.architecture))


def this_architecture() -> str:
    """Returns this machine's architecture under Linux's name for it."""
    machine = platform.machine().lower()
    return _MACHINES.get(machine, machine)


def cpu_features(root: Path = Path("/")) -> tuple[str, ...]:
    """Returns which of `FEATURES` this machine's processor has; empty where the system does not tell.

    Args:
        root: Where `proc` is found.
    """
    try:
        lines = (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ()
    listed = (line.partition(":") for line in lines)
    found = next((set(value.split()) for name, _, value in listed if name.strip() in ("flags", "Features")), set())
    return tuple(name for name in FEATURES if name in found)


def adds_in_16_bits(cpu: str, features: Iterable[str] | None = None) -> bool:
    """Returns whether int8 products may be added in 16 bits there, where 8-bit weights can saturate.

    So does x86 without a dot product: `vpmaddubsw` adds two products of uint8 and int8. Arm's `smlal` adds two of int8
    and int8, which 16 bits hold.

    Args:
        cpu: `any`, `native` (this machine) or a name of `PROCESSORS`.
        features: This machine's, if they are known already. Where the system tells none, the careful answer is given.
    """
    if cpu == "any":
        return True
    if cpu != "native":
        return PROCESSORS[cpu].architecture == "x86_64" and not PROCESSORS[cpu].has_dot_product
    return this_architecture() != "aarch64" and DOT_PRODUCT.isdisjoint(cpu_features() if features is None else features)

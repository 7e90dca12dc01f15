"""The machine that the figures come from, and what on it disturbs them."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.evidence import Environment
from compress.hosts.environments import installed_version
from compress.processors import DOT_PRODUCT, cpu_features

# How long the processors are watched, and from which share of their time on others are reported.
WINDOW_S = 0.25
BUSY_SHARE = 0.2
STEAL_SHARE = 0.02
LOW_MEMORY_BYTES = 1 << 30


@dataclass(frozen=True)
class CpuTimes:
    """Clock ticks of all processors since the machine started: in total, not idle, and taken by the hypervisor."""

    total: int
    busy: int
    stolen: int


def environment(packages: Sequence[str], root: Path = Path("/")) -> Environment:
    """Describes this machine and warns about what makes its figures unsteady.

    Processors are watched for a quarter of a second; call it before measuring starts.

    Args:
        packages: Distributions whose versions matter.
        root: Where `proc` and `sys` are found.
    """
    busy, stolen = _shares(root)
    machine: dict[str, Any] = {
        "cpu": _cpu_model(root),
        "architecture": platform.machine(),
        "features": list(cpu_features(root)),
        "cores": os.cpu_count() or 1,
        "allowed_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "quota_cores": _quota_cores(root),
        "governor": _text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or "unknown",
        "load_1m": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "busy_share": busy,
        "steal_share": stolen,
        "memory_bytes": _memory_bytes(root, "MemTotal"),
        "available_bytes": _memory_bytes(root, "MemAvailable"),
        "system": platform.system(),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
    return Environment(machine, {name: installed_version(name) for name in packages}, _warnings(machine))


def _warnings(machine: dict[str, Any]) -> tuple[str, ...]:
    found = []
    busy, stolen, quota = machine["busy_share"], machine["steal_share"], machine["quota_cores"]
    if busy is not None and busy > BUSY_SHARE:
        found.append(
            f"other processes keep {busy:.0%} of {machine['cores']} cores busy (load average {machine['load_1m']}):"
            " stop them (see `top`), or give it more time (measure.max_pairs, --budget-s)"
        )
    if stolen is not None and stolen > STEAL_SHARE:
        found.append(
            f"the hypervisor takes {stolen:.0%} of the processor time (see `vmstat 1`, column st):"
            " measure on a machine of its own, or give it more time (measure.max_pairs, --budget-s)"
        )
    if quota is not None and quota < machine["allowed_cores"]:
        found.append(
            f"the container may use {quota:g} of {machine['allowed_cores']} cores and is halted beyond:"
            " keep target.threads below that, or start it without a CPU limit"
        )
    if machine["governor"] not in ("performance", "unknown"):
        found.append(
            f"the CPU governor is {machine['governor']!r}: `sudo cpupower frequency-set --governor performance`"
        )
    if machine["features"] and DOT_PRODUCT.isdisjoint(machine["features"]):
        found.append(
            f"the CPU has none of {len(DOT_PRODUCT)} integer dot-product instructions"
            f" ({', '.join(sorted(DOT_PRODUCT))}): int8 gains less here than on a device that has one;"
            " run the same command there"
        )
    available = machine["available_bytes"]
    if available is not None and available < LOW_MEMORY_BYTES:
        found.append(f"only {available / 2**20:.0f} MiB of memory are available: free some (see `ps aux --sort -rss`)")
    return tuple(found)


def _shares(root: Path) -> tuple[float | None, float | None]:
    """Shares of all processors' time that others used and that the hypervisor took, while this process waited."""
    before = cpu_times(root)
    if before is None:
        return None, None
    time.sleep(WINDOW_S)
    after = cpu_times(root)
    if after is None or after.total == before.total:
        return None, None
    total = after.total - before.total
    return round((after.busy - before.busy) / total, 3), round((after.stolen - before.stolen) / total, 3)


def cpu_times(root: Path = Path("/")) -> CpuTimes | None:
    """Reads the processors' clock ticks from `/proc/stat`; None where the system does not tell."""
    fields = _text(root / "proc/stat").partition("\n")[0].split()
    if len(fields) < 9 or fields[0] != "cpu":
        return None
    user, nice, system, idle, waiting, interrupt, soft_interrupt, stolen = map(int, fields[1:9])
    busy = user + nice + system + interrupt + soft_interrupt
    return CpuTimes(busy + idle + waiting + stolen, busy, stolen)


def _cpu_model(root: Path) -> str:
    return _cpuinfo(root, "model name") or _text(root / "proc/device-tree/model").strip("\0") or platform.processor()


def _cpuinfo(root: Path, key: str) -> str:
    for line in _text(root / "proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""


def _memory_bytes(root: Path, key: str) -> int | None:
    for line in _text(root / "proc/meminfo").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return None


def _quota_cores(root: Path) -> float | None:
    """Processors that a container's control group allows, None without a limit."""
    quota, _, period = _text(root / "sys/fs/cgroup/cpu.max").partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""

"""What a phone says of itself: model, processor, clock limits, battery, temperature, and whether it throttles."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

# What Android's PowerManager calls the thermal status; from MODERATE on the system throttles.
THERMAL = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
MODERATE = 2
# BatteryManager.BATTERY_STATUS_*.
BATTERY = {1: "unknown", 2: "charging", 3: "discharging", 4: "not charging", 5: "full"}
ABIS = ("arm64-v8a", "armeabi-v7a", "x86_64", "x86", "riscv64")
# Android 8: the shell passes bytes and exit codes, and has sha256sum.
MIN_SDK = 26

_PROPERTIES = (
    "ro.product.manufacturer",
    "ro.product.model",
    "ro.soc.manufacturer",
    "ro.soc.model",
    "ro.board.platform",
    "ro.hardware",
    "ro.product.cpu.abi",
    "ro.build.version.release",
    "ro.build.version.sdk",
    "ro.build.fingerprint",
)
_CLOCKS = "/sys/devices/system/cpu/cpu[0-9]*/cpufreq"
# One script, so that one call of adb brings all of it.
SCRIPT = f"""
for name in {" ".join(_PROPERTIES)}; do echo "property $name $(getprop $name)"; done
echo "kernel $(uname -r)"
grep MemTotal /proc/meminfo
ls -d /sys/devices/system/cpu/cpu[0-9]* 2>/dev/null
grep -H . {_CLOCKS}/scaling_governor {_CLOCKS}/scaling_max_freq {_CLOCKS}/cpuinfo_max_freq 2>/dev/null
grep -H . /sys/class/thermal/thermal_zone*/type /sys/class/thermal/thermal_zone*/temp 2>/dev/null
echo "section battery"; dumpsys battery 2>/dev/null
echo "section thermal"; dumpsys thermalservice 2>/dev/null
true"""


@dataclass(frozen=True)
class DeviceState:
    """A phone at one moment. Clocks are in kHz by processor, temperatures in degrees Celsius by sensor; None: not told.

    `properties` are Android's, by their names.
    """

    properties: Mapping[str, str]
    kernel: str
    memory_bytes: int
    processors: tuple[int, ...]
    governors: Mapping[int, str]
    allowed_khz: Mapping[int, int]
    highest_khz: Mapping[int, int]
    temperatures_c: Mapping[str, float]
    battery: Mapping[str, str]
    thermal_status: int | None

    @property
    def abi(self) -> str:
        """The instruction set that Android names first."""
        return self.properties.get("ro.product.cpu.abi", "")

    @property
    def sdk(self) -> int:
        """Android's API level; 0 where it is not told."""
        said = self.properties.get("ro.build.version.sdk", "")
        return int(said) if said.isdecimal() else 0

    @property
    def title(self) -> str:
        """Manufacturer and model, chip, Android version."""
        make, model = (self.properties.get(f"ro.product.{key}", "") for key in ("manufacturer", "model"))
        name = model if model.lower().startswith(make.lower()) else f"{make} {model}"
        android = f"Android {self.properties.get('ro.build.version.release') or '?'}"
        return ", ".join(part for part in (name.strip() or "a phone", self.chip, self.abi, android) if part)

    @property
    def chip(self) -> str:
        """The system on a chip, as far as Android tells; older versions tell only the platform."""
        parts = [self.properties.get(f"ro.soc.{key}", "") for key in ("manufacturer", "model")]
        return " ".join(part for part in parts if part) or next(
            (self.properties[key] for key in ("ro.board.platform", "ro.hardware") if self.properties.get(key)), ""
        )

    @property
    def battery_percent(self) -> float | None:
        """How full the battery is; None without one."""
        level, scale = (_whole(self.battery.get(key)) for key in ("level", "scale"))
        if self.battery.get("present") == "false" or level is None:
            return None
        return 100 * level / (scale or 100)

    def facts(self) -> dict[str, Any]:
        """For the evidence, ready for JSON."""
        status = self.thermal_status
        tenths = _whole(self.battery.get("temperature"))
        powered = [key.partition(" ")[0] for key, value in self.battery.items() if "powered" in key and value == "true"]
        return {
            "device": self.title,
            "abi": self.abi,
            "sdk": self.sdk,
            "build": self.properties.get("ro.build.fingerprint", ""),
            "kernel": self.kernel,
            "memory_bytes": self.memory_bytes,
            "cores": len(self.processors),
            "governor": ", ".join(sorted(set(self.governors.values()))) or "unknown",
            "allowed_mhz": _clocks(self.allowed_khz),
            "highest_mhz": _clocks(self.highest_khz),
            "temperatures_c": dict(self.temperatures_c),
            "thermal_status": "not told" if status is None else THERMAL[min(status, len(THERMAL) - 1)],
            "battery_percent": self.battery_percent,
            "battery_status": BATTERY.get(_whole(self.battery.get("status")) or 1, "unknown"),
            "battery_powered_by": ", ".join(powered) or "nothing",
            "battery_temperature_c": None if tenths is None else tenths / 10,
            "warnings": list(self.warnings()),
        }

    def refusal(self, before: DeviceState | None, min_battery: int) -> str:
        """Why times taken now would not be those of this phone; empty where nothing speaks against them.

        Args:
            before: Earlier, to see whether a clock's limit fell since.
            min_battery: Percent that the battery must hold.
        """
        if self.thermal_status is not None and self.thermal_status >= MODERATE:
            name = THERMAL[min(self.thermal_status, len(THERMAL) - 1)]
            return f"it throttles: its thermal status is {self.thermal_status} ({name})"
        for cpu, limit in self.allowed_khz.items():
            earlier = before.allowed_khz.get(cpu, 0) if before is not None else 0
            if limit < earlier:
                return f"it throttles: the clock limit of cpu{cpu} fell from {earlier // 1000} to {limit // 1000} MHz"
        percent = self.battery_percent
        if percent is not None and percent < min_battery:
            return f"its battery holds {percent:.0f} %, less than adb.min_battery = {min_battery}"
        return ""

    def warnings(self) -> tuple[str, ...]:
        """What makes its times unsteady, or hard to compare with another day's."""
        found = []
        limited = [cpu for cpu, limit in self.allowed_khz.items() if limit < self.highest_khz.get(cpu, limit)]
        if limited:
            cpu = limited[0]
            found.append(
                f"the clock of {len(limited)} processors is limited: cpu{cpu} to {self.allowed_khz[cpu] // 1000} of"
                f" {self.highest_khz[cpu] // 1000} MHz"
            )
        if self.thermal_status is None:
            found.append(
                "it does not tell its thermal status (Android 10 and newer do): throttling shows in clocks alone"
            )
        elif self.thermal_status:
            found.append(f"its thermal status is {THERMAL[min(self.thermal_status, len(THERMAL) - 1)]}: let it cool")
        if BATTERY.get(_whole(self.battery.get("status")) or 1) == "charging":
            found.append("it is charging, which warms it")
        return tuple(found)


def parse_state(text: str) -> DeviceState:
    """Reads what `SCRIPT` wrote. What is not there is empty; nothing is guessed."""
    properties: dict[str, str] = {}
    files: dict[str, str] = {}
    sections: dict[str, list[str]] = {"": []}
    kernel, memory_bytes, section = "", 0, ""
    processors: set[int] = set()
    for line in text.splitlines():
        if line.startswith("section "):
            section = line.split()[1]
            sections[section] = []
        elif section:
            sections[section].append(line)
        elif line.startswith("property "):
            name, _, said = line.removeprefix("property ").partition(" ")
            properties[name] = said.strip()
        elif line.startswith("kernel "):
            kernel = line.partition(" ")[2].strip()
        elif found := re.match(r"MemTotal:\s+(\d+) kB", line):
            memory_bytes = int(found[1]) * 1024
        elif found := re.fullmatch(r".*/cpu(\d+)", line.strip()):
            processors.add(int(found[1]))
        elif ":" in line:
            path, _, value = line.partition(":")
            files[path] = value.strip()
    clocks = {
        name: {int(found[1]): value for path, value in files.items() if (found := _cpu_file(path, name))}
        for name in ("scaling_governor", "scaling_max_freq", "cpuinfo_max_freq")
    }
    battery = dict(_pairs(sections.get("battery", [])))
    return DeviceState(
        properties=properties,
        kernel=kernel,
        memory_bytes=memory_bytes,
        processors=tuple(sorted(processors)),
        governors=clocks["scaling_governor"],
        allowed_khz=_numbers(clocks["scaling_max_freq"]),
        highest_khz=_numbers(clocks["cpuinfo_max_freq"]),
        temperatures_c=_temperatures(files),
        battery=battery,
        thermal_status=_thermal(sections.get("thermal", [])),
    )


def _cpu_file(path: str, name: str) -> re.Match[str] | None:
    return re.fullmatch(rf".*/cpu(\d+)/cpufreq/{name}", path)


def _pairs(lines: Sequence[str]) -> list[tuple[str, str]]:
    """`key: value` lines; the first of a key counts, since vendors add sections of their own below."""
    found: dict[str, str] = {}
    for line in lines:
        key, colon, value = line.strip().partition(": ")
        if colon:
            found.setdefault(key, value.strip())
    return list(found.items())


def _thermal(lines: Sequence[str]) -> int | None:
    found = next((match for line in lines if (match := re.match(r"\s*Thermal Status:\s*(\d+)\s*$", line))), None)
    return int(found[1]) if found else None


def _temperatures(files: Mapping[str, str]) -> dict[str, float]:
    """Sensors in thousandths of a degree; some zones are no thermometers, or out of order."""
    found = {}
    for path, value in sorted(files.items()):
        zone, _, name = path.rpartition("/")
        thousandths = _whole(value)
        if name == "temp" and thousandths is not None and 1000 <= thousandths <= 150_000:
            found[files.get(f"{zone}/type") or zone.rpartition("/")[2]] = thousandths / 1000
    return found


def _numbers(values: Mapping[int, str]) -> dict[int, int]:
    return {cpu: int(value) for cpu, value in sorted(values.items()) if value.isdecimal()}


def _clocks(khz: Mapping[int, int]) -> str:
    """`cpu0-3 1800, cpu4-7 2400`: processors beside each other with the same clock together."""
    parts = []
    for clock, group in groupby(sorted(khz.items()), key=lambda item: item[1]):
        cpus = [cpu for cpu, _ in group]
        name = f"cpu{cpus[0]}" if len(cpus) == 1 else f"cpu{cpus[0]}-{cpus[-1]}"
        parts.append(f"{name} {clock // 1000}")
    return ", ".join(parts) or "not told"


def _whole(value: str | None) -> int | None:
    return int(value) if value is not None and re.fullmatch(r"-?\d+", value) else None

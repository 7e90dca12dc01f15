"""Phones for `adb_stand_in.py`: a folder tree each, with what Android says of itself."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compress.hosts.adb import AdbHost
from compress.target import AdbSettings

STAND_IN = Path(__file__).parent / "hosts" / "adb_stand_in.py"
PROGRAMS = Path(__file__).parent / "hosts" / "stand_in_benchmark.py"

TOOLS = {"litert": "benchmark_model", "onnxruntime": "onnxruntime_perf_test"}
PROPERTIES = {
    "ro.product.manufacturer": "Acme",
    "ro.product.model": "Acme Lite 4",
    "ro.soc.manufacturer": "Unisoc",
    "ro.soc.model": "SC9863A",
    "ro.product.cpu.abi": "arm64-v8a",
    "ro.build.version.release": "13",
    "ro.build.version.sdk": "33",
    "ro.build.fingerprint": "acme/lite4/lite4:13/TP1A/7:user/release-keys",
}
BATTERY = {
    "AC powered": "false",
    "USB powered": "true",
    "status": "3",
    "present": "true",
    "level": "85",
    "scale": "100",
    "temperature": "287",
}
THERMAL = """IsStatusOverride: false
ThermalStatusListeners:
\tcallbacks: 2
Thermal Status: {status}
Cached temperatures:
\tTemperature{{mValue=30.1, mType=0, mName=CPU0, mStatus=0}}
"""


class Phones:
    """The phones that the stand-in knows, in a folder of a test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "shells").mkdir(parents=True)
        (folder / "path").mkdir()
        (folder / "path" / "adb").symlink_to(STAND_IN)
        self._phones: dict[str, dict[str, object]] = {}
        self._write()

    @property
    def path(self) -> str:
        """A `PATH` with the stand-in and this Python."""
        return f"{self.folder / 'path'}:{Path(sys.executable).parent}:{os.environ['PATH']}"

    def add(self, serial: str = "A1", state: str = "device", properties: Mapping[str, str] | None = None) -> Phone:
        """Plugs a phone in."""
        phone = Phone(self.folder / serial)
        phone.say(properties or {})
        self._phones[serial] = {"state": state, "root": str(phone.root), "fails": []}
        self._write()
        return phone

    def change(self, serial: str = "A1", **values: object) -> None:
        """Changes a phone's `state` or what `fails`."""
        self._phones[serial] |= values
        self._write()

    def unplug(self, serial: str = "A1") -> None:
        """Takes a phone away, and ends its connections."""
        del self._phones[serial]
        self._write()
        for path in (self.folder / "shells").iterdir():
            try:
                os.kill(int(path.name), signal.SIGTERM)
            except ProcessLookupError:
                continue
            path.unlink(missing_ok=True)

    def calls(self) -> list[str]:
        """The adb commands so far."""
        return [line.split()[0] for line in (self.folder / "calls").read_text().splitlines()]

    def _write(self) -> None:
        partial = self.folder / "phones.partial"
        partial.write_text(json.dumps(self._phones))
        partial.replace(self.folder / "phones.json")


class Phone:
    """One phone's files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.temporary = root / "data/local/tmp"
        self.temporary.mkdir(parents=True)
        (root / "proc").mkdir()
        (root / "proc/meminfo").write_text("MemTotal:        1900000 kB\n")
        for cpu in range(4):
            self.clock(cpu, 1_600_000)
        zone = root / "sys/class/thermal/thermal_zone0"
        zone.mkdir(parents=True)
        (zone / "type").write_text("cpu-thermal\n")
        (zone / "temp").write_text("36500\n")
        (root / "bin").mkdir()
        self.tool("getprop", 'sed -n "s|^$1=||p" "$PHONE/getprop.txt"')
        self.tool("dumpsys", 'cat "$PHONE/$1.txt" 2>/dev/null || echo "Can\'t find service: $1" >&2')
        # This machine may have other processors.
        self.tool("taskset", 'echo "$1" >> "$PHONE/masks"; shift; exec "$@"')
        self.battery()
        self.thermal(0)

    def tool(self, name: str, script: str) -> None:
        """Puts a program of the phone's own in place."""
        path = self.root / "bin" / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def say(self, properties: Mapping[str, str]) -> None:
        """Sets what getprop says."""
        lines = (f"{key}={value}\n" for key, value in {**PROPERTIES, **properties}.items())
        (self.root / "getprop.txt").write_text("".join(lines))

    def battery(self, **values: str) -> None:
        """Sets what `dumpsys battery` says."""
        lines = (f"  {key}: {value}\n" for key, value in {**BATTERY, **values}.items())
        (self.root / "battery.txt").write_text("Current Battery Service state:\n" + "".join(lines))

    def thermal(self, status: int) -> None:
        """Sets what `dumpsys thermalservice` says."""
        (self.root / "thermalservice.txt").write_text(THERMAL.format(status=status))

    def clock(self, cpu: int, allowed_khz: int) -> None:
        """Sets how fast a processor may be; it has 1.6 GHz."""
        folder = self.root / f"sys/devices/system/cpu/cpu{cpu}/cpufreq"
        folder.mkdir(parents=True, exist_ok=True)
        for name, value in {
            "scaling_governor": "schedutil",
            "scaling_max_freq": allowed_khz,
            "cpuinfo_max_freq": 1_600_000,
        }.items():
            (folder / name).write_text(f"{value}\n")

    def left(self) -> list[str]:
        """What lies in its folder for us; waits a moment for what is being removed."""
        end = time.monotonic() + 20
        while (found := sorted(item.name for item in self.temporary.glob("edge-*"))) and time.monotonic() < end:
            time.sleep(0.05)
        return found


class Bench:
    """A phone with the stand-ins for benchmark programs in its folder `bench`."""

    def __init__(self, phone: Phone) -> None:
        self.phone = phone
        self.folder = phone.temporary / "bench"
        self.folder.mkdir()
        for name in TOOLS.values():
            shutil.copy(PROGRAMS, self.folder / name)
        self.says(ms={"other": 1.5})

    def says(self, **values: Any) -> None:
        """Sets what they say; see `stand_in_benchmark.py`."""
        (self.folder / "times.json").write_text(json.dumps(values))

    def asked(self) -> list[dict[str, Any]]:
        """What they were called with so far."""
        return [json.loads(line) for line in (self.folder / "asked.jsonl").read_text().splitlines()]

    def host(self, runtime: str, **settings: Any) -> AdbHost:
        """A host that uses one of them."""
        path = f"device:/data/local/tmp/bench/{TOOLS[runtime]}"
        return AdbHost(AdbSettings(benchmark_binary=path, cool_s=0, **settings), runtime)

"""A benchmark program on a phone: a folder there that ends with the connection, files by their hash, calls, answers."""

from __future__ import annotations

import math
import secrets
import select
import shlex
import struct
import subprocess
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from compress.errors import WorkerError
from compress.hosts.adb_client import ANSWER_S, TELLING, Adb, helping
from compress.hosts.adb_state import DeviceState
from compress.hosts.adb_tools import Call, Plan, tool_for
from compress.hosts.far import CARRY_S, end_process, file_state, sha256_of
from compress.store.cache import digest
from compress.target import AdbSettings
from compress.worker.arrays import read_arrays
from compress.worker.errors import JobError
from compress.worker.job import SCHEMA

# Turns of each side in a duel, every one in a process of its own.
TURNS = 2
# e_machine of an ELF file -> Android's name.
_MACHINES = {0xB7: "arm64-v8a", 0x28: "armeabi-v7a", 0x3E: "x86_64", 0x03: "x86", 0xF3: "riscv64"}
# An Android of 64 bits runs these as well.
_ALSO = {"arm64-v8a": "armeabi-v7a", "x86_64": "x86"}
_LIBRARY = "libonnxruntime.so"
_STALE_MINUTES = 24 * 60


class Program:
    """Runs a runtime's benchmark program on a phone for jobs `latency`, `duel` and `empty`.

    1. All that lies there is one folder. A shell on the phone waits for the connection to end, however it ends, then
       ends what runs and removes the folder. Folders of phones that were cut off otherwise go after a day.
    2. A file is carried once, and compared by its sha256 on the phone.
    3. It stays on the phone's last processors, as many as it has threads, where the phone has `taskset`: the fast ones.
    """

    def __init__(self, adb: Adb, settings: AdbSettings, runtime: str, state: DeviceState) -> None:
        self._adb, self._state = adb, state
        self._tool = tool_for(runtime)
        self._folder = f"{settings.folder}/edge-compress-{secrets.token_hex(6)}"
        self._there: dict[tuple[object, ...], str] = {}
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the process)
        folder = shlex.quote(self._folder)
        stale = f"find {shlex.quote(settings.folder)} -maxdepth 1 -name 'edge-compress-*' -mmin +{_STALE_MINUTES}"
        self._keeper = subprocess.Popen(
            adb.command(
                f"trap '' HUP INT TERM PIPE; {stale} -exec rm -rf {{}} + 2>/dev/null;"
                f" mkdir -p {folder}/files || exit 1; echo ready; cat >/dev/null;"
                f" [ -f {folder}/pid ] && kill -9 $(cat {folder}/pid) 2>/dev/null; rm -rf {folder}"
            ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            bufsize=0,
        )
        # Also when the program ends without closing: the shell there sees its input end.
        self._finish = weakref.finalize(self, end_process, self._keeper, self._stderr)
        try:
            self._greet()
            self._program = self._installed(str(settings.benchmark_binary))
            self._pins = adb.shell("command -v taskset >/dev/null").code == 0
        except BaseException:
            self.close()
            raise

    @property
    def alive(self) -> bool:
        """Whether the folder on the phone is still there."""
        return self._keeper.poll() is None

    def close(self) -> None:
        """Ends what runs, and removes the folder."""
        self._finish()

    def run(self, job: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """Answers a job as a worker does.

        Raises:
            WorkerError: If the tool cannot do it, fails, or says something else than it should.
        """
        action = str(job["action"])
        if action == "empty":
            said, _ = self._call(self._tool.empty(f"{self._folder}/run"), 1, timeout_s)
            return {"schema": SCHEMA, "peak_rss_bytes": self._tool.parse_empty(said), "version": self._version()}
        if action == "latency":
            return {"schema": SCHEMA, "action": action, **self._latency(job, timeout_s)}
        if action == "duel":
            return {"schema": SCHEMA, "action": action, **self._duel(job, timeout_s)}
        raise WorkerError(
            f"{self._tool.name} takes times and memory; it cannot do {action!r}",
            "set adb.python instead of adb.benchmark_binary, where the phone has Python.",
        )

    def _latency(self, job: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        batch = int(job.get("batch", 1))
        try:
            rows = {name: array[:batch] for name, array in read_arrays(Path(str(job["inputs"]))).items()}
        except JobError as error:
            raise WorkerError(error.message, error.hint) from error
        plan = Plan(
            here=f"{self._folder}/run",
            artifact=Path(str(job["artifact"])),
            inputs=rows,
            threads=int(job.get("threads", 1)),
            seconds=float(job.get("seconds", 0.2)),
            warmup_s=float(job.get("warmup_s", 0.05)),
        )
        said, left = self._call(self._tool.plan(plan), plan.threads, timeout_s)
        return {"cpus": self._cpus(plan.threads), **self._tool.parse(said, left, plan)}

    def _duel(self, job: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """Both sides by turns, a process each: one process cannot hold both here."""
        sides = {
            "artifact": dict(job),
            "rival": {
                **job,
                "artifact": job["rival"],
                "threads": job.get("rival_threads") or job.get("threads", 1),
                "inputs": job.get("rival_inputs") or job["inputs"],
            },
        }
        order = ("rival", "artifact") if job.get("flip") else ("artifact", "rival")
        found: dict[str, Any] = {f"{side}_{key}": [] for side in order for key in ("load_ms", "wall_ms")}
        for turn in range(TURNS):
            for side in order if turn % 2 == 0 else order[::-1]:
                answer = self._latency(sides[side], timeout_s)
                found[f"{side}_load_ms"].append(answer["load_ms"])
                samples = sorted(answer["samples_ms"])
                found[f"{side}_wall_ms"].append(samples[len(samples) // 2])
        for side in order:
            found[f"{side}_load_ms"] = sum(found[f"{side}_load_ms"]) / TURNS
            # Nothing is known of its processor time: the wall clock is to judge.
            found |= {f"{side}_cpu_ms": found[f"{side}_wall_ms"], f"{side}_waits": math.inf, f"{side}_calls": TURNS}
        return found

    def _call(self, call: Call, threads: int, timeout_s: float) -> tuple[str, str]:
        """Lays out the files, runs the tool, and returns what it printed and the file that it left."""
        here = f"{self._folder}/run"
        links = [f"ln -s {self._put(content)} {here}/{name}" for name, content in call.files.items()]
        laid_out = " && ".join([f"rm -rf {here} && mkdir -p {here}/test_data_set_0", *links])
        mask = sum(1 << cpu for cpu in self._cpus(threads))
        pinned = ["taskset", f"{mask:x}"] if mask else []
        program = shlex.join([*pinned, self._program, *call.arguments])
        library = shlex.quote(self._program.rpartition("/")[0])
        inner = f"echo $$ > {self._folder}/pid; cd {here}; LD_LIBRARY_PATH={library} exec {program}"
        try:
            # The number is gone with the process: another one may get it.
            ended = f"code=$?; rm -f {self._folder}/pid; exit $code"
            said = self._adb.shell(f"({laid_out} && sh -c {shlex.quote(inner)}; {ended}) 2>&1", timeout_s)
        except WorkerError:
            self._end()
            raise
        if said.code:
            raise self._failed(said.code, said.text)
        left = ""
        if call.read:
            with tempfile.TemporaryDirectory(prefix="edge-compress-") as folder:
                path = Path(folder) / call.read
                self._adb.pull(f"{here}/{call.read}", path)
                left = path.read_text(encoding="utf-8", errors="replace")
        return said.text, left

    def _end(self) -> None:
        """Ends a tool that nobody waits for any more, if the phone can still be reached."""
        pid = f"{self._folder}/pid"
        try:
            self._adb.shell(f"[ -f {pid} ] && kill -9 $(cat {pid}); rm -rf {pid} {self._folder}/run")
        except WorkerError:
            # Then its own shell there sees the connection end, and does the same.
            self.close()

    def _put(self, content: bytes | Path) -> str:
        """Carries a file unless it is there, and returns its path there, which ends in its sha256."""
        if isinstance(content, bytes):
            sha256 = digest(content)
            state: tuple[object, ...] = (sha256,)
        else:
            state = file_state(content)
            sha256 = self._there.get(state, "").rpartition("/")[2] or sha256_of(content)
        if state in self._there:
            return self._there[state]
        there = f"{self._folder}/files/{sha256}"
        with tempfile.TemporaryDirectory(prefix="edge-compress-") as folder:
            path = content if isinstance(content, Path) else Path(folder) / "content"
            if isinstance(content, bytes):
                path.write_bytes(content)
            self._adb.push(path, there)
        arrived = self._adb.shell(f"sha256sum {there}", CARRY_S)
        if arrived.text.split()[:1] != [sha256]:
            self._adb.shell(f"rm -f {there}")
            said = arrived.text.strip().partition(" ")[0][:16] or "nothing"
            raise WorkerError(
                f"on {self._adb.serial}: a file arrived with other bytes: its sha256 is {said}…, not {sha256[:16]}…",
                "try another cable or port.",
            )
        self._there[state] = there
        return there

    def _installed(self, named: str) -> str:
        """The program's path on the phone; a file of this machine is carried there first."""
        if named.startswith("device:"):
            path = named.removeprefix("device:")
            if self._adb.shell(f"[ -x {shlex.quote(path)} ]").code:
                raise WorkerError(
                    f"on {self._adb.serial}: {path} is not there, or not executable",
                    f"adb push {self._tool.name} {path} && adb shell chmod 755 {path}",
                )
            return path
        local = Path(named)
        _check_elf(local, self._state.abi)
        bin_folder = f"{self._folder}/bin"
        path = f"{bin_folder}/{self._tool.name}"
        # Copies: Android lets the shell make no second name of a file.
        self._must(f"mkdir -p {bin_folder} && cp {self._put(local)} {path} && chmod 755 {path}")
        library = local.with_name(_LIBRARY)
        if library.is_file():
            self._must(f"cp {self._put(library)} {bin_folder}/{_LIBRARY}")
        return path

    def _version(self) -> str:
        """What stands for a version, which these programs do not tell: the name, and the beginning of the sha256."""
        said = self._adb.shell(f"sha256sum {shlex.quote(self._program)}")
        return f"{self._tool.name} sha256 {said.text[:12]}"

    def _cpus(self, threads: int) -> list[int]:
        there = self._state.processors
        return list(there[-threads:]) if self._pins and threads < len(there) else []

    def _must(self, script: str) -> None:
        said = self._adb.shell(f"({script}) 2>&1")
        if said.code:
            raise self._failed(said.code, said.text)

    def _failed(self, code: int, text: str) -> WorkerError:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        telling = next((line for line in lines if any(part in line for part in TELLING)), "")
        said = telling or "\n".join(lines[-5:]) or "it said nothing"
        hint = helping(telling, self._adb.serial) if telling else "run it by hand to see more: adb shell"
        ended = f"{self._tool.name} was killed by signal {code - 128}" if code > 128 else f"code {code}"
        if code == 128 + 9:
            hint = "the phone may be out of memory: close other apps, or use a smaller file."
        return WorkerError(f"on {self._adb.serial}: {ended}: {said}", hint)

    def _greet(self) -> None:
        """Waits until the folder is there."""
        out: IO[bytes] | None = self._keeper.stdout
        line = b""
        if out is not None and select.select([out], [], [], ANSWER_S)[0]:
            line = out.readline()
        if line.strip() != b"ready":
            if self._keeper.stdin is not None:
                self._keeper.stdin.close()
            try:
                self._keeper.wait(5)
            except subprocess.TimeoutExpired:
                self._keeper.kill()
            self._stderr.seek(0)
            raise self._adb.failure((self._stderr.read() + line).decode(errors="replace"))


def _check_elf(path: Path, abi: str) -> None:
    """Refuses a program of another processor before it is carried there.

    Raises:
        WorkerError: If it cannot be read, is no program, or is for another processor.
    """
    try:
        with path.open("rb") as file:
            head = file.read(20)
    except OSError as error:
        raise WorkerError(
            f"adb.benchmark_binary: {path}: {error.strerror or error}", "see docs/targets.md for where to get it."
        ) from error
    if head[:4] != b"\x7fELF" or len(head) < 20:
        raise WorkerError(f"adb.benchmark_binary: {path} is no program of Android (no ELF file)", "name the program.")
    number = struct.unpack("<H" if head[5] == 1 else ">H", head[18:20])[0]
    made_for = _MACHINES.get(number, f"ELF machine {number}")
    if made_for not in (abi, _ALSO.get(abi)):
        raise WorkerError(
            f"adb.benchmark_binary: {path} is for {made_for}; the phone is {abi}", f"build or fetch it for {abi}."
        )

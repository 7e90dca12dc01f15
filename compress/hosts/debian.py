"""Packages of Debian or Ubuntu for any architecture, fetched into a folder: nothing is installed and no root is needed.

apt does the work, with the machine's own sources, keys and proxies, and with a state of its own in the folder. It
checks the signed index and every file's hash; the hashes are compared once more here, before the manifest states them.
"""

from __future__ import annotations

import copy
import os
import posixpath
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from compress.errors import CompressError
from compress.store.atomic import write_atomic
from compress.store.cache import digest

# Debian's name of an architecture.
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
# What a system needs of a package to run Python; documentation, settings and scripts stay out.
KEPT = ("usr/bin/", "usr/lib/", "usr/lib64/")
# Folders that merged into /usr: older packages name them without it.
MERGED = ("bin", "lib", "lib64", "sbin")

_URI = re.compile(r"'(?P<url>[^']+)' (?P<file>\S+) (?P<size>\d+) SHA256:(?P<digest>[0-9a-f]{64})")
# Settings of the machine that are not taken over: where its own state lies, and what it starts after an update.
_NOT_OURS = re.compile(
    r"(?i)^(Dir(::(State|Cache|Log|Boot|Bin|Media|RootDir)\b.*)?|APT::Architectures?\b.*|.*-Invoke.*)$"
)
_TIMEOUT_S = 1800


@dataclass(frozen=True)
class Package:
    """A package file: where it comes from, and the sha256 that apt's signed index states for it."""

    file: str
    url: str
    size_bytes: int
    sha256: str


class Apt:
    """apt for one architecture, with all that it keeps in a folder.

    Args:
        folder: For its state; kept, so that what was fetched is not fetched again.
        architecture: `x86_64` or `aarch64`.
        sources: A `sources.list` to use instead of the machine's.
    """

    def __init__(self, folder: Path, architecture: str, sources: Path | None = None) -> None:
        self._architecture = ARCHITECTURES.get(architecture, architecture)
        self._folder = (folder / f"apt-{self._architecture}").absolute()
        self._sources = sources
        self.files = self._folder / "archives"

    def fetch(self, names: Sequence[str]) -> tuple[Package, ...]:
        """Fetches packages with all that they depend on into `files`.

        Raises:
            CompressError: If there is no apt, a package is not there for the architecture, or a file cannot be fetched.
        """
        self._configure()
        self._run("update")
        install = ("--yes", "--no-install-recommends", "install", *names)
        # apt names only what it has not fetched yet, so it is shown an empty folder.
        nothing = f"Dir::Cache::archives={self._folder / 'nothing'}"
        packages = tuple(parse_uris(self._run("--print-uris", "--option", nothing, *install)))
        if not packages:
            raise CompressError(f"apt names no files for {', '.join(names)} on {self._architecture}", _sources_hint())
        self._run("--download-only", *install)
        for package in packages:
            check_file(self.files / package.file, package.sha256)
        return packages

    def _configure(self) -> None:
        """A configuration of the machine's own settings, but for its folders, its architecture and its hooks."""
        for tool in ("apt-get", "apt-config", "dpkg-deb"):
            if shutil.which(tool) is None:
                raise CompressError(
                    f"{tool} is not there: the system is made of packages of Debian or Ubuntu",
                    "set it up on such a machine and copy its folder (see docs/parity.md), or install apt and dpkg.",
                )
        for path in ("state/lists/partial", "archives/partial", "nothing/partial"):
            (self._folder / path).mkdir(parents=True, exist_ok=True)
        (self._folder / "state" / "status").touch()
        dumped = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout
        own = {
            "Dir::State": self._folder / "state",
            "Dir::State::status": self._folder / "state" / "status",
            "Dir::State::lists": self._folder / "state" / "lists",
            "Dir::Cache": self._folder,
            "Dir::Cache::archives": self.files,
            "Dir::Etc::main": "/dev/null",
            "Dir::Etc::parts": "/dev/null",
            "APT::Architecture": self._architecture,
            "APT::Architectures": self._architecture,
            # Started by root, apt would fetch as a user who may not write here.
            "APT::Sandbox::User": "root",
            # Otherwise it names the weakest hash of the index, where there is one.
            "Acquire::ForceHash": "SHA256",
            "Acquire::Languages": "none",
        }
        if self._sources is not None:
            own |= {"Dir::Etc::sourcelist": self._sources.absolute(), "Dir::Etc::sourceparts": "/dev/null"}
        lines = [*machine_settings(dumped), *(f'{key} "{value}";' for key, value in own.items())]
        write_atomic(self._folder / "apt.conf", ("\n".join(lines) + "\n").encode())

    def _run(self, *arguments: str) -> str:
        environment = {**os.environ, "APT_CONFIG": str(self._folder / "apt.conf"), "LC_ALL": "C"}
        command = ["apt-get", "--quiet=2", *arguments]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, env=environment, timeout=_TIMEOUT_S, stdin=subprocess.DEVNULL
            )
        except subprocess.TimeoutExpired as error:
            raise CompressError(f"apt-get {arguments[0]} took longer than {_TIMEOUT_S} s", "try again.") from error
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.startswith("E:")] or done.stderr.splitlines()
            raise CompressError(f"apt-get for {self._architecture}: {' '.join(said[:3]).strip()}", _sources_hint())
        return done.stdout


def machine_settings(dumped: str) -> Iterator[str]:
    """Yields the lines of `apt-config dump` that are taken over: proxies, keys, sources, timeouts."""
    for line in dumped.splitlines():
        if not _NOT_OURS.match(line.partition(" ")[0].rstrip(":")):
            yield line


def parse_uris(text: str) -> Iterator[Package]:
    """Yields what `apt-get --print-uris` says of each package."""
    for match in _URI.finditer(text):
        yield Package(match["file"], match["url"], int(match["size"]), match["digest"])


def check_file(path: Path, sha256: str) -> None:
    """Compares a fetched file with its hash.

    Raises:
        CompressError: If it is not there or differs. A file that differs is removed, so that it is fetched anew.
    """
    try:
        found = digest(path.read_bytes())
    except OSError as error:
        raise CompressError(f"{path}: was not fetched: {error.strerror}", "run the same command again.") from error
    if found != sha256:
        path.unlink()
        raise CompressError(
            f"{path}: its sha256 is {found[:16]}…, the index says {sha256[:16]}…: it was removed",
            "run the same command again; if it stays, ask whoever runs the mirror.",
        )


def unpack(package: Path, root: Path) -> None:
    """Unpacks what is `KEPT` of a package's files into a folder, with `/lib` and its like merged into `/usr`.

    Raises:
        CompressError: If it is no package, or a file would land outside the folder.
    """
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
                # Debian's own Python 3.11 is older than the filters; what `_placed` lets through needs none.
                archive.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
                archive.extractall(root, members=_wanted(archive))
        except (tarfile.TarError, OSError) as error:
            process.kill()
            raise CompressError(f"{package}: cannot be unpacked: {error}", "run the same command again.") from error
    if process.returncode:
        raise CompressError(f"{package}: is no package that dpkg-deb opens", "run the same command again.")


def link_merged(root: Path) -> None:
    """Makes `/lib` and its like links into `/usr`, where there is something to link to."""
    for name in MERGED:
        if (root / "usr" / name).is_dir() and not (root / name).is_symlink():
            (root / name).symlink_to(f"usr/{name}")


def _wanted(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for member in archive:
        placed = _placed(member)
        if placed is not None:
            yield placed


def _placed(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """A member under its merged name, its links relative and within the folder; None where it is not needed."""
    name = _merged(member.name)
    if not name.startswith(KEPT) or not (member.isfile() or member.issym() or member.islnk()):
        return None
    placed, folder = copy.copy(member), posixpath.dirname(name)
    placed.name = name
    if member.islnk():
        placed.linkname = _merged(member.linkname)
    elif member.issym():
        target = _merged(posixpath.join("/", folder, member.linkname))
        placed.linkname = posixpath.relpath(target, folder)
    return placed


def _merged(name: str) -> str:
    """A path within the package, from its root, as if `/lib` and its like had always been in `/usr`."""
    path = posixpath.normpath(posixpath.join("/", name))[1:]
    return f"usr/{path}" if path.partition("/")[0] in MERGED else path


def _sources_hint() -> str:
    return (
        "check the network and that apt's sources carry the architecture (Ubuntu keeps Arm on ports.ubuntu.com); "
        "--sources FILE takes another sources.list."
    )

"""A real OpenSSH server on the loopback address, with keys of its own, for as long as a test needs it."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
HERE = "127.0.0.1"


@dataclass(frozen=True)
class Server:
    """The client's configuration that reaches it, and the folder in which what it starts puts its files."""

    config: Path
    temporary: Path
    process: subprocess.Popen[bytes]

    def edit(self, key: str, value: str) -> None:
        """Sets one line of the client's configuration."""
        lines = [line for line in self.config.read_text().splitlines() if not line.strip().startswith(key)]
        self.config.write_text("\n".join([*lines, f"  {key} {value}"]) + "\n")

    def left(self) -> list[Path]:
        """What lies in that folder; waits a moment for what is being removed."""
        end = time.monotonic() + 20
        while (found := sorted(self.temporary.iterdir())) and time.monotonic() < end:
            time.sleep(0.05)
        return found


@contextlib.contextmanager
def running(folder: Path, temporary: Path) -> Iterator[Server]:
    """Starts it, and ends it with every connection that it serves.

    Args:
        folder: For keys and settings.
        temporary: The `TMPDIR` of what it starts.
    """
    if SSHD is None:
        raise FileNotFoundError("sshd")
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    with socket.socket() as free:
        free.bind((HERE, 0))
        port = free.getsockname()[1]
    (folder / "authorized").write_text((folder / "user.pub").read_text())
    (folder / "known").write_text(f"[{HERE}]:{port} {(folder / 'host.pub').read_text()}")
    settings = {
        "Port": port,
        "ListenAddress": HERE,
        "HostKey": folder / "host",
        "AuthorizedKeysFile": folder / "authorized",
        "PidFile": "none",
        "UsePAM": "no",
        "StrictModes": "no",
        "PasswordAuthentication": "no",
        "PermitRootLogin": "prohibit-password",
        "SetEnv": f"TMPDIR={temporary}",
    }
    (folder / "sshd_config").write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
    config = folder / "ssh_config"
    config.write_text(
        f"Host device\n  HostName {HERE}\n  Port {port}\n  User {getpass.getuser()}\n  IdentityFile {folder / 'user'}\n"
        f"  IdentitiesOnly yes\n  UserKnownHostsFile {folder / 'known'}\n  GlobalKnownHostsFile /dev/null\n"
    )
    if os.getuid() == 0:
        # Where the server, started by root, shuts itself in.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([SSHD, "-D", "-e", "-f", folder / "sshd_config"], stderr=log, start_new_session=True)
    try:
        _wait_for(port)
        yield Server(config, temporary, process)
    finally:
        process.terminate()
        process.wait(20)


def _wait_for(port: int) -> None:
    end = time.monotonic() + 20
    while True:
        try:
            socket.create_connection((HERE, port), 1).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)

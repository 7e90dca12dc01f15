"""Signatures by `ssh-keygen -Y`: who approved is proved by a key that most people who approve already have.

1. The private key is never read here: `ssh-keygen` opens it, asks for its passphrase, or asks the agent.
2. A signature is made in the namespace `edge-compress`: one made for anything else is not accepted, nor
   is ours anywhere else.
3. Who may sign stands in a file of allowed signers (`ssh-keygen(1)`, ALLOWED SIGNERS), one line a person:
   `mail namespaces="edge-compress" ssh-ed25519 AAAA…`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from compress.errors import ApprovalError, MissingPackageError, StoreError

NAMESPACE = "edge-compress"

WHO = re.compile(r"(?P<name>[^<>]*[^<>\s])\s+<(?P<mail>[^<>@\s,*?!]+@[^<>@\s,*?!]+)>")
"""`Name <mail>`; the mail is what a file of allowed signers calls a person, so it holds none of its wildcards."""

_WAIT_S = 300


@dataclass(frozen=True)
class Signer:
    """A key that signs: a private key's file, or its public half where an agent holds it."""

    key: Path

    def sign(self, data: bytes) -> bytes:
        """Returns an armoured signature over bytes.

        Raises:
            MissingPackageError: If there is no `ssh-keygen`.
            StoreError: If the key cannot be used.
        """
        if not self.key.is_file():
            raise StoreError(f"{self.key}: there is no such key", "make one with `ssh-keygen -t ed25519`.")
        done = _ssh_keygen(["-Y", "sign", "-f", str(self.key), "-n", NAMESPACE], data)
        if done.returncode or not done.stdout.startswith(b"-----BEGIN SSH SIGNATURE-----"):
            raise StoreError(
                f"{self.key}: cannot sign: {_said(done)}",
                "check the key and its passphrase, or load it into ssh-agent and name its .pub file.",
            )
        return bytes(done.stdout)


def mail_of(who: str) -> str:
    """Returns the mail of `Name <mail>`, empty where there is none."""
    found = WHO.fullmatch(who)
    return found["mail"] if found else ""


def check_signature(data: bytes, signature: bytes, who: str, when: str, allowed: Path | None) -> str:
    """Checks a signature and returns what was found, as the end of a sentence.

    Args:
        data: What was signed.
        signature: As `Signer.sign` gave it.
        who: `Name <mail>`: whose signature it must be.
        when: UTC, ISO 8601: a key that expired later was good at that time.
        allowed: The file of allowed signers. Without it only the signature itself is checked, not whose it is.

    Raises:
        MissingPackageError: If there is no `ssh-keygen`.
        StoreError: If the file of allowed signers is missing.
        ApprovalError: If the signature does not belong to the data, or not to someone who may sign.
    """
    with tempfile.TemporaryDirectory(prefix="edge-compress-") as folder:
        file = Path(folder) / "signature"
        file.write_bytes(signature)
        if allowed is None:
            done = _ssh_keygen(["-Y", "check-novalidate", "-n", NAMESPACE, "-s", str(file)], data)
            found = "signed, by whom was not checked"
        else:
            if not allowed.is_file():
                raise StoreError(f"{allowed}: there is no such file of allowed signers", "check the path.")
            # ssh-keygen reads the time in local time unless it ends with Z.
            time = re.sub(r"[-:T]", "", when.partition("+")[0]) + "Z"
            settings = ["-f", str(allowed), "-I", mail_of(who), "-n", NAMESPACE, "-O", f"verify-time={time}"]
            done = _ssh_keygen(["-Y", "verify", *settings, "-s", str(file)], data)
            found = f"signed by {mail_of(who)}"
    if done.returncode:
        raise ApprovalError(f"the signature of {who} is not good: {_said(done)}")
    return found


def _ssh_keygen(arguments: list[str], data: bytes) -> subprocess.CompletedProcess[bytes]:
    program = shutil.which("ssh-keygen")
    if program is None:
        raise MissingPackageError(
            "signatures need `ssh-keygen`, which is not installed", "install OpenSSH (8.9 or newer): openssh-client."
        )
    try:
        return subprocess.run([program, *arguments], input=data, capture_output=True, timeout=_WAIT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise StoreError(
            f"`ssh-keygen` did not answer within {_WAIT_S} s", "load the key into ssh-agent first."
        ) from error


def _said(done: subprocess.CompletedProcess[bytes]) -> str:
    lines = (done.stderr + b"\n" + done.stdout).decode(errors="replace").splitlines()
    return next((line.strip() for line in lines if line.strip()), f"`ssh-keygen` ended with {done.returncode}")

"""Where figures come from: this machine, or what a host's machine says of itself."""

from __future__ import annotations

from collections.abc import Sequence

from compress.bench.environment import environment
from compress.errors import WorkerError
from compress.evidence import Environment
from compress.hosts.base import Host
from compress.hosts.calls import ask

_VERSION_S = 120.0


def environment_at(host: Host, runtime: str, packages: Sequence[str]) -> Environment:
    """Describes the machine of a host, with the version of the runtime there; this machine where it is this one.

    Args:
        host: Where figures are taken.
        runtime: The runtime's name.
        packages: Distributions whose versions matter, where it is this machine.
    """
    facts = host.facts()
    if not facts:
        return environment(packages)
    machine = {
        "cpu": facts.get("device") or facts.get("cpu"),
        "allowed_cores": facts.get("cores"),
        "system": "Android" if "sdk" in facts else "Linux",
        **{key: value for key, value in facts.items() if key != "warnings"},
    }
    version = _version(host, runtime)
    return Environment(machine, {runtime: version} if version else {}, tuple(facts.get("warnings", ())))


def known_as(host: Host, runtime: str) -> str:
    """Names what a step depends on at a host: its machine, and the version of the runtime there.

    Empty: this machine. What stands in for an emulated processor names its packages already.
    """
    if not host.facts():
        return host.machine
    return f"{host.machine} {_version(host, runtime)}"


def _version(host: Host, runtime: str) -> str:
    """The runtime's version there; empty where it does not answer: what is measured there fails in the same words."""
    try:
        return str(ask(host, {"action": "empty", "runtime": runtime}, _VERSION_S)["version"])
    except WorkerError:
        return ""


def unanswered(host: Host) -> str:
    """Says what of a target was not asked on its host, and why; empty where everything was."""
    if not host.times_only:
        return ""
    return (
        f"quality, parity and placement were not checked there, because {host.times_only}: they are those of the same"
        " file in its runtime on this machine (other processors: parity.hosts)"
    )

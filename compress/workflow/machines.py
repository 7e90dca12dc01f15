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
    try:
        found = {runtime: str(ask(host, {"action": "empty", "runtime": runtime}, _VERSION_S)["version"])}
    except WorkerError:
        # What is measured there fails with the same words, which are told with it.
        found = {}
    return Environment(machine, found, tuple(facts.get("warnings", ())))


def unanswered(host: Host) -> str:
    """Says what of a target was not asked on its host, and why; empty where everything was."""
    if not host.times_only:
        return ""
    return (
        f"quality, parity and placement were not checked there, because {host.times_only}: they are those of the same"
        " file in its runtime on this machine (other processors: parity.hosts)"
    )

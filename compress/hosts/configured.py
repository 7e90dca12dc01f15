"""A host whose every job carries what its target sets: which processor computes, whether torch compiles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compress.hosts.base import Host


class ConfiguredHost:
    """Another host, with more keys in its jobs; a job's own keys win."""

    def __init__(self, host: Host, settings: Mapping[str, Any]) -> None:
        self._host = host
        self._settings = dict(settings)

    @property
    def tells_time(self) -> bool:
        """Those of the host."""
        return self._host.tells_time

    @property
    def times_only(self) -> str:
        """That of the host."""
        return self._host.times_only

    @property
    def machine(self) -> str:
        """That of the host."""
        return self._host.machine

    def facts(self) -> dict[str, Any]:
        """Those of the host."""
        return self._host.facts()

    def run(self, job: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """Runs one job in a fresh process; see `Host.run`.

        Raises:
            WorkerError: As the host does.
        """
        return self._host.run({**self._settings, **job}, timeout_s)

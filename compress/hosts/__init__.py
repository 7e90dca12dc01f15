"""Where a runtime runs: each host carries a job to a machine, starts the worker there and brings the answer back."""

from __future__ import annotations

from compress.errors import CompressError
from compress.hosts.base import Host
from compress.hosts.configured import ConfiguredHost
from compress.registry import Registry
from compress.target import Target

HOSTS = Registry(
    "host",
    "edge_compress.hosts",
    {
        "local": "compress.hosts.local:LocalHost",
        "emulated": "compress.hosts.emulated:EmulatedHost",
        "ssh": "compress.hosts.ssh:SshHost",
        "adb": "compress.hosts.adb:AdbHost",
    },
)


def open_host(target: Target) -> Host:
    """Returns the host of a target, with the target's settings in every job. Whether it can be reached shows then."""
    host: Host = HOSTS.load(target.host).for_target(target)
    return ConfiguredHost(host, target.job_settings) if target.job_settings else host


def answering_host(host: Host) -> Host:
    """Returns who answers for a host: itself, or this machine where it takes times alone."""
    from compress.hosts.local import LocalHost

    return LocalHost() if host.times_only else host


def timing_host(target: Target) -> Host:
    """Returns the host of a target on which times are to be taken.

    Raises:
        CompressError: If times there mean nothing.
    """
    host = open_host(target)
    if not host.tells_time:
        raise CompressError(
            f"the target {target.name!r} is {target.host}: it gives answers, not speed",
            'take times on a target whose host is the device, or this machine (host = "local").',
        )
    return host


__all__ = ["HOSTS", "Host", "answering_host", "open_host", "timing_host"]

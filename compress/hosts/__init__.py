"""Where a runtime runs: each host carries a job to a machine, starts the worker there and brings the answer back."""

from __future__ import annotations

from compress.hosts.base import Host
from compress.registry import Registry

HOSTS = Registry("host", "edge_compress.hosts", {"local": "compress.hosts.local:LocalHost"})

__all__ = ["HOSTS", "Host"]

"""What `edge-compress bench` found: figures of each file, ratios to the first, throughput, operators."""

from __future__ import annotations

from dataclasses import dataclass

from compress.evidence import Environment, Latency, Memory

SCHEMA = 1
NO_INTERVAL = 1e9
"""The upper end that stands for an interval which too few processes could not give."""


@dataclass(frozen=True)
class Throughput:
    """Median of a call at a batch size and a number of threads; None where it failed."""

    batch: int
    threads: int
    median_ms: float | None

    @property
    def rows_per_s(self) -> float | None:
        """Rows a second, one call after the other."""
        return 1000 * self.batch / self.median_ms if self.median_ms else None


@dataclass(frozen=True)
class OperatorTime:
    """One operator of the optimised graph, its milliseconds a call, and the layer of the Model that it came from."""

    name: str
    operator: str
    ms: float
    layer: str = ""


@dataclass(frozen=True)
class ArtifactFindings:
    """One file. `sparse_ms` is the median of calls one second apart with cold caches; `error` says what is missing."""

    name: str
    sha256: str
    size_bytes: int
    precision: str
    latency: Latency | None
    memory: Memory | None
    throughput: tuple[Throughput, ...]
    sparse_ms: float | None
    operators: tuple[OperatorTime, ...]
    profile_note: str = ""
    error: str = ""


@dataclass(frozen=True)
class BenchFindings:
    """Files of one runtime, measured together; the first is the baseline of the ratios."""

    target: str
    runtime: str
    rows: str
    artifacts: tuple[ArtifactFindings, ...]
    environment: Environment
    created: str
    schema: int = SCHEMA

    @property
    def exit_code(self) -> int:
        """3 where a file could not be measured."""
        return 3 if any(item.latency is None for item in self.artifacts) else 0

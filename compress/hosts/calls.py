"""What can be asked of any host, in terms of arrays and evidence rather than job files."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from compress.errors import WorkerError
from compress.evidence import Operators, Placement
from compress.hosts import Host, answering_host
from compress.hosts.screened import screened
from compress.worker.arrays import Array, read_arrays, write_arrays
from compress.worker.errors import JobError
from compress.worker.job import SCHEMA
from compress.worker.session import TensorSpec


class Description(NamedTuple):
    """An artifact as its runtime sees it: inputs and outputs by name, and which operators run where."""

    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    placement: Placement


def ask(host: Host, job: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
    """Runs a job and returns its answer.

    Raises:
        WorkerError: If the worker failed, answered with an error, or speaks another schema.
        UnsafeFileError: If opening a file of the job would run code of the file.
    """
    with screened(job) as checked:
        result = host.run(checked, timeout_s)
    if result.get("schema") != SCHEMA:
        raise WorkerError(
            f"the worker answered with schema {result.get('schema')!r}; this version reads {SCHEMA}",
            "copy the worker folder of this version to the host.",
        )
    if "error" in result:
        error = result["error"]
        raise WorkerError(str(error.get("message", "no message")), str(error.get("hint", "")))
    return result


def run_outputs(
    host: Host,
    runtime: str,
    path: Path,
    inputs: Mapping[str, Array],
    *,
    threads: int,
    batch: int,
    timeout_s: float,
) -> dict[str, Array]:
    """Runs every row through an artifact in a worker process.

    Args:
        host: Where.
        runtime: The runtime's name.
        path: The artifact.
        inputs: One array `[rows, ...]` per input.
        threads: Threads of the runtime.
        batch: Rows per call.
        timeout_s: After which the worker is ended.

    Returns:
        One array `[rows, ...]` per output, by name.

    Raises:
        WorkerError: If the worker failed.
    """
    with tempfile.TemporaryDirectory(prefix="edge-compress-") as folder:
        given, made = Path(folder) / "inputs.npz", Path(folder) / "outputs.npz"
        job = {"action": "outputs", "runtime": runtime, "artifact": str(path.resolve()), "threads": threads}
        try:
            write_arrays(given, inputs)
            ask(host, {**job, "inputs": str(given), "outputs": str(made), "batch": batch}, timeout_s)
            return read_arrays(made)
        except JobError as error:
            raise WorkerError(error.message, error.hint) from error


def describe(
    host: Host,
    runtime: str,
    path: Path,
    *,
    precision: str,
    threads: int,
    timeout_s: float,
    inputs: Mapping[str, Array] | None = None,
) -> Description:
    """Opens an artifact in a worker process and tells its signature and its placement.

    Args:
        host: Where; this machine instead of a host that takes times alone.
        runtime: The runtime's name.
        path: The artifact.
        precision: `float` or `int8`, what the artifact was lowered to.
        threads: Threads of the runtime.
        timeout_s: After which the worker is ended.
        inputs: At least one row, for runtimes that tell the placement only by running; zeros if None.

    Raises:
        WorkerError: If the worker failed.
    """
    with tempfile.TemporaryDirectory(prefix="edge-compress-") as folder:
        job = {"action": "describe", "runtime": runtime, "artifact": str(path.resolve()), "threads": threads}
        if inputs is not None:
            given = Path(folder) / "inputs.npz"
            try:
                write_arrays(given, {name: array[:1] for name, array in inputs.items()})
            except JobError as error:
                raise WorkerError(error.message, error.hint) from error
            job["inputs"] = str(given)
        result = ask(answering_host(host), {**job, "precision": precision}, timeout_s)
    placement = result["placement"]
    operators = tuple(Operators(**entry) for entry in placement["operators"])
    return Description(_specs(result["inputs"]), _specs(result["outputs"]), Placement(placement["path"], operators))


def _specs(entries: Mapping[str, Any]) -> dict[str, TensorSpec]:
    return {name: TensorSpec(tuple(entry["shape"]), entry["dtype"]) for name, entry in entries.items()}

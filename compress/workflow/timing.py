"""Latency and memory of files beside each other, as much of them as a recipe says."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compress.bench.conductor import BenchItem, BenchResult, measure
from compress.hosts import Host
from compress.recipe import Recipe
from compress.workflow.progress import Progress


def time_files(
    host: Host,
    items: Sequence[BenchItem],
    inputs: Mapping[str, NDArray[np.generic]],
    recipe: Recipe,
    threads: int,
    progress: Progress,
) -> dict[str, BenchResult]:
    """Returns the latency and memory of every file, measured interleaved.

    Args:
        host: Where.
        items: The baseline first.
        inputs: Input name to `[rows, ...]`, at least one call's rows.
        recipe: Its `[measure]` says how much is measured, its `seed` in which order.
        threads: Of the runtime.
        progress: Told how far it is.
    """
    settings = recipe.measure
    with tempfile.TemporaryDirectory(prefix="edge-compress-") as folder:
        rows = Path(folder) / "inputs.npz"
        np.savez(rows, allow_pickle=False, **{name: array[: settings.batch] for name, array in inputs.items()})
        return measure(
            host,
            items,
            rows,
            threads=threads,
            batch=settings.batch,
            seconds=settings.seconds,
            pairs=settings.pairs,
            max_pairs=settings.max_pairs,
            tolerance=settings.tolerance,
            seed=recipe.seed,
            timeout_s=settings.timeout_s,
            progress=progress.advance,
        )

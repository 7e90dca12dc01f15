"""Calibration rows for passes that look at activations, and the statistics that several of them need."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import torch

from compress.data.base import Dataset
from compress.errors import PassError
from compress.model.core import Model
from compress.model.edit import unlifted
from compress.model.watch import Batch, in_parts
from compress.passes.base import Context
from compress.passes.watch import watch

_BATCH = 64


def calibration_batches(model: Model, data: Dataset | None, rows: int, ctx: Context, kind: str) -> Iterator[Batch]:
    """Streams a stratified sample of the calibration split, in parts whose values in the graph stay small.

    Raises:
        PassError: If the pass was given no rows.
    """
    if data is None:
        raise PassError(f"the pass {kind!r} needs calibration rows and was given none", "run it from a recipe.")
    return in_parts(model, data.batches_of(data.sample("calibration", rows, ctx.seed), _BATCH))


def channel_peaks(model: Model, batches: Iterator[Batch], wanted: Mapping[str, int]) -> dict[str, torch.Tensor]:
    """Returns the largest magnitude of each channel of the wanted values over all rows, `[channels]`.

    Args:
        model: The graph.
        batches: Input name to `[rows, *shape]`.
        wanted: Value's name to the dimension of its channels.
    """
    found: dict[str, torch.Tensor] = {}

    def see(name: str, axis: int, value: torch.Tensor) -> None:
        others = [place for place in range(value.dim()) if place != axis % value.dim()]
        peak = value.abs().amax(dim=others)
        found[name] = torch.maximum(found[name], peak) if name in found else peak

    watch(unlifted(model), model, batches, {name: partial(see, name, axis) for name, axis in wanted.items()})
    return found

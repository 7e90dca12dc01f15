"""A batch that was opened, proved on numbers: each row of a larger batch gives what it gave in the file's own."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.utils import _pytree as pytree

from compress.errors import ModelError
from compress.model.core import TensorInfo
from compress.model.cost import shape_for_one
from compress.model.onnx_import.module import OnnxModule

OPEN = "export it with a dynamic batch."
# A value of 1 GiB.
MAX_ELEMENTS = 1 << 28
# Of the output's range: sums in another order, not another function.
TOLERANCE = 1e-4


def check_rows(
    module: OnnxModule, program: torch.export.ExportedProgram, infos: Sequence[TensorInfo], fixed: int, where: str
) -> None:
    """Compares a graph on two batches of the file's size with the same rows at once, and with the file's own nodes.

    Args:
        module: Runs the file's nodes with the batch that they were written for.
        program: The graph with an open batch.
        infos: What is fed.
        fixed: The file's batch size.
        where: The file.

    Raises:
        ModelError: If a row's answer depends on other rows, or on the size of the batch.
    """
    closed = f"{where}: its batch is fixed to {fixed} and cannot be opened"
    largest = max(math.prod(shape_for_one(node.meta.get("val"))) for node in program.graph.nodes)
    if 2 * fixed * largest > MAX_ELEMENTS:
        raise ModelError(f"{closed}: its values are too large to check that rows do not depend on each other", OPEN)
    rows = _rows(infos, 2 * fixed)
    opened = program.module(check_guards=False)
    try:
        with torch.no_grad():
            together = pytree.tree_leaves(opened(*rows))
            halves = [
                pytree.tree_leaves(module(*(tensor[part] for tensor in rows)))
                for part in (slice(fixed), slice(fixed, None))
            ]
    except (RuntimeError, IndexError, ValueError) as error:
        first = next(iter(str(error).splitlines()), "")
        raise ModelError(f"{closed}: running it failed: {first[:200]}", OPEN) from error
    for whole, first_rows, other_rows in zip(together, *halves, strict=True):
        if not _close(whole, first_rows, other_rows):
            raise ModelError(f"{closed}: its rows depend on each other", OPEN)


def _close(whole: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> bool:
    if (
        first.shape[:1] != second.shape[:1]
        or whole.shape[1:] != first.shape[1:]
        or 2 * first.shape[0] != whole.shape[0]
    ):
        return False
    expected = torch.cat([first, second])
    if not expected.is_floating_point():
        return torch.equal(whole, expected)
    finite = expected[torch.isfinite(expected)]
    scale = float(finite.abs().max()) if finite.numel() else 1.0
    return torch.allclose(whole, expected, rtol=0, atol=TOLERANCE * max(scale, 1e-6), equal_nan=True)


def _rows(infos: Sequence[TensorInfo], count: int) -> tuple[torch.Tensor, ...]:
    """Returns rows that differ: seeded noise for floats, zeros and ones for integers, which every table has."""
    generator = torch.Generator().manual_seed(1)
    result = []
    for info in infos:
        dtype = getattr(torch, info.dtype)
        noise = torch.rand((count, *info.shape), generator=generator)
        result.append(noise.to(dtype) if dtype.is_floating_point else (noise < 0.5).to(dtype))
    return tuple(result)

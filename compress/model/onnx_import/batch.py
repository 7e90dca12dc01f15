"""A batch size that is written into a model's graph as a number, found again and opened."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from compress.model.onnx_import.errors import MixesRows


@dataclass(frozen=True)
class Batch:
    """The batch while the graph is read.

    Attributes:
        fixed: The number that stands in the file; None where the file leaves it open.
        size: The first dimension of the inputs: a symbol while the graph is traced.
    """

    fixed: int | None
    size: Any

    @property
    def opens(self) -> bool:
        """Whether a fixed number is being replaced by a symbol."""
        return self.fixed is not None and isinstance(self.size, torch.SymInt)

    def rows(self, size: Any) -> int | None:
        """Returns how many times the batch a dimension is; None where it is no multiple of it."""
        if not isinstance(size, torch.SymInt) or not isinstance(self.size, torch.SymInt):
            return None
        quotient = size.node.expr / self.size.node.expr
        return int(quotient) if quotient.is_Integer else None


def opened_reshape(shape: Sequence[Any], target: Sequence[int], batch: Batch) -> list[Any]:
    """Returns a reshape's target with the batch as a symbol.

    A reshape keeps the order of elements. With `P` elements before the batch's axis, the dimension of the target before
    which `P` elements lie runs over the batch first, so if it is a multiple of the file's number, that factor is it.

    Args:
        shape: Of what is reshaped.
        target: Numbers only, at most one of them -1.
        batch: With a number from the file.

    Raises:
        ValueError: If the batch is not found in the target.
    """
    if batch.fixed is None:
        return list(target)
    axes = [axis for axis, size in enumerate(shape) if isinstance(size, torch.SymInt)]
    rows = batch.rows(shape[axes[0]]) if len(axes) == 1 else None
    if rows is None:
        return list(target)
    in_file = [rows * batch.fixed if axis == axes[0] else int(size) for axis, size in enumerate(shape)]
    sizes = _without_wildcard(target, math.prod(in_file))
    before = math.prod(in_file[: axes[0]])
    for index, size in enumerate(sizes):
        if math.prod(sizes[:index]) == before and size and size % batch.fixed == 0:
            return [*sizes[:index], batch.size * (size // batch.fixed), *sizes[index + 1 :]]
    raise ValueError(f"the batch of {batch.fixed} is not found in its shape {list(target)}")


def opened_expand(shape: Sequence[Any], target: Sequence[Any], batch: Batch) -> list[Any]:
    """Returns the target of a broadcast with the batch as a symbol where the broadcast value has it already.

    A dimension that is broadcast from 1 to the file's number counts as the batch only in front.
    """
    if batch.fixed in (None, 1):
        return list(target)
    result = list(target)
    for offset in range(1, min(len(shape), len(target)) + 1):
        rows = batch.rows(shape[-offset])
        if rows is not None and target[-offset] == rows * batch.fixed:
            result[-offset] = shape[-offset]
    in_front = 1 if len(shape) < len(target) else shape[-len(target)] if target else 0
    if isinstance(in_front, int) and in_front == 1 and target[0] == batch.fixed:
        result[0] = batch.size
    return result


def check_broadcast(left: Sequence[Any], right: Sequence[Any], batch: Batch) -> None:
    """Refuses to broadcast the batch with a number of rows that stands in the file.

    Raises:
        MixesRows: If it is not one row.
    """
    for one, other in zip(reversed(left), reversed(right), strict=False):
        rows = next((size for size in (one, other) if isinstance(size, int)), 1)
        if rows != 1 and (batch.rows(one) or batch.rows(other)):
            raise MixesRows(f"with a value of {rows} rows")


def opened_parts(parts: Sequence[torch.Tensor], axis: int, batch: Batch) -> list[torch.Tensor]:
    """Returns what is concatenated, with a constant row repeated for each row of the batch."""
    if not batch.opens or batch.fixed != 1:
        return list(parts)
    result = []
    rank = parts[0].dim()
    for part in parts:
        sizes = [
            next((other.shape[at] for other in parts if batch.rows(other.shape[at]) == 1), part.shape[at])
            if at != axis % rank and isinstance(part.shape[at], int) and part.shape[at] == 1
            else part.shape[at]
            for at in range(rank)
        ]
        changed = any(
            isinstance(new, torch.SymInt) and isinstance(old, int) for new, old in zip(sizes, part.shape, strict=True)
        )
        result.append(part.expand(sizes) if changed else part)
    return result


def _without_wildcard(target: Sequence[int], total: int) -> list[int]:
    rest = math.prod(size for size in target if size != -1)
    return [total // rest if size == -1 and rest else size for size in target]

"""Batch normalisation's statistics after a cut: what comes in is not what it was, so they are taken anew."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.fx import GraphModule, Interpreter, Node

from compress.model.core import Model
from compress.model.edit import get_parameter


class _Observe(Interpreter):
    """Runs a graph with each batch's own statistics, and sums these up."""

    def __init__(self, module: GraphModule) -> None:
        super().__init__(module)
        self.seen: dict[Node, tuple[int, torch.Tensor, torch.Tensor]] = {}

    def run_node(self, n: Node) -> Any:
        if n.target is not torch.ops.aten.batch_norm.default:
            return super().run_node(n)
        arguments = list(self.fetch_args_kwargs_from_env(n)[0])
        value = arguments[0]
        others = [place for place in range(value.dim()) if place != 1]
        count = value.numel() // value.shape[1]
        wide = value.double()
        before = self.seen.get(n, (0, torch.zeros(()), torch.zeros(())))
        self.seen[n] = (
            before[0] + count,
            before[1] + wide.sum(dim=others),
            before[2] + wide.square().sum(dim=others),
        )
        arguments[3], arguments[4] = (
            wide.mean(dim=others).to(value.dtype),
            wide.var(dim=others, correction=0).to(value.dtype),
        )
        return torch.ops.aten.batch_norm.default(*arguments)


def renew_statistics(module: GraphModule, model: Model, batches: Iterable[Mapping[str, NDArray[np.generic]]]) -> None:
    """Takes every batch normalisation's mean and variance anew from rows, in place.

    Each batch is normalised by its own statistics on the way, so that all of them are taken in one pass (Li et al.
    2017, arXiv:1603.04779); sums run in double precision.

    Args:
        module: The graph after a cut.
        model: Whose inputs it takes.
        batches: Input name to `[rows, *shape]`; never test rows.
    """
    watch = _Observe(module)
    with torch.no_grad():
        for batch in batches:
            if len(next(iter(batch.values()))) > 1:
                watch.run(*model.arguments(batch))
        for node, (count, sums, squares) in watch.seen.items():
            mean = sums / count
            for place, value in ((3, mean), (4, (squares / count - mean.square()).clamp(min=0))):
                held = node.args[place]
                if isinstance(held, Node):
                    tensor = get_parameter(module, str(held.target))
                    tensor.copy_(value.to(tensor.dtype))

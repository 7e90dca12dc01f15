"""How much each position of a group counts, by the size of its slices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.fx import GraphModule, Node

from compress.passes.edit import batch_norms, get_parameter
from compress.passes.prune.axes import places
from compress.passes.prune.groups import Analysis, Group

Floats = NDArray[np.float64]
Kind = Literal["l1", "l2", "bn_scale"]


def importance(analysis: Analysis, group: Group, kind: Kind) -> Floats:
    """Returns a figure for each position of a group, `[size]`, with a mean of 1, so that groups can be compared.

    1. `l1`, `l2`: the norm of all slices that go with the position (Li et al. 2017, arXiv:1608.08710, over the whole
       coupled group: Fang et al. 2023, arXiv:2301.12900). Statistics of a normalisation are no weights, so they do not
       count.
    2. `bn_scale`: the scale of the batch normalisation behind it (Liu et al. 2017, arXiv:1708.06519); a group without
       one takes `l2`.

    Args:
        analysis: The graph that the group belongs to.
        group: Which one.
        kind: Which figure.
    """
    found = np.zeros(group.size)
    chosen = _scales(analysis.module) if kind == "bn_scale" else set()
    names = {member.parameter for member in group.members}
    only = chosen & names
    measure: Callable[[torch.Tensor], torch.Tensor] = torch.abs if kind == "l1" else torch.square
    for member in group.members:
        tensor = get_parameter(analysis.module, member.parameter)
        if (only and member.parameter not in only) or not isinstance(tensor, torch.nn.Parameter):
            continue
        others = [place for place in range(tensor.dim()) if place != member.dimension]
        sums = measure(tensor.detach().double())
        along = (sums.sum(dim=others) if others else sums).numpy()
        index = places(member.dim, group.axis)
        np.add.at(found, index[index >= 0], along[index >= 0])
    if kind != "l1":
        found = np.sqrt(found)
    mean = found.mean()
    return found / mean if mean > 0 else np.ones(group.size)


def _scales(module: GraphModule) -> set[str]:
    """Names of the scales of batch normalisations."""
    scales = (node.args[1] for node in batch_norms(module))
    return {str(node.target) for node in scales if isinstance(node, Node)}

"""How much each position of a group counts: by the size of its slices, or by what rows say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch.fx import GraphModule, Node

from compress.errors import PassError
from compress.model.core import Model
from compress.model.edit import batch_norms, get_parameter
from compress.passes.prune.axes import places
from compress.passes.prune.from_rows import Floats, Sample, activations, first_order, fisher, gate_gradients
from compress.passes.prune.groups import Analysis, Group
from compress.passes.prune.options import FROM_GRADIENTS, FROM_ROWS, Kind


def all_importance(
    model: Model, analysis: Analysis, groups: Sequence[Group], kind: Kind, sample: Sample | None
) -> dict[str, Floats]:
    """Returns a figure for each position of some groups, group -> `[size]`, that may be compared across groups.

    1. Sizes of weights (`importance`) and of activations (`activations`) have units of their own in every group: they
       are given as multiples of the group's mean.
    2. `taylor` (`first_order`) and `fisher` are all in the unit of the loss, and are comparable as they are: only their
       mean over all positions is made 1. A group that the loss hardly depends on thus counts little as a whole.

    Args:
        model: Whose graph it is.
        analysis: Of the graph.
        groups: Which groups.
        kind: Which figure.
        sample: Rows, for the kinds that need them.

    Raises:
        PassError: If there are no rows where they are needed, or no gradient reaches any position.
        DataError: If the sample is empty.
    """
    if kind not in FROM_ROWS:
        return {group.name: importance(analysis, group, kind) for group in groups}
    if sample is None:
        raise PassError(
            f"prune.importance: {kind!r} is taken from rows, and there are none",
            'choose importance = "l2", which looks at weights alone.',
        )
    if kind not in FROM_GRADIENTS:
        return {name: _relative(found) for name, found in activations(model, analysis, groups, sample).items()}
    rows = gate_gradients(model, analysis, groups, sample)
    found = first_order(rows) if kind == "taylor" else fisher(rows)
    return _relative_to_all(found, kind)


def _relative(found: Floats) -> Floats:
    mean = found.mean()
    return found / mean if mean > 0 else np.ones(len(found))


def _relative_to_all(found: Mapping[str, Floats], kind: Kind) -> dict[str, Floats]:
    if not found:
        return {}
    mean = float(np.concatenate(list(found.values())).mean())
    if mean == 0:
        raise PassError(
            f"prune.importance: {kind!r}: no gradient reaches any position that may be cut",
            'choose importance = "l2", or more importance_rows.',
        )
    return {name: values / mean for name, values in found.items()}


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
    return _relative(found)


def _scales(module: GraphModule) -> set[str]:
    """Names of the scales of batch normalisations."""
    scales = (node.args[1] for node in batch_norms(module))
    return {str(node.target) for node in scales if isinstance(node, Node)}

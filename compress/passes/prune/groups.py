"""Coupled groups: which slices of which parameters must go together, derived from the exported graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.fx import GraphModule

from compress.model.core import Model
from compress.model.edit import edited, get_parameter
from compress.passes.prune.axes import Axis, Cut, Dim, leaves, places, size, terms
from compress.passes.prune.rules_elements import RULES as ELEMENTS
from compress.passes.prune.rules_layers import KERNEL
from compress.passes.prune.rules_layers import RULES as LAYERS
from compress.passes.prune.rules_pieces import RULES as PIECES
from compress.passes.prune.rules_views import RULES as VIEWS
from compress.passes.prune.trace import Trace, listed, trace

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Member:
    """One dimension of one parameter or buffer that an axis reaches: what its elements are made of."""

    parameter: str
    dimension: int
    dim: Dim

    def positions(self, axis: Axis, chosen: Indices) -> Indices:
        """Returns the positions along the dimension that belong to some positions of an axis."""
        return np.flatnonzero(np.isin(places(self.dim, axis), chosen))


@dataclass(frozen=True)
class Group:
    """Slices that must go together: position `i` of the axis, wherever it reaches a parameter.

    Attributes:
        name: The parameter that is met first, its dimension, and which part of it: `blocks.0.q.weight[0.1]`.
        axis: What they have in common.
        members: Every dimension that it reaches, in the order of the graph.
        frozen: Why it cannot be cut; empty if it can.
        mixed: A normalisation or reduction across its positions; empty if there is none.
    """

    name: str
    axis: Axis
    members: tuple[Member, ...]
    frozen: str
    mixed: str

    @property
    def size(self) -> int:
        """Number of positions."""
        return self.axis.size


@dataclass(frozen=True)
class Analysis:
    """The groups of a Model, and the operators of which nothing is known.

    Attributes:
        module: The graph that was walked.
        found: What the walk found.
        groups: Every group that reaches a parameter, in the order of the graph; those that cannot be cut, too.
    """

    module: GraphModule
    found: Trace
    groups: tuple[Group, ...]

    @property
    def prunable(self) -> tuple[Group, ...]:
        """The groups that can be cut."""
        return tuple(group for group in self.groups if not group.frozen)

    @property
    def inner(self) -> frozenset[str]:
        """Names of the groups that lie inside another one that can be cut, as the channels of a head do."""
        cuttable = {group.axis for group in self.prunable}
        found = set()
        for group in self.prunable:
            for term in terms(group.members[0].dim):
                axes = [axis.root for axis in term]
                if group.axis in axes and cuttable & set(axes[: axes.index(group.axis)]):
                    found.add(group.name)
        return frozenset(found)


def analyse(model: Model) -> Analysis:
    """Finds the coupled groups of a Model; no row is run.

    A tensor's dimension is an ordered sum of products of axes (`axes.py`). An axis that reaches a dimension of a
    parameter is a group: all of its slices go together.
    """
    return analyse_module(model.program.module(check_guards=False))


def analyse_module(module: GraphModule) -> Analysis:
    """Finds the groups of a graph with its weights inside."""
    found = trace(module, {**ELEMENTS, **PIECES, **VIEWS, **LAYERS})
    reached: dict[Axis, list[Member]] = {}
    for name, shape in found.stored.items():
        for place, dim in enumerate(shape):
            for axis in dict.fromkeys(leaves(dim)):
                if axis.frozen != KERNEL:
                    reached.setdefault(axis, []).append(Member(name, place, dim))
    groups = []
    for axis, members in reached.items():
        first = members[0]
        inside = list(dict.fromkeys(leaves(first.dim)))
        # Of a dimension that is made of several axes, the number says which: heads come before what is in a head.
        part = f".{inside.index(axis)}" if len(inside) > 1 else ""
        name = f"{first.parameter}[{first.dimension}{part}]"
        groups.append(Group(name, axis, tuple(members), axis.frozen, axis.mixed))
    return Analysis(module, found, tuple(groups))


def cut(model: Model, keep: Mapping[str, Sequence[int] | Indices], step: str = "prune") -> Model:
    """Returns the Model with only some positions of some groups.

    Args:
        model: Stays untouched.
        keep: Group name -> positions that stay, ascending, at least one.
        step: What was done, for the lineage.

    Raises:
        ValueError: If a group does not exist, cannot be cut, or would lose everything.
    """

    def edit(module: torch.fx.GraphModule) -> None:
        apply_cut(analyse_module(module), keep)

    return edited(model, edit, step)


def apply_cut(analysis: Analysis, keep: Mapping[str, Sequence[int] | Indices]) -> None:
    """Cuts the parameters of a walked graph and rewrites the sizes that stand in it, in place."""
    by_name = {group.name: group for group in analysis.groups}
    chosen: dict[Axis, Indices] = {}
    for name, positions in keep.items():
        group = by_name.get(name)
        if group is None:
            raise ValueError(f"there is no group {name!r}")
        kept = np.unique(np.asarray(positions, np.int64))
        if group.frozen and len(kept) < group.size:
            raise ValueError(f"the group {name!r} cannot be cut: {group.frozen}")
        if not len(kept) or kept[0] < 0 or kept[-1] >= group.size:
            raise ValueError(f"the group {name!r} has positions 0 to {group.size - 1}, at least one of which must stay")
        chosen[group.axis] = kept
    applied = Cut(chosen)
    _cut_parameters(analysis, applied)
    _make_robust(analysis)
    for (node, place), value in analysis.found.rewrites.items():
        if isinstance(place, int):
            node.update_arg(place, value(applied))
        else:
            node.update_kwarg(place, value(applied))


def _make_robust(analysis: Analysis) -> None:
    """Writes what depends on sizes or on the order in memory so that it does not."""
    aten = torch.ops.aten
    for node in analysis.module.graph.find_nodes(op="call_function", target=aten.view.default):
        # A kernel may lay out a smaller result in another order in memory, which a view refuses.
        node.target = aten.reshape.default
    for target in (aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims):
        for node in analysis.module.graph.find_nodes(op="call_function", target=target):
            # What had one position goes; what a cut leaves with one position does not.
            before = analysis.found.shapes[node.all_input_nodes[0]]
            if not isinstance(before, tuple):
                continue
            chosen = node.args[1] if len(node.args) > 1 else range(len(before))
            ones = [place for place in listed(chosen) if size(before[place]) == 1]
            node.target, node.args, node.kwargs = aten.squeeze.dims, (node.args[0], ones), {}


def _cut_parameters(analysis: Analysis, applied: Cut) -> None:
    done: dict[tuple[int, int, tuple[int, ...]], torch.Tensor] = {}
    for name, shape in analysis.found.stored.items():
        tensor = get_parameter(analysis.module, name)
        key = (tensor.untyped_storage().data_ptr(), int(tensor.storage_offset()), tuple(tensor.shape))
        if tensor.numel() and key in done:
            _replace(analysis.module, name, done[key])
            continue
        smaller = tensor.detach()
        for place, dim in enumerate(shape):
            if applied.size(dim) != smaller.shape[place]:
                smaller = smaller.index_select(place, torch.from_numpy(applied.positions(dim)))
        if smaller.shape != tensor.shape:
            trained = isinstance(tensor, torch.nn.Parameter)
            done[key] = torch.nn.Parameter(smaller, tensor.requires_grad) if trained else smaller
            _replace(analysis.module, name, done[key])


def _replace(module: torch.nn.Module, name: str, value: torch.Tensor) -> None:
    owner, _, leaf = name.rpartition(".")
    holder = module.get_submodule(owner)
    if leaf in holder._parameters:
        holder._parameters[leaf] = value  # type: ignore[assignment]
    elif leaf in holder._buffers:
        holder._buffers[leaf] = value
    else:
        setattr(holder, leaf, value)

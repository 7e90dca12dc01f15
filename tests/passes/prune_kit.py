"""Graphs to cut, and the proof that a cut does what it must."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn
from torch.fx import GraphModule, Node

from compress.model.core import Model, TensorInfo
from compress.model.edit import get_parameter
from compress.model.factory import export_module
from compress.passes.prune.axes import places
from compress.passes.prune.groups import Analysis, Group, analyse_module, apply_cut

ROWS = 3
FUSED = re.compile(r"\b(qkv\.|in_proj)")


def exported(module: nn.Module, **inputs: Sequence[int]) -> Model:
    """A module with random weights as a Model; inputs by name with their shape without the batch."""
    torch.manual_seed(0)
    shaken(module)
    infos = [
        TensorInfo(name, tuple(shape), "int64" if name.endswith(("ids", "mask", "categories")) else "float32")
        for name, shape in inputs.items()
    ]
    return export_module(module.eval(), infos, (), "test")


def shaken(module: nn.Module) -> None:
    """Draws every parameter and statistic anew: scales of exactly 1 and shifts of 0 would hide mistakes."""
    with torch.no_grad():
        for parameter in module.parameters():
            fan = parameter[0].numel() if parameter.dim() > 1 else 4
            parameter.copy_(torch.randn_like(parameter) * fan**-0.5 + (0.0 if parameter.dim() > 1 else 0.3))
        for name, buffer in module.named_buffers():
            if buffer.is_floating_point():
                buffer.copy_(torch.rand_like(buffer) + 0.5 if name.endswith("var") else torch.randn_like(buffer) * 0.1)


def rows(model: Model, seed: int = 0) -> tuple[torch.Tensor, ...]:
    random = np.random.default_rng(seed)
    made = {}
    for item in model.signature.inputs:
        shape = (ROWS, *item.shape)
        made[item.name] = (
            random.normal(size=shape).astype(np.float32)
            if item.dtype == "float32"
            else random.integers(0, 2, shape).astype(np.int64)
            if item.name.endswith("mask")
            else random.integers(1, 3, shape).astype(np.int64)
        )
        if item.name.endswith("mask"):
            made[item.name][:, 0] = 1
    return model.arguments(made)


def graph_of(model: Model) -> GraphModule:
    return copy.deepcopy(model.program.module(check_guards=False))


def answers(module: nn.Module, given: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    with torch.no_grad():
        found = module(*given)
    values = list(found.values()) if isinstance(found, Mapping) else found
    return [values] if isinstance(values, torch.Tensor) else list(values)


def cut_answers(model: Model, keep: Mapping[str, Sequence[int]], given: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    module = graph_of(model)
    apply_cut(analyse_module(module), keep)
    module.recompile()
    return answers(module, given)


def zeroed_answers(
    model: Model, gone: Mapping[str, Sequence[int]], given: tuple[torch.Tensor, ...]
) -> list[torch.Tensor]:
    """What the graph answers with what reads some positions set to zero.

    No weight reads what queries and keys have in common, and where one weight holds them, values have it in common with
    them: there all slices are zero.
    """
    module = graph_of(model)
    groups = {group.name: group for group in analyse_module(module).groups}
    reads = readers(module)
    with torch.no_grad():
        for name, positions in gone.items():
            members = groups[name].members
            reading = [member for member in members if (member.parameter, member.dimension) in reads]
            fused = any(FUSED.search(member.parameter) and member not in reading for member in members)
            for member in members if fused or not reading else reading:
                index = torch.from_numpy(member.positions(groups[name].axis, np.asarray(positions)))
                get_parameter(module, member.parameter).index_fill_(member.dimension, index, 0.0)
    return answers(module, given)


def readers(module: GraphModule) -> set[tuple[str, int]]:
    """Parameters with the dimension along which they read: they are multiplied with what comes in and summed up.

    Found from the operators that take them, without the rules that the groups are found by.
    """
    found: set[tuple[str, int]] = set()
    for node in module.graph.nodes:
        if node.op != "call_function":
            continue
        name = str(node.target).removeprefix("aten.").partition(".")[0]
        for place, value in enumerate(node.args):
            if name == "einsum" and place == 1:
                found |= _read_by_einsum(*node.args[:2])
            elif isinstance(value, Node) and value.op == "get_attr":
                weight = get_parameter(module, str(value.target))
                dimension = _read_along(name, place, weight.dim())
                if dimension is not None:
                    found.add((str(value.target), dimension % weight.dim()))
    return found


def _read_along(operator: str, place: int, dimensions: int) -> int | None:
    if place == 1 and operator == "linear":
        return -1
    if place == 1 and operator in ("conv1d", "conv2d", "conv3d"):
        return 1
    if place == 1 and operator.startswith("conv_transpose"):
        return 0
    if operator in ("matmul", "mm", "bmm"):
        return -1 if place == 0 or dimensions == 1 else -2
    return None


def _read_by_einsum(equation: str, values: Sequence[Node]) -> set[tuple[str, int]]:
    given, _, wanted = equation.replace(" ", "").partition("->")
    return {
        (str(value.target), place)
        for letters, value in zip(given.split(","), values, strict=True)
        for place, letter in enumerate(letters)
        if value.op == "get_attr" and letter not in wanted
    }


def smaller_weights(
    weights: Mapping[str, torch.Tensor], small: nn.Module, rows: Mapping[str, Sequence[int]]
) -> dict[tuple[str, int], Sequence[int]]:
    """Loads a smaller module with part of the weights of a larger one, by names and sizes alone.

    Args:
        weights: Of the larger module.
        small: Of the same kind, from its own constructor; gets the weights.
        rows: Pattern on `parameter[dimension]` -> positions; without one, a choice that depends on the sizes only.

    Returns:
        (parameter, dimension) -> positions, for each dimension that is smaller.
    """
    chosen: dict[tuple[str, int], Sequence[int]] = {}
    loaded = {}
    for name, wanted in small.state_dict().items():
        value = weights[name]
        for place, length in enumerate(wanted.shape):
            if value.shape[place] == length:
                continue
            pattern = next((pattern for pattern in rows if re.search(pattern, f"{name}[{place}]")), None)
            positions = rows[pattern] if pattern else sizes_choice(value.shape[place], length)
            assert len(positions) == length, (name, place, pattern)
            chosen[name, place] = positions
            value = value.index_select(place, torch.tensor(positions))
        loaded[name] = value
    small.load_state_dict(loaded)
    return chosen


def sizes_choice(before: int, behind: int) -> list[int]:
    return sorted(np.random.default_rng(before + behind).choice(before, behind, replace=False).tolist())


def groups_that_choose(analysis: Analysis, chosen: Mapping[tuple[str, int], Sequence[int]]) -> dict[str, Sequence[int]]:
    """What stays of each group when some positions of parameters stay; every slice of a group must say the same."""
    keep: dict[str, Sequence[int]] = {}
    for group in analysis.groups:
        for member in group.members:
            if (member.parameter, member.dimension) not in chosen:
                continue
            index = places(member.dim, group.axis)[list(chosen[member.parameter, member.dimension])]
            kept = np.unique(index[index >= 0]).tolist()
            if kept:
                assert keep.setdefault(group.name, kept) == kept, (group.name, member)
    return {name: kept for name, kept in keep.items() if len(kept) < _size(analysis, name)}


def _size(analysis: Analysis, name: str) -> int:
    return next(group.size for group in analysis.groups if group.name == name)


def gone_of(group: Group, seed: int, share: float = 1 / 3) -> list[int]:
    """Some positions to take out: never all of them."""
    random = np.random.default_rng(seed)
    count = max(1, min(group.size - 1, int(group.size * share)))
    return sorted(random.choice(group.size, count, replace=False).tolist())


def rest(group: Group, gone: Sequence[int]) -> list[int]:
    return [position for position in range(group.size) if position not in set(gone)]


def difference(one: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> float:
    """The largest difference, as a share of the largest answer."""
    assert [value.shape for value in one] == [value.shape for value in other]
    scale = max(float(value.abs().max()) for value in other)
    return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True)) / scale

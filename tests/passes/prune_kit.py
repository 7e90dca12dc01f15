"""Graphs to cut, and the proof that a cut does what it must."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn
from torch.fx import GraphModule

from compress.model.core import Model, TensorInfo
from compress.model.factory import export_module
from compress.passes.edit import get_parameter
from compress.passes.prune.groups import Group, analyse_module, apply_cut

ROWS = 3


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


def answers(module: GraphModule, given: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    module.recompile()
    with torch.no_grad():
        found = module(*given)
    values = list(found.values()) if isinstance(found, Mapping) else found
    return [values] if isinstance(values, torch.Tensor) else list(values)


def cut_answers(model: Model, keep: Mapping[str, Sequence[int]], given: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    module = graph_of(model)
    apply_cut(analyse_module(module), keep)
    return answers(module, given)


def zeroed_answers(
    model: Model, gone: Mapping[str, Sequence[int]], given: tuple[torch.Tensor, ...]
) -> list[torch.Tensor]:
    """What the graph answers with every slice of some positions set to zero."""
    module = graph_of(model)
    groups = {group.name: group for group in analyse_module(module).groups}
    with torch.no_grad():
        for name, positions in gone.items():
            for member in groups[name].members:
                index = torch.from_numpy(member.positions(groups[name].axis, np.asarray(positions)))
                get_parameter(module, member.parameter).index_fill_(member.dimension, index, 0.0)
    return answers(module, given)


def gone_of(group: Group, seed: int) -> list[int]:
    """Some positions to take out: never all of them."""
    random = np.random.default_rng(seed)
    count = max(1, group.size // 3)
    return sorted(random.choice(group.size, count, replace=False).tolist())


def rest(group: Group, gone: Sequence[int]) -> list[int]:
    return [position for position in range(group.size) if position not in set(gone)]


def difference(one: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> float:
    """The largest difference, as a share of the largest answer."""
    assert [value.shape for value in one] == [value.shape for value in other]
    scale = max(float(value.abs().max()) for value in other)
    return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True)) / scale

"""The costs of a graph: multiply-adds by width, parts that stand alone, and a table fitted to what was timed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from prune_cases import CASES
from prune_doubles import CountingMeter
from prune_kit import exported
from torch import nn

from compress.model.cost import cost, macs_of
from compress.passes.prune.axes import Cut
from compress.passes.prune.costs import cut_to, multiply_adds
from compress.passes.prune.groups import analyse
from compress.passes.prune.parts import find_parts, part_model
from compress.passes.prune.table import measure_costs, measure_table
from compress.passes.prune.work import macs, sizes_under

SEVERAL = ["residual", "dense", "grouped", "fused-chunk", "patches", "squeeze", "compact_bert", "mobilenet_v2"]


class Twice(nn.Module):
    """The same block twice."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.ModuleList([nn.Conv2d(16, 24, 1), nn.Conv2d(24, 16, 3, padding=1)]) for _ in range(2)
        )
        self.head = nn.Linear(16, 4)

    def forward(self, image):
        value = torch.relu(self.stem(image))
        for one, other in self.blocks:
            value = value + other(torch.relu(one(value)))
        return self.head(value.mean((2, 3)))


def walked(name):
    make, inputs = CASES[name]
    model = exported(make(), **inputs)
    return model, analyse(model)


def some_widths(groups, seed):
    random = np.random.default_rng(seed)
    return {group.name: int(random.integers(1, group.size + 1)) for group in groups}


@pytest.mark.parametrize("name", CASES)
def test_multiply_adds_are_a_cost_by_width(name):
    model, analysis = walked(name)
    groups = analysis.prunable
    costs = multiply_adds(analysis, groups)
    full = {group.name: group.size for group in groups}
    assert costs.total(full) == cost(model).macs
    known = {group.name: group for group in groups}
    for seed in range(3):
        widths = some_widths(groups, seed)
        assert costs.total(widths) == macs(analysis, cut_to(known, widths))
        for group in groups:
            assert costs.saved(group.name, 1, widths) == costs.total(widths) - costs.total({**widths, group.name: 1})


@pytest.mark.parametrize("name", [name for name in SEVERAL if name in CASES])
def test_parts_hold_all_arithmetic_that_widths_decide(name):
    _, analysis = walked(name)
    groups = analysis.prunable
    parts = find_parts(analysis, groups)
    known = {group.name: group for group in groups}
    inside = {node for part in parts for node in part.nodes}
    assert len(inside) == sum(len(part.nodes) for part in parts)
    for seed in range(2):
        widths = some_widths(groups, seed)
        before, after = sizes_under(analysis, Cut()), sizes_under(analysis, cut_to(known, widths))
        for node in analysis.module.graph.nodes:
            if node.op == "call_function" and macs_of(node, before) != macs_of(node, after):
                assert node in inside, node.name


@pytest.mark.parametrize("name", [name for name in SEVERAL if name in CASES])
def test_a_part_stands_alone_at_any_width(name):
    _, analysis = walked(name)
    groups = analysis.prunable
    known = {group.name: group for group in groups}
    parts = find_parts(analysis, groups)
    for part in parts[:: max(1, len(parts) // 6)]:
        for widths in ({group.name: group.size for group in groups}, some_widths(groups, 1)):
            cut = cut_to(known, widths)
            model = part_model(analysis, part, cut)
            sizes = sizes_under(analysis, cut)
            assert cost(model).macs == sum(macs_of(node, sizes) for node in part.nodes)
            given = {item.name: np.ones((2, *item.shape), item.dtype) for item in model.signature.inputs}
            (answer,) = model.run(given).values()
            (one,) = model.run({key: value[:1] for key, value in given.items()}).values()
            # The batch need not be the first dimension of what a part gives.
            assert answer.size == 2 * one.size
            assert part_model(analysis, part, cut).digest == model.digest


def test_parts_of_one_kind_and_size_are_timed_once():
    analysis = analyse(exported(Twice(), image=(3, 8, 8)))
    meter = CountingMeter()
    parts = find_parts(analysis, analysis.prunable)
    table = measure_table(analysis, analysis.prunable, parts, 4, meter)
    # The stem, a block's two convolutions, and the head; the second block is the first again.
    assert [len(part.nodes) for part in parts] == [2, 2, 2, 2, 2, 1, 1]
    assert sum(len(entries) - 1 for entries in table.values()) == 2 + 4 * 3 + 2 + 2
    assert meter.counts == [2 + 2 * 3 + 2 + 2]
    sizes = {group.name: group.size for group in analysis.prunable}
    for part, (full, *narrower) in table.items():
        assert full.widths == {name: sizes[name] for name in part.groups}
        assert all(width % 4 == 0 for entry in narrower for width in entry.widths.values())
        assert all(entry.ms < full.ms or part is parts[-2] for entry in narrower)


@pytest.mark.parametrize("name", ["residual", "fused-chunk"])
def test_the_table_tells_the_time_of_widths_that_were_not_timed(name):
    model, analysis = walked(name)
    groups = analysis.prunable
    meter = CountingMeter(constant_ms=0.1, ns=50.0, alone_ms=0.004)
    costs = measure_costs(analysis, groups, 1, meter, meter.ms(model))
    known = {group.name: group for group in groups}
    full = {group.name: group.size for group in groups}
    scale = min(1.0, meter.ms(model) / costs.total(full))
    assert costs.total(full) == pytest.approx(meter.ms(model), rel=0.02)
    for seed in range(3):
        widths = some_widths(groups, seed)
        saved = (macs(analysis, Cut()) - macs(analysis, cut_to(known, widths))) * 50e-6
        assert costs.total(full) - costs.total(widths) == pytest.approx(scale * saved, rel=0.15, abs=0.002)

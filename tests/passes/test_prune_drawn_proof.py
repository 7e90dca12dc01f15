"""What holds for the known models holds for graphs that nobody wrote: layers of all kinds joined at random."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import HealthCheck, event, given, settings
from prune_drawn import drawn_modules
from prune_kit import cut_answers, difference, exported, gone_of, rest, rows, zeroed_answers

from compress.passes.prune.groups import analyse, cut

CALM = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


@settings(max_examples=30, deadline=None, suppress_health_check=CALM)
@given(drawn_modules())
def test_every_group_of_a_drawn_graph_is_proved(drawn):
    module, shape = drawn
    model = exported(module, value=shape)
    analysis = analyse(model)
    fed = rows(model)
    # Nothing here normalises across channels, so that all groups can be proved by zeroing.
    assert not [group for group in analysis.prunable if group.mixed]
    gone = {group.name: gone_of(group, number) for number, group in enumerate(analysis.prunable)}
    keep = {group.name: rest(group, gone[group.name]) for group in analysis.prunable}
    for name in keep:
        found, wanted = cut_answers(model, {name: keep[name]}, fed), zeroed_answers(model, {name: gone[name]}, fed)
        assert difference(found, wanted) < 1e-4, name
    event(f"{len(keep)} groups")
    if keep:
        together = cut(model, keep)
        found = [torch.from_numpy(np.asarray(value)) for value in together.run(_named(model, fed)).values()]
        assert difference(found, zeroed_answers(model, gone, fed)) < 1e-4


def _named(model, tensors):
    return {item.name: tensor.numpy() for item, tensor in zip(model.signature.inputs, tensors, strict=True)}

"""Every group of every kind of model is cut, and what comes out is compared with what it must be.

1. Where nothing computes across a group's positions: with what reads some positions zero, taking these positions out
   changes nothing but rounding.
2. Where something does (a normalisation): the cut graph equals a smaller module that its own constructor built, with
   the same weights.
3. What may not be cut says why.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from prune_cases import CASES, EVERY, NARROW
from prune_kit import (
    answers,
    cut_answers,
    difference,
    exported,
    gone_of,
    groups_that_choose,
    rest,
    rows,
    smaller_weights,
    zeroed_answers,
)

from compress.passes.prune.groups import analyse

# Of a large model, groups are proved in so many portions, each group once.
PORTIONS = 6
# The only reasons for which anything in these models may stay whole.
REASONS = (
    "an input of the model",
    "an output of the model",
    "rows of a table that are looked up by number",
    "picture elements",
    "one position is read by its number",
    "read position by position",
    "made in the graph",
    "repeated",
    "counts tensors",
)
pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning:transformers.*")


@pytest.mark.parametrize("name", EVERY)
def test_every_group_is_proved(name, record_property):
    make, inputs = EVERY[name]
    module = make()
    model = exported(module, **inputs)
    analysis = analyse(model)
    assert not analysis.found.unknown and analysis.prunable
    whole = {group.name: group.frozen for group in analysis.groups if group.frozen}
    assert not {group: reason for group, reason in whole.items() if not reason.startswith(REASONS)}
    given = rows(model)
    plain = [group for group in analysis.prunable if not group.mixed]
    mixed = {group.name for group in analysis.prunable if group.mixed}

    for together in np.array_split(np.arange(len(plain)), min(len(plain), PORTIONS)):
        gone = {plain[number].name: gone_of(plain[number], int(number)) for number in together}
        keep = {plain[number].name: rest(plain[number], gone[plain[number].name]) for number in together}
        wanted = zeroed_answers(model, gone, given)
        assert difference(cut_answers(model, keep, given), wanted) < 1e-5, list(gone)

    built = set()
    if name in NARROW:
        small = make(**NARROW[name].arguments).eval()
        chosen = smaller_weights(module.state_dict(), small, NARROW[name].rows)
        keep = groups_that_choose(analysis, chosen)
        built = mixed & set(keep)
        with torch.no_grad():
            assert difference(cut_answers(model, keep, given), answers(small, given)) < 1e-5

    skipped = mixed - built
    record_property("groups", {"zeroed": len(plain), "built": len(built), "skipped": len(skipped)})
    print(f"{name}: {len(plain)} equal to zeroing, {len(built)} equal to a smaller module, {len(skipped)} skipped")
    assert not skipped


@pytest.mark.parametrize(
    ("name", "inner"),
    [
        ("fused-view", {"qkv.weight[0.2]"}),
        ("fused-chunk", {"qkv.weight[0.1]"}),
        ("grouped-queries", {"q.weight[0.1]", "q.weight[0.2]", "v.weight[0.1]"}),
        ("groups", {"a.weight[0.1]"}),
        ("residual", set()),
    ],
)
def test_what_lies_inside_a_head_is_told_from_the_heads(name, inner):
    make, inputs = CASES[name]
    assert analyse(exported(make(), **inputs)).inner == inner

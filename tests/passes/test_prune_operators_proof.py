"""One operator at a time between two layers: it lets channels go and the cut is proved, or it says why not."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from prune_kit import cut_answers, difference, exported, gone_of, rest, rows, zeroed_answers
from torch import nn

from compress.passes.prune.groups import analyse

CHANNELS = 8
ACTIVATIONS = (
    *(
        "relu",
        "relu6",
        "gelu",
        "silu",
        "mish",
        "elu",
        "selu",
        "celu",
        "leaky_relu",
        "hardtanh",
        "hardswish",
        "softplus",
    ),
    *("hardsigmoid", "logsigmoid", "softsign", "tanhshrink", "softshrink", "hardshrink", "sigmoid", "tanh"),
)

# Name -> what is done to `[rows, 8, 4, 4]`.
CUT = {
    "flip of places": lambda value: value.flip(-1),
    "roll of places": lambda value: torch.roll(value, 1, -1),
    "glu": lambda value: F.glu(value, 1),
    "zeros around channels": lambda value: F.pad(value, (0, 0, 0, 0, 1, 2)),
    "zeros around places": lambda value: F.pad(value, (1, 1, 1, 1)),
    "mirrored places": lambda value: F.pad(value, (1, 1, 1, 1), mode="reflect"),
    "picked places": lambda value: value[:, :, [0, 2]],
    "index_select of places": lambda value: value.index_select(2, torch.tensor([0, 2])),
    "prelu": nn.PReLU(CHANNELS),
    "prelu of one slope": nn.PReLU(),
    "pixel_shuffle": lambda value: F.pixel_shuffle(value, 2),
    "max of two": lambda value: torch.max(value, value * 2),
    "max over places": lambda value: value.max(dim=3, keepdim=True).values,
    "logsumexp over places": lambda value: value.logsumexp(3, keepdim=True),
    "cumsum over places": lambda value: value.cumsum(3),
    "triangle of places": lambda value: value.tril(),
    "instance normalisation": nn.InstanceNorm2d(CHANNELS, affine=True),
    "copies behind each other": lambda value: value.repeat(1, 2, 1, 1),
    "copies beside each other": lambda value: value.repeat_interleave(2, dim=1),
    "stack": lambda value: torch.stack([value, value * 2], 1).flatten(1, 2),
    "slice": lambda value: value[:, 2:7],
    "where": lambda value: torch.where(value > 0, value, value * 0.1),
    "clamp": lambda value: value.clamp(-1, 1),
    "squeeze": lambda value: value.mean((2, 3), keepdim=True).squeeze()[:, :, None, None],
    "squeeze of a dimension": lambda value: value.squeeze(1),
    "group of one": nn.GroupNorm(CHANNELS, CHANNELS),
    "upsampling": lambda value: F.interpolate(value, scale_factor=2),
    **{name: getattr(F, name, None) or getattr(torch, name) for name in ACTIVATIONS},
}
WHOLE = {
    "flip": (lambda value: value.flip(1), "another order"),
    "roll": (lambda value: torch.roll(value, 1, 1), "another order"),
    "picked channels": (lambda value: value[:, [3, 1, 2]], "positions are read by their number"),
    "index_select": (lambda value: value.index_select(1, torch.tensor([3, 1])), "positions are read by their number"),
    "one channel": (lambda value: value.select(1, 2)[:, None] + value, "one position is read by its number"),
    "argmax": (lambda value: value.argmax(1, keepdim=True) * value, "numbers of positions"),
    "max with its place": (lambda value: value.max(1, keepdim=True).indices * value, "numbers of positions"),
    "every other channel": (lambda value: value[:, ::2], "every so many positions are read"),
    "mirrored channels": (lambda value: F.pad(value[None], (0, 0, 0, 0, 1, 1), mode="replicate")[0], "padded"),
    "sort": (lambda value: value.sort(1).values, "the operator 'sort' has no rule"),
}


class Between(nn.Module):
    """Two convolutions with something between them."""

    def __init__(self, change):
        super().__init__()
        self.change = change
        self.first = nn.Conv2d(3, CHANNELS, 1)
        self.last = nn.Conv2d(change(torch.zeros(2, CHANNELS, 4, 4)).shape[1], 5, 1)

    def forward(self, image):
        return self.last(self.change(self.first(image))).mean((2, 3))


def groups_of_first(model):
    groups = analyse(model).groups
    return [group for group in groups if ("first.weight", 0) in {(m.parameter, m.dimension) for m in group.members}]


@pytest.mark.parametrize("name", CUT)
def test_channels_go_through(name):
    model = exported(Between(CUT[name]), image=(3, 4, 4))
    given, found = rows(model), groups_of_first(model)
    cuttable = [group for group in found if not group.frozen]
    assert cuttable, [group.frozen for group in found]
    for group in cuttable:
        for gone in (gone_of(group, 1), gone_of(group, 2, 1.0)):
            wanted = zeroed_answers(model, {group.name: gone}, given)
            assert difference(cut_answers(model, {group.name: rest(group, gone)}, given), wanted) < 1e-5


@pytest.mark.parametrize("name", WHOLE)
def test_channels_stay_with_the_reason(name):
    change, reason = WHOLE[name]
    model = exported(Between(change), image=(3, 4, 4))
    (group,) = groups_of_first(model)
    assert group.frozen.startswith(reason)

from __future__ import annotations

import numpy as np
import torch
from tiny_models import built, exported, normal
from torch import nn
from torch.nn import functional as F

from compress.model.joins import joins


class Residual(nn.Module):
    """Sums of convolutions, of sums, behind an activation; and sums that are none of these."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))
        self.point = nn.Conv2d(4, 1, 1)
        self.drop = nn.Dropout(0.5)

    def forward(self, image):
        first = F.relu6(self.a(image))
        second = first + self.drop(self.b(first))
        third = F.relu(self.c(second) + second)
        broadcast = third + self.point(third)
        scaled = torch.add(third, second, alpha=2)
        return (broadcast + image + 1).mean((2, 3)) + scaled.mean((2, 3))


class Averaged(Residual):
    """Averages a sum of convolutions, and an image."""

    def forward(self, image):
        return (self.a(image) + self.b(image)).mean((2, 3)) + image.mean((2, 3))


def test_sums_between_convolutions_are_found_in_order():
    rows = {"image": normal(4, 8, 8)(np.random.default_rng(0), 2)}
    model = exported(built(Residual), rows)
    first, second = joins(model)
    assert first.inputs == ("relu6", "conv2d_1")
    assert first.fused is None
    assert first.output == first.node
    assert second.inputs[1] == first.node
    assert second.fused is not None
    assert second.output == second.fused != second.node


def test_averages_of_what_comes_from_convolutions_are_found():
    rows = {"image": normal(4, 8, 8)(np.random.default_rng(0), 2)}
    total, average = joins(exported(built(Averaged), rows))
    assert average.inputs == (total.node,)
    assert average.output == average.node


def test_a_transformer_has_none(workshop):
    assert joins(workshop.tiny("attention").model) == ()

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import built, exported, normal
from torch import nn

from compress.evidence import Operators, Placement
from compress.workflow.layouts import transpositions


class Turned(nn.Module):
    """Asks for one transposition and one permutation."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, rows):
        return self.head(torch.relu(rows.transpose(1, 2)).permute(0, 2, 1).mean(1))


@pytest.fixture(scope="module")
def model():
    return exported(built(Turned), {"rows": normal(5, 4)(np.random.default_rng(0), 2)})


def placed(**counts):
    return Placement("XNNPACK", tuple(Operators(kind, count, True) for kind, count in counts.items()))


def test_transpositions_that_a_conversion_inserted_are_told_from_the_graphs_own(model):
    said = transpositions(placed(TRANSPOSE=5, FULLY_CONNECTED=1), model)
    assert said == "5 transpositions at every call (2 in the graph, 3 inserted by the conversion)"


def test_reorderings_of_blocked_layouts_count_as_well(model):
    said = transpositions(placed(Transpose=1, ReorderInput=1, ReorderOutput=2, Conv=3), model)
    assert said == "4 transpositions at every call (2 in the graph, 2 inserted by the conversion)"


def test_a_conversion_may_also_save_some(model):
    assert transpositions(placed(Transpose=1), model) == "1 transposition at every call (2 in the graph)"
    assert transpositions(placed(FULLY_CONNECTED=4), model) == ""

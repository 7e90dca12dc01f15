from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import built, exported
from torch import nn
from torch.nn import functional as F

from compress.model.cost import cost, describe, shape_for_one


def priced(module, *shape, dtype=np.float32):
    return cost(exported(built(lambda: module), {"input": np.zeros((2, *shape), dtype)}))


def macs_by_name(total):
    return {node.name: node.macs for node in total.nodes if node.macs}


CASES = {
    # module, shape of a row, multiply-adds by hand, parameters by hand
    "linear": (nn.Linear(5, 7), (5,), 5 * 7, 5 * 7 + 7),
    "linear on tokens": (nn.Linear(5, 7, bias=False), (3, 5), 3 * 5 * 7, 5 * 7),
    "convolution": (nn.Conv2d(3, 8, 3, stride=2, padding=1), (3, 10, 10), 5 * 5 * 8 * 3 * 9, 8 * 3 * 9 + 8),
    "padding same": (nn.Conv2d(3, 8, 3, padding="same"), (3, 10, 10), 10 * 10 * 8 * 3 * 9, 8 * 3 * 9 + 8),
    "depthwise": (nn.Conv2d(6, 6, 3, groups=6, bias=False), (6, 10, 10), 8 * 8 * 6 * 9, 6 * 9),
    "grouped": (nn.Conv2d(6, 4, 1, groups=2), (6, 5, 5), 5 * 5 * 4 * 3, 4 * 3 + 4),
    "one dimension": (nn.Conv1d(3, 4, 5), (3, 12), 8 * 4 * 3 * 5, 4 * 3 * 5 + 4),
    "three dimensions": (nn.Conv3d(2, 3, 2), (2, 4, 4, 4), 27 * 3 * 2 * 8, 3 * 2 * 8 + 3),
    # Every input element is multiplied with its kernel: in x kernel x out.
    "transposed": (nn.ConvTranspose2d(4, 3, 2, stride=2), (4, 5, 5), 4 * 25 * 3 * 4, 4 * 3 * 4 + 3),
    "normalisation": (nn.BatchNorm1d(5), (5,), 0, 10),
    "activation": (nn.GELU(), (5,), 0, 0),
}


@pytest.mark.parametrize("case", CASES)
def test_a_layer_costs_what_a_pencil_says(case):
    module, shape, macs, parameters = CASES[case]
    total = priced(module, *shape)
    assert (total.macs, total.parameters) == (macs, parameters)
    assert total.macs == sum(node.macs for node in total.nodes)


class SelfAttention(nn.Module):
    def __init__(self, heads, width):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


@settings(max_examples=5, deadline=None)
@given(st.integers(1, 3), st.integers(2, 6), st.integers(1, 4))
def test_attention_costs_two_products_a_head(heads, tokens, width):
    total = priced(SelfAttention(heads, heads * width), tokens, heads * width)
    projection = tokens * heads * width * 3 * heads * width
    scores = heads * tokens * tokens * width
    assert total.macs == projection + 2 * scores


def test_attention_with_keys_of_another_number_and_values_of_another_width():
    class Cross(nn.Module):
        def forward(self, x):
            q, k, v = x[:, :2, :6].unsqueeze(1), x[:, :, :6].unsqueeze(1), x.unsqueeze(1)
            return F.scaled_dot_product_attention(q, k, v).flatten(1)

    assert cost(exported(Cross(), {"x": np.zeros((2, 5, 8), np.float32)})).macs == 2 * 5 * 6 + 2 * 5 * 8


def test_products_of_activations_cost_too():
    class Products(nn.Module):
        def forward(self, x):
            square = torch.bmm(x, x.transpose(1, 2))
            return torch.matmul(square, x).flatten(1)

    assert cost(exported(Products(), {"x": np.zeros((2, 3, 5), np.float32)})).macs == 3 * 5 * 3 + 3 * 3 * 5


EINSUMS = {
    # equation, shapes of a row, multiply-adds by hand
    "bij,bkj->bik": (((3, 5), (4, 5)), 3 * 4 * 5),
    "bhqd,bhkd->bhqk": (((2, 3, 4), (2, 5, 4)), 2 * 3 * 5 * 4),
    "b...d,bd->b...": (((3, 5), (5,)), 3 * 5),
    "bij->bji": (((3, 5),), 0),
}


@pytest.mark.parametrize("equation", EINSUMS)
def test_a_written_out_product_costs_its_space_of_indices(equation):
    shapes, macs = EINSUMS[equation]

    class Product(nn.Module):
        def forward(self, a, b=None):
            return torch.einsum(equation, *([a] if b is None else [a, b])).flatten(1)

    arrays = {name: np.zeros((2, *shape), np.float32) for name, shape in zip("ab", shapes, strict=False)}
    assert cost(exported(Product(), arrays)).macs == macs


def test_costs_are_those_of_one_row_by_the_names_of_the_layers(workshop):
    assert macs_by_name(cost(workshop.tiny("mlp").model)) == {"up": 12 * 32, "middle": 32 * 32, "score": 32}
    assert macs_by_name(cost(workshop.tiny("conv").model)) == {
        "stem": 6 * 6 * 8 * 3 * 9,
        "depth": 6 * 6 * 8 * 9,
        "point": 6 * 6 * 16 * 8,
        "head": 16 * 8,
    }


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(10, 4)
        self.inner = nn.Linear(4, 4)
        self.head = nn.Linear(4, 10)
        self.head.weight = self.table.weight

    def forward(self, input):
        hidden = self.inner(torch.tanh(self.inner(self.table(input).mean(1))))
        return self.head(hidden)


def test_a_shared_weight_is_held_once_and_multiplied_each_time():
    total = priced(Shared(), 3, dtype=np.int64)
    assert total.parameters == 10 * 4 + (4 * 4 + 4) + 10
    assert total.bytes == 4 * total.parameters
    assert total.macs == 2 * 4 * 4 + 4 * 10


def test_bytes_count_buffers_and_parameters_do_not():
    total = priced(nn.BatchNorm1d(5), 5)
    assert (total.parameters, total.bytes) == (10, 4 * 20)
    assert priced(nn.Linear(5, 7).half(), 5, dtype=np.float16).bytes == 2 * (5 * 7 + 7)


def test_a_model_is_described_for_the_evidence(workshop):
    model = workshop.tiny("two-ways").model
    described = describe(model)
    assert described.digest == model.digest
    assert described.layers == 3
    assert described.inputs == ("zeta: float32[batch, 8]", "alpha: float32[batch, 4]")
    assert described.outputs == ("logit: float32[batch, 5]", "default: float32[batch, 5]")
    assert described.macs == 8 * 16 + 4 * 16 + 16 * 5
    assert described.parameters == described.macs + 16 + 16 + 5


def test_the_shape_for_one_row_sets_the_batch_to_one(workshop):
    shapes = {
        node.name: shape_for_one(node.meta.get("val"))
        for node in workshop.tiny("conv").model.program.graph.nodes
        if node.op == "call_function"
    }
    assert shapes["conv2d"] == (1, 8, 6, 6)
    assert shape_for_one(torch.zeros(3, 2)) == (3, 2)
    assert shape_for_one("no tensor") == ()

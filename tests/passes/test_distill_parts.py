"""What is compared, and how: points of real graphs, pairs, and the formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tiny_models import built, exported
from torch.nn import functional as F

from compress.passes.base import Task
from compress.passes.distill.answers import Answers
from compress.passes.distill.distill import taps_of
from compress.passes.distill.objective import Distillation, distance, relation_loss, soft_loss
from compress.passes.distill.options import DistillOptions
from compress.passes.distill.pairing import pair
from compress.passes.distill.points import attentions, feature_maps, hidden_states
from compress.passes.train.feed import Batch
from compress.passes.train.losses import TaskLoss
from compress.passes.train.network import Network
from compress.zoo import ZOO

BINARY = Task("", "binary", "score", "late", "logit")
CLASSES = Task("", "multiclass", "score", "grade", "logit")
NUMBER = Task("", "regression", "score", "amount", None)
TEXT = {"input_ids": np.ones((2, 6), np.int64), "attention_mask": np.ones((2, 6), np.int64)}
IMAGE = {"image": np.zeros((2, 3, 64, 64), np.float32)}


def zoo(name, arrays, **arguments):
    return exported(built(lambda: ZOO.load(name)(**arguments)), arrays)


def bert(layers, width=16, heads=2):
    return zoo(
        "compact_bert", TEXT, vocabulary=30, width=width, layers=layers, heads=heads, feed_forward=32, positions=8
    )


def test_blocks_of_a_post_norm_transformer_end_behind_their_normalisation():
    points = hidden_states(bert(3))
    assert [point.where for point in points] == ["blocks.0.down", "blocks.1.down", "blocks.2.down"]
    assert all("layer_norm" in point.node and point.shape == (6, 16) for point in points)


def test_blocks_of_a_pre_norm_transformer_end_with_their_sum():
    model = zoo("ft_transformer", {"numeric": np.zeros((2, 5), np.float32)}, numeric=5, width=16, layers=3, heads=2)
    points = hidden_states(model)
    assert [point.where for point in points] == ["trunk.blocks.0.down", "trunk.blocks.1.down", "trunk.blocks.2.down"]
    assert all("add" in point.node and point.shape == (6, 16) for point in points)
    found = attentions(model)
    assert [(item.heads, item.tokens, item.width, item.mask) for item in found] == [(2, 6, 8, None)] * 3


def test_layers_of_a_plain_network_end_with_their_activation():
    model = zoo("multitask_mlp", {"features": np.zeros((2, 5), np.float32)}, features=5, tasks=["late:binary"])
    assert [point.shape for point in hidden_states(model)] == [(128,), (64,)]


def test_feature_maps_are_the_last_of_each_size():
    model = zoo("mobilenet_v2", IMAGE, classes=4)
    found = [(point.extent, point.width) for point in feature_maps(model)]
    assert [extent for extent, _ in found] == [(32, 32), (16, 16), (8, 8), (4, 4), (2, 2)]
    # The narrow ends of the stages that have a residual sum.
    assert [width for _, width in found[1:]] == [24, 32, 96, 160]


def test_students_of_other_depths_are_paired_evenly():
    def where(student, teacher):
        pairing = pair(bert(student), bert(teacher), DistillOptions(hidden=1.0), "recipe.toml: passes[0]")
        return [(item.student.where[7], item.teacher.where[7]) for item in pairing.pairs]

    assert where(2, 6) == [("0", "2"), ("1", "5")]
    assert where(3, 3) == [("0", "0"), ("1", "1"), ("2", "2")]
    assert where(3, 4) == [("0", "0"), ("1", "2"), ("2", "3")]
    assert where(1, 4) == [("0", "3")]


def test_narrow_and_wide_networks_are_paired_by_size_and_by_pattern():
    student, teacher = (zoo("mobilenet_v2", IMAGE, classes=4, width=width) for width in (0.5, 1.0))
    pairing = pair(student, teacher, DistillOptions(features=1.0), "x")
    assert all(item.student.extent == item.teacher.extent for item in pairing.pairs) and len(pairing.pairs) == 5
    assert "through" in str(pairing.pairs[0])
    named = DistillOptions(features=1.0, pairs={"features.0.0": "features.0.0"})
    (only,) = pair(student, teacher, named, "x").pairs
    assert (only.student.where, only.kind) == ("features.0.0", "features")


def test_the_mask_of_padded_tokens_is_found():
    (found,) = attentions(bert(1))
    assert found.mask is not None


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_soft_losses_are_divergences_at_a_temperature(temperature):
    own, other = (torch.randn(6, 4, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    found = soft_loss([TaskLoss(CLASSES)], {"score": own}, {"score": other}, temperature)
    wanted = temperature**2 * F.kl_div(
        (own / temperature).log_softmax(1), (other / temperature).softmax(1), reduction="batchmean"
    )
    torch.testing.assert_close(found, wanted)
    p, q = (1 / (1 + math.exp(-value / temperature)) for value in (0.4, 2.0))
    two = soft_loss([TaskLoss(BINARY)], {"score": torch.tensor([2.0])}, {"score": torch.tensor([[0.4]])}, temperature)
    assert float(two) == pytest.approx(
        temperature**2 * (p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))), rel=1e-4
    )
    alike = soft_loss([TaskLoss(CLASSES)], {"score": own}, {"score": own}, temperature)
    assert float(alike) == pytest.approx(0, abs=1e-6)
    number = soft_loss(
        [TaskLoss(NUMBER, weight=2.0, variance=4.0)],
        {"score": torch.tensor([1.0])}, {"score": torch.tensor([3.0])}, temperature,
    )  # fmt: skip
    assert float(number) == pytest.approx(2.0)


def test_distances_are_in_units_of_the_teachers_variance():
    own, other = torch.randn(50, 8), torch.randn(50, 8)
    assert float(distance(own, other)) == pytest.approx(float(distance(10 * own, 10 * other)), rel=1e-4)
    assert float(distance(other, other)) == 0


def test_padded_tokens_have_no_distance():
    own, other = torch.randn(2, 5, 8), torch.randn(2, 5, 8)
    visible = torch.tensor([[True, True, False, False, False], [True] * 5])
    found = distance(own, other, visible)
    real = [torch.cat([value[0, :2], value[1]]) for value in (own, other)]
    assert float(found) == pytest.approx(float(distance(*real)), rel=1e-6)
    changed = own.clone()
    changed[0, 2:] = 9.0
    assert float(distance(changed, other, visible)) == float(found)


def test_hidden_states_of_padding_are_not_learnt():
    student, teacher = bert(1), bert(2)
    options = DistillOptions(hidden=1.0, labels=0.0)
    pairing = pair(student, teacher, options, "x")
    assert pairing.pairs[0].mask is not None
    sides = [
        Network(model, torch.device("cpu"), taps=taps_of(pairing, student=own))
        for model, own in ((student, True), (teacher, False))
    ]
    task = TaskLoss(Task("", "multiclass", student.signature.outputs[0].name, "grade", "logit"))
    objective = Distillation([task], Answers(sides[1]), pairing, options, 0, torch.device("cpu"))
    ids = torch.tensor([[3, 4, 5, 6, 7, 8], [3, 4, 5, 6, 7, 8]])
    mask = torch.tensor([[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 0]])

    def loss(ids):
        batch = Batch(np.arange(2), (ids, mask), {}, torch.zeros(2, dtype=torch.bool))
        return float(objective(*sides[0](batch.inputs), batch).detach())

    found = loss(ids)
    padding = torch.where(mask.bool(), ids, 20)
    assert found > 0 and loss(padding) == pytest.approx(found, rel=1e-5)
    # A real token counts.
    assert loss(torch.where(ids == 4, 20, ids)) != pytest.approx(found, rel=1e-3)


def relations(values, heads):
    """Softmax of scaled products between tokens, by numpy and head by head."""
    batch, old, tokens, width = values.shape
    flat = values.transpose(0, 2, 1, 3).reshape(batch, tokens, heads, old * width // heads)
    scores = np.einsum("bihd,bjhd->bhij", flat, flat) / math.sqrt(flat.shape[-1])
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def test_relations_are_those_of_the_paper_for_any_number_of_heads():
    random = np.random.default_rng(0)
    own, other = random.normal(size=(2, 2, 5, 4)), random.normal(size=(2, 4, 5, 6))
    found = relation_loss(torch.from_numpy(own), torch.from_numpy(other), 4, None)
    p, q = relations(other, 4), relations(own, 4)
    assert float(found) == pytest.approx(float((p * np.log(p / q)).sum(-1).mean()), rel=1e-4)


def test_padded_tokens_have_no_relations():
    random = np.random.default_rng(0)
    own, other = (torch.from_numpy(random.normal(size=(1, 2, 5, 4))) for _ in range(2))
    visible = torch.tensor([[True, True, True, False, False]])
    found = relation_loss(own, other, 2, visible)
    short = relation_loss(own[:, :, :3], other[:, :, :3], 2, None)
    assert float(found) == pytest.approx(float(short), rel=1e-4)
    changed = own.clone()
    changed[:, :, 3:] = 9.0
    assert float(relation_loss(changed, other, 2, visible)) == pytest.approx(float(found), rel=1e-6)

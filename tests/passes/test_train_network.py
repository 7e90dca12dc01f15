"""Training form in a copy of the graph: dropout with its own share, statistics that move, and the way back."""

from __future__ import annotations

import numpy as np
import torch
from tiny_models import built, exported
from torch import nn
from torch.nn import functional as F
from train_kit import Scorer, Tied, model_of

from compress.passes.train.network import Network, with_weights

CPU = torch.device("cpu")


class Drops(nn.Module):
    """What comes in, through two dropouts of different shares."""

    def __init__(self):
        super().__init__()
        self.some = nn.Dropout(0.1)
        self.many = nn.Dropout(0.6)
        self.head = nn.Linear(6, 6)

    def forward(self, features):
        return {"some": self.some(features), "many": self.many(features), "head": self.head(features)}


class Attends(nn.Module):
    def forward(self, features):
        tokens = features[:, None, :, None].expand(-1, -1, -1, 4)
        return {"mixed": F.scaled_dot_product_attention(tokens, tokens, tokens).flatten(1)}


class Pictures(nn.Module):
    """A convolution whose map is unrolled, which wants the channels outside."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)
        self.head = nn.Linear(5 * 4 * 4, 2)

    def forward(self, picture):
        return {"scores": self.head(torch.relu(self.conv(picture)).view(-1, 80))}


def ones(rows=4000):
    return (torch.ones(rows, 6),)


def test_every_dropout_keeps_its_own_share():
    network = Network(model_of(Drops()), CPU)
    network.train()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        outputs, _ = network(ones())
    for name, share in (("some", 0.1), ("many", 0.6)):
        assert abs(float((outputs[name] == 0).float().mean()) - share) < 0.02
        kept = outputs[name][outputs[name] != 0]
        torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - share)))
    network.eval()
    outputs, _ = network(ones(3))
    assert torch.equal(outputs["some"], torch.ones(3, 6))


def test_the_share_of_every_dropout_can_be_replaced():
    network = Network(model_of(Drops()), CPU, dropout=0.5)
    network.train()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        outputs, _ = network(ones())
    for name in ("some", "many"):
        assert abs(float((outputs[name] == 0).float().mean()) - 0.5) < 0.02


def test_attention_drops_what_it_is_told_to():
    model = model_of(Attends())
    rows = (torch.rand(8, 6),)
    plain, dropping = Network(model, CPU), Network(model, CPU, attention_dropout=0.5)
    for network in (plain, dropping):
        network.train()
    assert torch.equal(plain(rows)[0]["mixed"], plain(rows)[0]["mixed"])
    assert not torch.equal(dropping(rows)[0]["mixed"], dropping(rows)[0]["mixed"])
    dropping.eval()
    torch.testing.assert_close(dropping(rows)[0]["mixed"], plain(rows)[0]["mixed"])


def test_statistics_move_in_training_and_only_there():
    model = model_of(Scorer())
    network = Network(model, CPU)
    rows = (torch.randn(64, 6) + 3,)
    before = {name: value.clone() for name, value in network.moving.items()}
    assert {"norm.running_mean", "norm.running_var", "first.weight"} <= set(before)
    network(rows)
    assert torch.equal(network.moving["norm.running_mean"], before["norm.running_mean"])
    network.train()
    network(rows)
    wanted = 0.9 * before["norm.running_mean"] + 0.1 * F.linear(
        rows[0], before["first.weight"], before["first.bias"]
    ).mean(0)
    torch.testing.assert_close(network.moving["norm.running_mean"], wanted)
    # The Model itself has not noticed.
    torch.testing.assert_close(model.program.state_dict["norm.running_mean"], before["norm.running_mean"])
    frozen = Network(model, CPU, frozen_statistics=True)
    frozen.train()
    frozen(rows)
    assert "norm.running_mean" not in frozen.moving
    assert torch.equal(dict(frozen.module.named_buffers())["norm.running_mean"], before["norm.running_mean"])


def test_in_use_it_answers_like_the_model():
    model = model_of(Scorer())
    network = Network(model, CPU)
    rows = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    network.train()
    network.eval()
    np.testing.assert_allclose(
        network((torch.from_numpy(rows),))[0]["score"].detach(), model.run({"features": rows})["score"], atol=1e-6
    )


def test_values_inside_can_be_tapped():
    model = model_of(Scorer())
    names = [node.name for node in model.program.graph.nodes if "relu" in node.name]
    network = Network(model, CPU, taps=names)
    outputs, taps = network((torch.randn(5, 6),))
    assert list(outputs) == ["score"] and list(taps) == names
    assert taps[names[0]].shape == (5, 16) and float(taps[names[0]].detach().min()) == 0


def test_a_tied_weight_is_one_parameter_and_comes_back_as_one():
    model = model_of(Tied())
    network = Network(model, CPU)
    assert sum(value.numel() for value in network.parameters.values()) == 36 + 6 + 1
    assert network.alias("again.weight") == network.alias("up.weight")
    (name,) = [item for item in network.parameters if item in ("up.weight", "again.weight")]
    changed = with_weights(model, {name: torch.ones(6, 6)}, "ones")
    state = changed.program.state_dict
    assert state["up.weight"] is state["again.weight"] and float(state["up.weight"].detach().min()) == 1
    assert model.program.state_dict["up.weight"].detach().min() < 1
    assert changed.lineage == (*model.lineage, "ones")


def test_channels_lie_side_by_side_and_answers_stay():
    pictures = np.random.default_rng(0).normal(size=(7, 3, 6, 6)).astype(np.float32)
    model = exported(built(Pictures), {"picture": pictures[:2]})
    network = Network(model, CPU)
    assert network.parameters["conv.weight"].is_contiguous(memory_format=torch.channels_last)
    network.train()
    scores = network((torch.from_numpy(pictures),))[0]["scores"]
    np.testing.assert_allclose(scores.detach(), model.run({"picture": pictures})["scores"], atol=1e-5)
    scores.sum().backward()
    back = with_weights(model, network.moving, "same").program.state_dict
    assert back["conv.weight"].is_contiguous() and torch.equal(
        back["conv.weight"], model.program.state_dict["conv.weight"]
    )

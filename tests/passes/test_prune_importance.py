"""Importance from rows: channels that are dead, channels that no gradient reaches, and figures known by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from prune_cases import CASES
from prune_doubles import Rows
from prune_kit import exported
from torch import nn

from compress.errors import DataError, ModelError, PassError
from compress.passes.base import Context, Task, run_pass
from compress.passes.prune.from_rows import Sample, activations, first_order, fisher, gate_gradients, total_loss
from compress.passes.prune.groups import analyse
from compress.passes.prune.importance import all_importance
from compress.passes.prune.reads import find_reads
from compress.passes.train.losses import TaskLoss

BINARY = Task("", "binary", "logit", "bad", "logit")
NUMBER = Task("", "regression", "value", "price")
WIDTH = 6


class Scorer(nn.Module):
    """Two hidden layers; what a test needs is planted in the weights."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 1)

    def forward(self, features):
        return {"logit": self.head(torch.relu(self.second(torch.relu(self.first(features))))).squeeze(-1)}


class Straight(nn.Module):
    """Linear throughout: the loss by a gate is known by hand."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 3, bias=False), nn.Linear(3, 1, bias=False)

    def forward(self, features):
        return {"value": self.last(self.first(features))}


def features(rows=40, width=4):
    return np.random.default_rng(0).normal(size=(rows, width)).astype(np.float32)


def model_with(module, plant, width=4):
    model = exported(module, features=(width,))
    with torch.no_grad():
        plant(model.program.state_dict)
    return model


def figures(model, kind, rows=None, tasks=(BINARY,), names=("first.weight[0]", "second.weight[0]")):
    analysis = analyse(model)
    groups = [group for group in analysis.prunable if group.name in names]
    assert [group.name for group in groups] == list(names)
    if rows is None:
        given = features()
        rows = Rows({"features": given}, {"bad": (given.sum(1) > 0).astype(np.int64)})
    chosen = rows.sample("calibration", 1000, 0)
    return all_importance(model, analysis, groups, kind, Sample(rows, chosen, tasks))


@pytest.mark.parametrize("kind", ["activation", "taylor", "fisher"])
def test_a_dead_position_counts_nothing(kind):
    def kill(weights):
        weights["first.weight"][2] = 0
        weights["first.bias"][2] = -5.0

    found = figures(model_with(Scorer(), kill), kind)
    assert found["first.weight[0]"][2] == 0
    assert (np.delete(found["first.weight[0]"], 2) > 0).all()


@pytest.mark.parametrize(("kind", "nothing"), [("activation", False), ("taylor", True), ("fisher", True)])
def test_a_position_that_nothing_hangs_on_has_no_gradient(kind, nothing):
    def unread(weights):
        weights["head.weight"][:, 4] = 0

    found = figures(model_with(Scorer(), unread), kind)["second.weight[0]"]
    assert (found[4] == 0) == nothing


def test_weights_alone_do_not_see_a_dead_position():
    def loud(weights):
        weights["first.weight"][1] = 0
        weights["first.bias"][1] = -50.0

    model = model_with(Scorer(), loud)
    assert figures(model, "l2")["first.weight[0]"].argmax() == 1
    assert figures(model, "taylor")["first.weight[0]"].argmin() == 1


def test_the_activation_is_the_root_mean_square_of_what_is_read():
    model = model_with(Scorer(), lambda weights: None)
    weights = {name: value.detach() for name, value in model.program.state_dict.items()}
    hidden = torch.relu(torch.from_numpy(features()) @ weights["first.weight"].T + weights["first.bias"]).double()
    by_hand = hidden.square().mean(0).sqrt().numpy()
    np.testing.assert_allclose(figures(model, "activation")["first.weight[0]"], by_hand / by_hand.mean(), rtol=1e-5)


def test_the_activation_of_a_picture_is_a_mean_over_its_elements():
    module = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, 2, 3), nn.Flatten())
    model = exported(module, input=(3, 8, 8))
    images = np.random.default_rng(0).normal(size=(70, 3, 8, 8)).astype(np.float32)
    analysis = analyse(model)
    (group,) = analysis.prunable
    found = activations(model, analysis, [group], Sample(Rows({"input": images}), np.arange(70)))[group.name]
    weights = list(model.program.state_dict.values())
    hidden = torch.relu(torch.conv2d(torch.from_numpy(images), weights[0], weights[1])).detach().double()
    np.testing.assert_allclose(found, hidden.square().mean((0, 2, 3)).sqrt(), rtol=1e-5)


def test_the_gradient_of_a_gate_is_activation_times_gradient_row_by_row():
    model = model_with(Straight(), lambda weights: None, width=3)
    analysis = analyse(model)
    (group,) = analysis.prunable
    given, prices = features(5, 3), np.arange(5.0)
    sample = Sample(Rows({"features": given}, {"price": prices}), np.arange(5), (NUMBER,))
    rows = [row[group.name] for row in gate_gradients(model, analysis, [group], sample)]
    weights = {name: value.detach().double().numpy() for name, value in model.program.state_dict.items()}
    parts = (given.astype(np.float64) @ weights["first.weight"].T) * weights["last.weight"][0]
    wanted = (parts.sum(1) - prices)[:, None] * parts / prices.var()
    np.testing.assert_allclose(rows, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(first_order(iter([{"g": row} for row in rows]))["g"], np.abs(wanted).mean(0), rtol=1e-4)
    np.testing.assert_allclose(fisher(iter([{"g": row} for row in rows]))["g"], (wanted**2).mean(0) / 2, rtol=1e-4)


def test_the_fisher_information_is_what_a_quadratic_loss_grows_by():
    # Every combination of signs: inputs and noise are exactly independent, and the labels' spread is exactly 1.
    signs = np.array(list(itertools.product([-1.0, 1.0], repeat=4)))
    given, noise = signs[:, :3] * [0.5, 1.0, 2.0], signs[:, 3] * np.sqrt(0.5)
    wanted = np.array([0.4, 0.3, 0.0])
    wanted[2] = np.sqrt((0.5 - 0.2**2 - 0.3**2) / 4)

    def plant(weights):
        weights["first.weight"].copy_(torch.eye(3))
        weights["last.weight"].copy_(torch.from_numpy(wanted[None]))

    model = model_with(Straight(), plant, width=3)
    analysis = analyse(model)
    (group,) = analysis.prunable
    answers = given @ wanted
    rows = Rows({"features": given.astype(np.float32)}, {"price": answers + noise})
    found = fisher(gate_gradients(model, analysis, [group], Sample(rows, np.arange(16), (NUMBER,))))[group.name]
    # The model stands at the minimum of half the squared error; without a position the error grows by this much.
    grown = [np.mean((answers - given[:, at] * wanted[at] - answers - noise) ** 2 - noise**2) / 2 for at in range(3)]
    # A label is as likely as the model says for a variance of 1/2, in whose units the loss grows twice as much.
    np.testing.assert_allclose(found / 0.5, np.array(grown), rtol=1e-5)


def test_without_tasks_the_length_of_the_answer_counts():
    model = model_with(Straight(), lambda weights: None, width=3)
    analysis = analyse(model)
    (group,) = analysis.prunable
    given = features(6, 3)
    rows = [
        row[group.name]
        for row in gate_gradients(model, analysis, [group], Sample(Rows({"features": given}), np.arange(6)))
    ]
    weights = {name: value.detach().double().numpy() for name, value in model.program.state_dict.items()}
    parts = (given.astype(np.float64) @ weights["first.weight"].T) * weights["last.weight"][0]
    np.testing.assert_allclose(rows, parts.sum(1, keepdims=True) * parts, rtol=1e-4, atol=1e-5)


def test_figures_of_the_loss_are_compared_across_groups_and_sizes_within_one():
    def quiet(weights):
        # What the second layer gives hardly reaches the answer; the first layer's other reader does not exist.
        weights["second.weight"] *= 1e-3
        weights["second.bias"] *= 1e-3

    model = model_with(Scorer(), quiet)
    taylor, activation = figures(model, "taylor"), figures(model, "activation")
    every = np.concatenate(list(taylor.values()))
    assert every.mean() == pytest.approx(1)
    for found in activation.values():
        assert found.mean() == pytest.approx(1)


@pytest.mark.parametrize(
    ("task", "output", "labels", "wanted"),
    [
        (BINARY, [0.0, 2.0], [1, 0], np.log(2) + 2 + np.log1p(np.exp(-2.0))),
        (Task("", "binary", "logit", "bad", "probability"), [0.25, 0.5], [1, 0], np.log(4) + np.log(2)),
        (
            Task("", "multiclass", "logit", "bad", "logit"),
            [[0.0, 0.0], [0.0, np.log(3)]],
            [0, 1],
            np.log(2) + np.log(4 / 3),
        ),
        (
            Task("", "multiclass", "logit", "bad", "probability"),
            [[0.5, 0.5], [0.2, 0.8]],
            [0, 1],
            np.log(2) - np.log(0.8),
        ),
        (Task("", "regression", "logit", "bad"), [[1.0], [3.0]], [2.0, 3.0], 1.0),
    ],
)
def test_the_loss_of_a_task(task, output, labels, wanted):
    found = total_loss({"logit": torch.tensor(output)}, {"bad": torch.tensor(labels)}, [TaskLoss(task)])
    assert float(found) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("kind", ["binary", "multiclass"])
def test_an_output_that_does_not_answer_the_task_is_told(kind):
    shape = (3, 2) if kind == "binary" else (3,)
    loss = TaskLoss(Task("", kind, "logit", "bad", "logit"))
    with pytest.raises(ModelError, match=r"'logit' is \[rows.*; a (binary|multi-class) task needs"):
        total_loss({"logit": torch.zeros(shape)}, {"bad": torch.zeros(3)}, [loss])


@pytest.mark.parametrize("name", CASES)
def test_every_group_is_read_and_gradients_reach_it(name):
    make, inputs = CASES[name]
    model = exported(make(), **inputs)
    analysis = analyse(model)
    from prune_kit import rows as given_rows

    given = {item.name: tensor.numpy() for item, tensor in zip(model.signature.inputs, given_rows(model), strict=True)}
    sample = Sample(Rows(given), np.arange(2))
    read = {item.group for found in find_reads(analysis, analysis.prunable).values() for item in found}
    rows = list(gate_gradients(model, analysis, analysis.prunable, sample))
    assert len(rows) == 2
    for group in analysis.prunable:
        assert rows[0][group.name].shape == (group.size,)
        assert (rows[0][group.name] != 0).any() == (group.name in read), group.name


def test_what_importance_needs_is_told_where_it_is_missing():
    model = model_with(Scorer(), lambda weights: None)
    with pytest.raises(PassError, match="'fisher' is taken from rows, and there are none"):
        run_pass("prune", model, None, Context(options={"ratio": 0.5, "importance": "fisher"}))
    rows = Rows({"features": features(0)}, {"bad": np.zeros(0, np.int64)})
    for kind in ("activation", "taylor"):
        with pytest.raises(DataError, match="there are no calibration rows"):
            figures(model, kind, rows)
    dead = model_with(Scorer(), lambda weights: weights["head.weight"].zero_())
    with pytest.raises(PassError, match="no gradient reaches any position"):
        figures(dead, "taylor")


def test_rows_that_are_no_numbers_are_told():
    model = model_with(Scorer(), lambda weights: None)
    given = features()
    given[3, 0] = np.nan
    rows = Rows({"features": given}, {"bad": np.ones(len(given), np.int64)})
    with pytest.raises(PassError, match=r"the gradient at first.weight\[0\] is not a finite number"):
        figures(model, "taylor", rows)


@pytest.mark.parametrize("kind", ["activation", "taylor", "fisher"])
def test_the_pass_cuts_what_rows_say_is_least(kind):
    def kill(weights):
        weights["first.weight"][[0, 3]] = 0
        weights["first.bias"][[0, 3]] = -9.0

    model = model_with(Scorer(), kill)
    given = features()
    rows = Rows({"features": given}, {"bad": (given.sum(1) > 0).astype(np.int64)})
    options = {"ratio": 1 / 3, "importance": kind, "include": ["first"], "round_to": 1}
    result = run_pass("prune", model, rows, Context(options=options, tasks=(BINARY,)))
    # What went gave nothing: the answers are the same.
    np.testing.assert_allclose(
        result.model.run({"features": given})["logit"], model.run({"features": given})["logit"], atol=1e-6
    )
    assert [change.what for change in result.changed] == [f"6 -> 4 positions in 3 slices, {kind}, uniform"]

"""The pass: goals, patterns, what it reports, and that what it makes is a Model like any other."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from prune_cases import CASES
from prune_kit import ROWS, exported, rows
from torch import nn

from compress.errors import PassError, RecipeError
from compress.model.core import Model
from compress.model.cost import cost
from compress.model.pt2 import load_pt2
from compress.passes.base import Context, run_pass
from compress.passes.prune.axes import Cut
from compress.passes.prune.groups import analyse, cut
from compress.passes.prune.importance import importance
from compress.passes.prune.options import Options
from compress.passes.prune.plan import make_plan
from compress.passes.prune.work import macs
from compress.runtimes.onnxruntime.export import export


def model_of(name):
    make, inputs = CASES[name]
    return exported(make(), **inputs)


def pruned(model, data=None, **options):
    return run_pass("prune", model, data, Context(options=options))


def feeds(model, count=ROWS):
    tensors = rows(model)
    return {item.name: tensor.numpy()[:count] for item, tensor in zip(model.signature.inputs, tensors, strict=True)}


@pytest.mark.parametrize("name", ["residual", "dense", "grouped", "fused-chunk", "patches", "tied", "compact_bert"])
def test_what_comes_out_is_a_model_like_any_other(name, tmp_path):
    model = model_of(name)
    result = pruned(model, ratio=0.4, round_to=1).model
    assert cost(result).macs < cost(model).macs
    given = feeds(model)
    wanted = result.run(given)
    # Saved and loaded, ties included.
    (tmp_path / "m.pt2").write_bytes(result.to_bytes())
    again = load_pt2(tmp_path / "m.pt2")
    assert cost(again).parameters == cost(result).parameters
    for output, values in again.run(given).items():
        np.testing.assert_allclose(values, wanted[output], atol=1e-6)
    # Exported, with an open batch.
    session = onnxruntime.InferenceSession(export(result).data)
    for count in (1, ROWS):
        found = session.run(None, {key: value[:count] for key, value in given.items()})
        for values, output in zip(found, wanted, strict=True):
            np.testing.assert_allclose(values, wanted[output][:count], atol=1e-4)
    # It learns: every parameter that a row reaches gets a gradient.
    module = result.program.module(check_guards=False)
    for parameter in module.parameters():
        parameter.requires_grad_(True)
    answer = module(*rows(model))
    sum(value.sum() for value in (answer.values() if isinstance(answer, dict) else [answer])).backward()
    assert any(parameter.grad is not None for parameter in module.parameters())


@pytest.mark.parametrize("name", CASES)
def test_multiply_adds_are_told_without_making_the_cut(name):
    model = model_of(name)
    analysis = analyse(model)
    assert macs(analysis, Cut()) == cost(model).macs


def test_multiply_adds_of_a_cut_are_those_of_the_graph_that_it_makes():
    for name in ("residual", "grouped", "fused-view", "ft_transformer"):
        model = model_of(name)
        analysis = analyse(model)
        plan = make_plan(analysis, Options(ratio=0.5, round_to=1))
        axes = {group.name: group.axis for group in analysis.groups}
        told = macs(analysis, Cut({axes[key]: kept for key, kept in plan.keep.items()}))
        assert told == cost(cut(model, plan.keep)).macs


@pytest.mark.parametrize("allocation", ["uniform", "global"])
@pytest.mark.parametrize("goal", [0.3, 0.7])
def test_a_goal_in_multiply_adds_is_met(allocation, goal):
    model = model_of("mobilenet_v2")
    result = pruned(model, macs=goal, allocation=allocation, round_to=4)
    share = cost(result.model).macs / cost(model).macs
    assert goal - 0.06 < share <= goal
    assert all(" -> " in change.what for change in result.changed)


def test_a_goal_that_cannot_be_reached_tells_the_best():
    with pytest.raises(PassError, match=r"prune.macs: 0.001 of the multiply-adds cannot be reached; 0\.\d+ can"):
        pruned(model_of("residual"), macs=0.001)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ratio": 1.5}, "ratio"),
        ({}, "give one goal"),
        ({"ratio": 0.5, "macs": 0.5}, "give one goal"),
        ({"ratio": 0.5, "importanse": "l1"}, "importanse"),
        ({"ratio": 0.5, "importance": "l3"}, "importance"),
    ],
)
def test_wrong_options_are_errors_of_the_recipe(options, said):
    with pytest.raises(RecipeError, match=said):
        pruned(model_of("residual"), **options)


@pytest.mark.parametrize("key", ["include", "exclude"])
def test_a_pattern_that_matches_nothing_is_an_error(key):
    with pytest.raises(PassError, match=rf"prune.{key}: the pattern 'haed' matches no layer"):
        pruned(model_of("residual"), ratio=0.5, **{key: ["haed"]})


def test_patterns_choose_groups_and_the_others_say_why_not():
    result = pruned(model_of("residual"), ratio=0.5, round_to=1, include=["a.*"], exclude=["stem.*"])
    assert [change.where for change in result.changed if "[" in change.where] == ["a.0.weight[0]"]
    reasons = {skip.where: skip.reason for skip in result.skipped}
    assert reasons["stem.0.weight[1]"] == "an input of the model"
    assert reasons["head.weight[0]"] == "an output of the model"
    assert reasons["stem.0.weight[0]"] == "excluded by 'stem.*'"
    assert reasons["down.weight[0]"] == "matched by no include pattern"


@pytest.mark.parametrize(
    ("name", "heads", "inside"),
    [("fused-chunk", "qkv.weight[0.0]", "qkv.weight[0.1]"), ("fused-view", "qkv.weight[0.1]", "qkv.weight[0.2]")],
)
def test_heads_go_as_a_whole(name, heads, inside):
    result = pruned(model_of(name), ratio=0.5, round_to=1)
    reasons = {skip.where: skip.reason for skip in result.skipped}
    assert reasons[inside] == "inside a head: heads go as a whole"
    assert any(change.where == heads and change.what.startswith("4 -> 2") for change in result.changed)


def test_what_counts_least_goes():
    model = model_of("residual")
    analysis = analyse(model)
    group = next(group for group in analysis.prunable if group.name == "a.0.weight[0]")
    for kind in ("l1", "l2", "bn_scale"):
        scores = importance(analysis, group, kind)
        assert scores.shape == (8,) and scores.mean() == pytest.approx(1)
        plan = make_plan(
            analysis, Options(ratio=0.5, round_to=1, importance=kind, include=("a.*",), exclude=("stem.*",))
        )
        assert set(plan.keep[group.name]) == set(np.argsort(-scores)[:4])
    weights = {name: value.detach().double() for name, value in model.program.state_dict.items()}
    by_hand = weights["a.0.weight"].abs().sum((1, 2, 3)) + weights["a.3.weight"].abs().sum((0, 2, 3))
    by_hand = by_hand + sum(weights[f"a.{name}"].abs() for name in ("0.bias", "1.weight", "1.bias"))
    np.testing.assert_allclose(importance(analysis, group, "l1"), by_hand / by_hand.mean(), rtol=1e-6)


def test_widths_keep_to_a_multiple():
    result = pruned(model_of("mobilenet_v2"), ratio=0.3, round_to=8)
    left = [int(change.what.split()[2]) for change in result.changed if " -> " in change.what]
    assert left and all(width % 8 == 0 for width in left)


class Narrow(nn.Module):
    """A residual stream that is normalised, of any width; what is inside attention and the FFN keeps its own."""

    def __init__(self, width):
        super().__init__()
        self.embed = nn.Linear(5, width)
        self.one, self.two = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v = (nn.Linear(width, 12) for _ in range(3))
        self.o, self.up, self.down = nn.Linear(12, width), nn.Linear(width, 20), nn.Linear(20, width)
        self.head = nn.Linear(width, 2)

    def forward(self, values):
        hidden = self.embed(values)
        batch, steps, _ = hidden.shape
        normal = self.one(hidden)
        q, k, v = (layer(normal).view(batch, steps, 3, 4).transpose(1, 2) for layer in (self.q, self.k, self.v))
        got = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, steps, 12)
        hidden = hidden + self.o(got)
        hidden = hidden + self.down(F.gelu(self.up(self.two(hidden))))
        return self.head(hidden.mean(1))


class NarrowGroups(nn.Module):
    """Group normalisation over any number of channels."""

    def __init__(self, width, groups=3):
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(3, width, 3), nn.GroupNorm(groups, width), nn.Conv2d(width, 4, 3)

    def forward(self, image):
        return self.b(torch.relu(self.norm(self.a(image)))).mean((2, 3))


@pytest.mark.parametrize(
    ("kind", "inputs", "group", "width", "kept", "wide"),
    [
        (Narrow, {"values": (4, 5)}, "embed.weight[0]", 16, [0, 2, 3, 7, 8, 9, 13], [0, 2, 3, 7, 8, 9, 13]),
        # Positions 1 and 3 of each of three groups of four channels.
        (NarrowGroups, {"image": (3, 8, 8)}, "a.weight[0.1]", 12, [1, 3], [1, 3, 5, 7, 9, 11]),
        # The first and the last group.
        (NarrowGroups, {"image": (3, 8, 8)}, "a.weight[0.0]", 12, [0, 2], [0, 1, 2, 3, 8, 9, 10, 11]),
    ],
)
def test_a_cut_across_a_normalisation_equals_a_smaller_module(kind, inputs, group, width, kept, wide):
    model = exported(kind(width), **inputs)
    small = kind(len(wide), len(kept)) if group == "a.weight[0.0]" else kind(len(wide))
    weights = {}
    for name, value in model.program.state_dict.items():
        for place, length in enumerate(small.state_dict()[name].shape):
            if value.shape[place] == width != length:
                value = value.index_select(place, torch.tensor(wide))
        weights[name] = value
    small.load_state_dict(weights)
    found = cut(model, {group: kept}).run(feeds(model))
    with torch.no_grad():
        wanted = small.eval()(*rows(model))
    np.testing.assert_allclose(next(iter(found.values())), wanted.numpy(), atol=1e-6)


class Rows:
    """The calibration rows, as the pass asks a dataset for them."""

    def __init__(self, model):
        random = np.random.default_rng(0)
        self.images = random.normal(1.0, 2.0, size=(70, *model.signature.inputs[0].shape)).astype(np.float32)

    def sample(self, split, rows, seed):
        assert split == "calibration"
        return np.arange(min(rows, len(self.images)))

    def batches_of(self, rows, size):
        for start in range(0, len(rows), size):
            yield {"image": self.images[rows[start : start + size]]}


def test_batch_statistics_are_taken_anew():
    model = model_of("residual")
    old = pruned(model, ratio=0.4, round_to=1)
    new = pruned(model, Rows(model), ratio=0.4, round_to=1)
    assert ("batch normalisation", "statistics taken anew from 70 calibration rows") in [
        (change.where, change.what) for change in new.changed
    ]
    assert any(skip.where == "batch normalisation" for skip in old.skipped)
    means = [item.model.program.state_dict["stem.1.running_mean"] for item in (old, new)]
    assert means[0].shape == means[1].shape and not torch.allclose(*means)


def test_statistics_are_those_of_the_rows():
    from compress.passes.prune.statistics import renew_statistics

    model = model_of("residual")
    module = model.program.module(check_guards=False)
    random = np.random.default_rng(0)
    images = random.normal(3.0, 2.0, size=(40, 3, 16, 16)).astype(np.float32)
    renew_statistics(module, model, [{"image": images[:20]}, {"image": images[20:]}])
    weight = model.program.state_dict["stem.0.weight"]
    before = F.conv2d(torch.from_numpy(images), weight, padding=1).detach()
    np.testing.assert_allclose(module.get_buffer("stem.1.running_mean"), before.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(module.get_buffer("stem.1.running_var"), before.var((0, 2, 3), correction=0), rtol=1e-4)


def test_the_same_again_and_the_original_untouched():
    model = model_of("grouped")
    before = Model(model.program, model.signature, model.lineage).digest
    one, other = pruned(model, ratio=0.5), pruned(model, ratio=0.5)
    assert one.model.digest == other.model.digest != before
    assert Model(model.program, model.signature, model.lineage).digest == before


def test_groups_that_cannot_be_cut_are_refused():
    model = model_of("residual")
    with pytest.raises(ValueError, match="cannot be cut: an output of the model"):
        cut(model, {"head.weight[0]": [0]})
    with pytest.raises(ValueError, match="there is no group"):
        cut(model, {"nothing": [0]})
    with pytest.raises(ValueError, match="at least one of which must stay"):
        cut(model, {"a.0.weight[0]": []})


class Unknown(nn.Module):
    """An operator that nobody wrote a rule for."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(5, 9), nn.Linear(9, 2)

    def forward(self, values):
        return self.b(torch.sort(self.a(values), dim=-1).values)


def test_an_operator_without_a_rule_is_told_and_never_guessed():
    model = exported(Unknown(), values=(5,))
    with pytest.raises(PassError, match="the operator 'sort' has no rule"):
        pruned(model, ratio=0.5)
    (group,) = (group for group in analyse(model).groups if group.name == "a.weight[0]")
    assert group.frozen.startswith("the operator 'sort' has no rule")

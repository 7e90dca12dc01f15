"""Residual layers: found by what they compute, bypassed, and equal to a smaller module of the weights that are left."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from prune_cases import CASES, IMAGE, SEQUENCE, TEXT
from prune_kit import exported, rows
from prune_token_models import bert, distilbert
from rows_kit import check_like_any_other, dataset
from torch import nn
from torch.nn import functional as F

from compress.errors import CompressError, PassError, RecipeError
from compress.model.cost import cost
from compress.passes.base import Context, run_pass
from compress.passes.residual import residual_layers
from compress.zoo.transformer import Block as ZooBlock

WIDTH = 8


class Norm(nn.Module):
    """A normalisation that torch has no operator for in a graph: it comes out as arithmetic."""

    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * self.weight


class Block(nn.Module):
    """Attention and FFN, before, behind, or around a normalisation; or side by side."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        norm = Norm if kind == "arithmetic" else nn.LayerNorm
        self.one, self.two = norm(WIDTH), norm(WIDTH)
        self.qkv, self.back = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 12), nn.Linear(12, WIDTH)
        self.scale = nn.Parameter(torch.ones(WIDTH))

    def attend(self, x):
        query, key, value = (part.unflatten(-1, (2, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1))
        return self.back(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))

    def forward(self, x):
        if self.kind == "post":
            x = self.one(x + self.attend(x))
            return self.two(self.down(F.gelu(self.up(x))) + x)
        if self.kind == "beside":
            normal = self.one(x)
            return x + self.attend(normal) + self.down(F.gelu(self.up(normal)))
        if self.kind == "sandwich":
            return x + self.two(self.attend(self.one(x))) * self.scale
        x = x + self.attend(self.one(x)) * self.scale
        return x + self.down(F.gelu(self.up(self.two(x))))


class Stack(nn.Module):
    """Blocks with what stands before and behind them."""

    def __init__(self, kind, indices):
        super().__init__()
        self.embed, self.final, self.head = nn.Linear(5, WIDTH), nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2)
        self.blocks = nn.ModuleDict({str(index): Block(kind) for index in indices})

    def forward(self, values):
        hidden = self.embed(values)
        for block in self.blocks.values():
            hidden = block(hidden)
        return self.head(self.final(hidden).mean(1))


KINDS = ("pre", "post", "beside", "sandwich", "arithmetic")


def dropped(model, data=None, **options):
    return run_pass("drop_layers", model, data, Context(options=options), allow_no_change=True)


def stack(kind, count=4):
    return exported(Stack(kind, range(count)), values=(6, 5))


def smaller(model, module):
    """Answers of a module that was built small, with the weights that the Model has under its names."""
    held = model.program.state_dict
    module.load_state_dict({name: held[name] for name in module.state_dict()})
    with torch.no_grad():
        found = module.eval()(*rows(model))
    return next(iter(found.values())) if isinstance(found, dict) else found


def feeds(model):
    return {item.name: tensor.numpy() for item, tensor in zip(model.signature.inputs, rows(model), strict=True)}


def found_in(model):
    return residual_layers(model.program.module(check_guards=False))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keep", [[0], [1, 3], [0, 1, 2]])
def test_what_is_left_equals_a_smaller_module(kind, keep):
    model = stack(kind)
    result = dropped(model, keep=keep)
    assert [change.where for change in result.changed] == [f"blocks.{index}" for index in range(4) if index not in keep]
    wanted = smaller(model, Stack(kind, keep))
    np.testing.assert_allclose(result.model.run(feeds(model))["output"], wanted.numpy(), atol=1e-6)
    # Nothing of what was left out is carried along.
    assert {name.split(".")[1] for name in result.model.program.state_dict if name.startswith("blocks")} == set(
        map(str, keep)
    )


@pytest.mark.parametrize("pre_norm", [True, False])
def test_layers_of_the_zoo_equal_a_smaller_module(pre_norm):
    class Encoder(nn.Module):
        def __init__(self, indices):
            super().__init__()
            self.blocks = nn.ModuleDict({str(index): ZooBlock(8, 2, 16, 0.1, pre_norm=pre_norm) for index in indices})

        def forward(self, values):
            for block in self.blocks.values():
                values = block(values)
            return values

    model = exported(Encoder(range(3)), values=(4, 8))
    result = dropped(model, keep=[0, 2])
    np.testing.assert_allclose(
        result.model.run(feeds(model))["output"], smaller(model, Encoder([0, 2])).numpy(), atol=1e-6
    )


def test_a_number_a_step_and_the_last_ones():
    model = stack("post", 6)

    def gone(**options):
        return [int(change.where.split(".")[1]) for change in dropped(model, **options).changed]

    assert gone(every=2) == [1, 3, 5]
    assert gone(every=3) == [1, 2, 4, 5]
    assert gone(keep=4, by="last") == [4, 5]
    # Nobody can tell influence without rows.
    result = dropped(model, keep=4)
    assert [change.where for change in result.changed] == ["blocks.4", "blocks.5"]
    assert ("the layers' influence", "there are no rows to measure it on, so the last go") in [
        (skip.where, skip.reason) for skip in result.skipped
    ]
    assert gone(keep=1, by="last", exclude=["blocks.0", "blocks.5"]) == [2, 3, 4]


@pytest.mark.parametrize("kind", ["pre", "post"])
def test_the_layers_that_change_their_input_least_go(kind):
    torch.manual_seed(0)
    model = stack(kind, 5)
    held = model.program.state_dict
    # Two blocks that hardly add anything: what they add is made small.
    for index, size in ((1, 1e-3), (3, 1e-2)):
        for name in ("back.weight", "back.bias", "down.weight", "down.bias"):
            held[f"blocks.{index}.{name}"].data.mul_(size)
        for name in ("one.weight", "two.weight") if kind == "post" else ():
            held[f"blocks.{index}.{name}"].data.fill_(1.0)
            held[f"blocks.{index}.{name.replace('weight', 'bias')}"].data.fill_(0.0)
    if kind == "post":
        # Normalised already, so that normalising again changes nothing.
        for index in (0, 2):
            held[f"blocks.{index}.two.weight"].data.fill_(1.0)
            held[f"blocks.{index}.two.bias"].data.fill_(0.0)
    random = np.random.default_rng(0)
    given = {"values": random.normal(size=(90, 6, 5)).astype(np.float32)}
    result = dropped(model, dataset(given), keep=3)
    assert [change.where for change in result.changed] == ["blocks.1", "blocks.3"]
    told = [float(re.search(r"influence ([\d.e+-]+)", change.what).group(1)) for change in result.changed]
    assert 0 <= told[0] < told[1] < 0.01
    stays = [skip.reason for skip in result.skipped if skip.reason.startswith("it stays: influence")]
    assert len(stays) == 3


def test_influence_is_one_minus_the_cosine():
    model = stack("pre", 2)
    random = np.random.default_rng(0)
    given = {"values": random.normal(size=(70, 6, 5)).astype(np.float32)}
    result = dropped(model, dataset(given), keep=1, rows=70)
    module = Stack("pre", range(2)).eval()
    module.load_state_dict(dict(model.program.state_dict))
    with torch.no_grad():
        hidden, wanted = module.embed(torch.from_numpy(given["values"])), {}
        for name, block in module.blocks.items():
            before, hidden = hidden, block(hidden)
            wanted[f"blocks.{name}"] = float(1 - F.cosine_similarity(before, hidden, dim=-1).mean())
    said = {item.where: getattr(item, "what", "") or item.reason for item in (*result.changed, *result.skipped)}
    for name, value in wanted.items():
        assert f"influence {value:.3g}" in said[name]
    assert result.changed[0].where == min(wanted, key=wanted.get)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("compact_bert", [f"blocks.{index}" for index in range(4)]),
        ("patches", ["blocks.0", "blocks.1"]),
        ("mobilenet_v2", 10),
        ("dense", 0),
        ("grouped", 0),
        ("groups", 0),
    ],
)
def test_layers_are_found_by_what_they_compute(name, wanted):
    make, inputs = CASES[name]
    found, _ = found_in(exported(make(), **inputs))
    assert (len(found) if isinstance(wanted, int) else [layer.name for layer in found]) == wanted


class ResNet(nn.Module):
    """Residual blocks of convolutions with an activation behind the sum, and one whose shortcut is a projection."""

    def __init__(self, indices):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.stages = nn.ModuleDict(
            {
                str(index): nn.Sequential(
                    nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1)
                )
                for index in indices
            }
        )
        self.shortcut, self.main = nn.Conv2d(8, 12, 1), nn.Conv2d(8, 12, 3, padding=1)
        self.head = nn.Linear(12, 4)

    def forward(self, image):
        value = torch.relu(self.stem(image))
        for stage in self.stages.values():
            value = torch.relu(value + stage(value))
        return self.head(torch.relu(self.shortcut(value) + self.main(value)).mean((2, 3)))


def test_a_convolutional_block_goes_with_its_activation(tmp_path):
    model = exported(ResNet(range(3)), **IMAGE)
    assert [layer.name for layer in found_in(model)[0]] == ["stages.0", "stages.1", "stages.2"]
    result = dropped(model, keep=[1])
    np.testing.assert_allclose(result.model.run(feeds(model))["output"], smaller(model, ResNet([1])).numpy(), atol=1e-5)
    assert ("batch normalisation", "its statistics are the old ones: there are no rows") in [
        (skip.where, skip.reason) for skip in result.skipped
    ]
    check_like_any_other(result.model, feeds(model), tmp_path)


def test_batch_statistics_are_taken_anew():
    model = exported(ResNet(range(3)), **IMAGE)
    given = {"image": np.random.default_rng(0).normal(1, 2, size=(40, 3, 16, 16)).astype(np.float32)}
    result = dropped(model, dataset(given), keep=[2])
    assert result.changed[-1].what == "statistics taken anew from 40 calibration rows"
    stem = torch.from_numpy(given["image"])
    held = model.program.state_dict
    stem = torch.relu(F.conv2d(stem, held["stem.weight"], held["stem.bias"], padding=1))
    wanted = F.conv2d(stem, held["stages.2.0.weight"], held["stages.2.0.bias"], padding=1).mean((0, 2, 3)).detach()
    found = result.model.program.state_dict["stages.2.1.running_mean"]
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)


class Shared(nn.Module):
    """One layer that runs three times, as ALBERT's."""

    def __init__(self):
        super().__init__()
        self.layer = Block("post")

    def forward(self, values):
        for _ in range(3):
            values = self.layer(values)
        return values


def test_a_layer_that_runs_three_times_is_three_layers():
    model = exported(Shared(), values=(4, WIDTH))
    assert [layer.name for layer in found_in(model)[0]] == ["layer", "layer#2", "layer#3"]
    result = dropped(model, keep=[0, 1])
    module = Shared()
    module.load_state_dict(dict(model.program.state_dict))
    with torch.no_grad():
        wanted = module.layer(module.layer(*rows(model)))
    np.testing.assert_allclose(result.model.run(feeds(model))["output"], wanted.numpy(), atol=1e-6)


class Peeked(nn.Module):
    """The inside of a block is an output of the model."""

    def __init__(self):
        super().__init__()
        self.up, self.down, self.head = nn.Linear(5, 9), nn.Linear(9, 5), nn.Linear(5, 2)

    def forward(self, values):
        inside = F.gelu(self.up(values))
        return {"score": self.head(values + self.down(inside)), "inside": inside}


class Arithmetic(nn.Module):
    """A sum of a value and what is computed from it, and no weight between: an activation written out."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(5, 2)

    def forward(self, values):
        return self.head(0.5 * values * (1 + torch.tanh(0.8 * (values + 0.044715 * values**3))))


def test_what_is_read_elsewhere_stays_and_says_so():
    result = dropped(exported(Peeked(), values=(5,)), keep=1)
    assert not result.changed
    assert "what is computed inside is read elsewhere, too (gelu)" in [skip.reason for skip in result.skipped]


@pytest.mark.parametrize("make", [Arithmetic, lambda: nn.Sequential(nn.Linear(5, 5), nn.ReLU())])
def test_a_model_without_residual_layers_says_so(make):
    model = exported(make(), **({"values": (5,)} if make is Arithmetic else {"input": (5,)}))
    result = dropped(model, keep=1)
    assert result.model is model
    assert [skip.where for skip in result.skipped] == ["the whole model"]
    with pytest.raises(PassError, match="changed nothing: no part of it adds something to its own input"):
        run_pass("drop_layers", model, None, Context(options={"keep": 1}))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "give one goal"),
        ({"keep": 2, "every": 2}, "give one goal"),
        ({"keep": 0}, "at least one layer must stay"),
        ({"keep": []}, "at least one layer must stay"),
        ({"keep": [-1]}, "counted from 0"),
        ({"every": 1}, "every"),
        ({"kep": 1}, "did you mean 'keep'"),
    ],
)
def test_wrong_options_are_errors_of_the_recipe(options, said):
    with pytest.raises(RecipeError, match=said):
        dropped(stack("pre", 2), **options)


def test_layers_that_there_are_not_are_errors_with_those_that_there_are():
    model = stack("pre", 2)
    with pytest.raises(PassError, match=r"keep: 3 layers cannot stay: 2 can be left out \(blocks.0, blocks.1\)"):
        dropped(model, keep=3)
    with pytest.raises(PassError, match="keep: there is no layer 2 among the 2"):
        dropped(model, keep=[0, 2])
    with pytest.raises(CompressError, match=r"drop_layers.include: the pattern 'blok.*' matches no layer"):
        dropped(model, keep=1, include=["blok.*"])


@pytest.mark.parametrize("kind", ["pre", "post"])
def test_what_comes_out_is_a_model_like_any_other(kind, tmp_path):
    model = stack(kind)
    result = dropped(model, every=2).model
    assert cost(result).macs < cost(model).macs
    assert result.lineage[-1] == "drop_layers: 2 of 4"
    check_like_any_other(result, feeds(model), tmp_path)


def test_hugging_face_layers_equal_a_smaller_module():
    pytest.importorskip("transformers")
    for make, path in ((bert, "inner.bert.encoder.layer"), (distilbert, "inner.distilbert.transformer.layer")):
        module = make()
        model = exported(module, **TEXT)
        assert [layer.name for layer in found_in(model)[0]] == [f"{path}.0", f"{path}.1"]
        result = dropped(model, keep=[1])
        del module.get_submodule(path)[0]
        with torch.no_grad():
            wanted = module.eval()(*rows(model))["logits"]
        np.testing.assert_allclose(result.model.run(feeds(model))["logits"], wanted.numpy(), atol=1e-6)


def test_grouped_and_fused_attention_are_found_as_well():
    model = exported(CASES["fused-view"][0](), **SEQUENCE)
    # Its two sums have no common module, so each is a layer.
    assert len(found_in(model)[0]) == 2

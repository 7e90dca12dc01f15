from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import built, exported
from torch import nn
from torch.nn import functional as F

from compress.errors import CompressError
from compress.model.layers import MULTIPLYING, Layer, layers, select

IMAGE = {"x": np.zeros((2, 3, 8, 8), np.float32)}
ROW = {"x": np.zeros((2, 8), np.float32)}


def found(module, arrays):
    return {layer.name: layer for layer in layers(exported(built(lambda: module), arrays))}


def test_layers_are_named_by_module_in_the_order_in_which_they_run(workshop):
    names = [layer.name for layer in layers(workshop.tiny("attention").model)]
    assert names == ["codes", "lift", "q", "k", "v", "out", "head"]
    kinds = {layer.name: layer.operator for layer in layers(workshop.tiny("attention").model)}
    assert kinds["codes"] == "embedding"
    assert set(kinds.values()) == {"embedding", "linear"}


def test_a_layer_names_its_tensors(workshop):
    model = workshop.tiny("conv").model
    by_name = {layer.name: layer for layer in layers(model)}
    assert by_name["stem"] == Layer(
        name="stem",
        operator="conv2d",
        node="conv2d",
        weight="stem.weight",
        bias=None,
        input="image",
        fused=None,
        shape=(8, 3, 3, 3),
    )
    assert by_name["depth"].shape == (8, 1, 3, 3)
    assert (by_name["head"].weight, by_name["head"].bias, by_name["head"].input) == ("head.weight", "head.bias", "mean")
    values = {node.name for node in model.program.graph.nodes}
    assert all({layer.node, layer.input} <= values for layer in by_name.values())


def test_nested_and_numbered_modules_keep_their_path():
    module = nn.Sequential(nn.Sequential(nn.Linear(8, 8), nn.ReLU()), nn.ModuleDict({"head": nn.Linear(8, 2)})["head"])
    assert list(found(module, {"input": ROW["x"]})) == ["0.0", "1"]


class Repeated(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = nn.Linear(8, 8)

    def forward(self, x):
        return self.block(torch.relu(self.block(torch.tanh(self.block(x)))))


def test_repeated_calls_are_numbered():
    by_name = found(Repeated(), ROW)
    assert list(by_name) == ["block", "block#2", "block#3"]
    assert {layer.weight for layer in by_name.values()} == {"block.weight"}
    assert len({layer.node for layer in by_name.values()}) == 3
    assert (by_name["block"].fused, by_name["block#2"].fused) == (None, "relu")


CLIPPING = {
    "relu": (F.relu, True),
    "relu in place": (lambda x: F.relu(x, inplace=True), True),
    "relu6": (F.relu6, True),
    "hardtanh": (F.hardtanh, True),
    "clamp": (lambda x: x.clamp(-1, 1), True),
    "gelu": (F.gelu, False),
    "sigmoid": (torch.sigmoid, False),
}


@pytest.mark.parametrize("activation", CLIPPING)
def test_a_clipping_activation_behind_a_layer_is_fused(activation):
    function, fused = CLIPPING[activation]

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return function(self.conv(x)).mean((2, 3))

    layer = found(Net(), IMAGE)["conv"]
    assert (layer.fused is not None) == fused
    assert layer.output == (layer.fused if fused else layer.node)


def test_an_activation_is_not_fused_where_the_layer_is_read_elsewhere():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(8, 8)
            self.b = nn.Linear(8, 8)

        def forward(self, x):
            hidden = self.a(x)
            last = self.b(torch.relu(hidden) + hidden)
            return {"raw": last, "clipped": torch.relu(last)}

    by_name = found(Net(), ROW)
    assert by_name["a"].fused is None
    assert by_name["b"].fused is None


class Every(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1d = nn.Conv1d(3, 3, 3, padding="same")
        self.conv2d = nn.Conv2d(3, 3, 3, padding="same")
        self.conv3d = nn.Conv3d(3, 3, 3)
        self.same3d = nn.Conv3d(3, 3, 3, padding="same")
        self.transposed1d = nn.ConvTranspose1d(3, 3, 1)
        self.transposed2d = nn.ConvTranspose2d(3, 2, 2)
        self.transposed3d = nn.ConvTranspose3d(2, 2, 1)
        self.first = nn.Parameter(torch.randn(2, 4))
        self.product = nn.Parameter(torch.randn(4, 5))
        self.shift = nn.Parameter(torch.randn(6))
        self.affine = nn.Parameter(torch.randn(5, 6))
        self.constant = nn.Buffer(torch.randn(6, 2))

    def forward(self, x):
        line = self.transposed1d(self.conv1d(x[:, :, :, 0])).unsqueeze(-1)
        image = self.conv2d(x) + line
        image = image + self.same3d(self.conv3d(F.pad(image.unsqueeze(2), (1, 1, 1, 1, 1, 1)))).squeeze(2)
        row = self.transposed3d(self.transposed2d(image).unsqueeze(2)).mean((2, 3, 4))
        row = torch.addmm(self.shift, (row @ self.first) @ self.product, self.affine)
        return torch.mm(row, self.constant)


def test_every_weighted_operator_is_a_layer():
    by_name = found(Every(), IMAGE)
    assert {layer.operator for layer in by_name.values()} == MULTIPLYING - {"linear"}
    assert {name: layer.operator for name, layer in by_name.items()} == {
        "conv1d": "conv1d",
        "transposed1d": "conv_transpose1d",
        "conv2d": "conv2d",
        "conv3d": "conv3d",
        "same3d": "conv3d",
        "transposed2d": "conv_transpose2d",
        "transposed3d": "conv_transpose3d",
        "first": "matmul",
        "product": "matmul",
        "affine": "addmm",
        "constant": "matmul",
    }
    assert (by_name["affine"].weight, by_name["affine"].bias) == ("affine", "shift")


def test_a_product_of_two_activations_is_no_layer():
    class Net(nn.Module):
        def forward(self, x):
            return (x.unsqueeze(1) @ x.unsqueeze(2)).flatten(1)

    assert found(Net(), ROW) == {}


def some(*names):
    return [Layer(name, "linear", name, f"{name}.weight", None, "x", None, (1, 1)) for name in names]


NAMES = some("blocks.0.q", "blocks.0.k", "blocks.1.q", "head")


def chosen(include, exclude=()):
    reasons = select(NAMES, include, exclude, "scheme.mine")
    assert list(reasons) == [layer.name for layer in NAMES]
    return [name for name, reason in reasons.items() if not reason], reasons


def test_patterns_choose_by_shell_rules():
    assert chosen(("*",))[0] == [layer.name for layer in NAMES]
    assert chosen(("blocks.*.q",))[0] == ["blocks.0.q", "blocks.1.q"]
    assert chosen(("blocks.[0].?", "head"))[0] == ["blocks.0.q", "blocks.0.k", "head"]
    assert chosen(())[0] == []


def test_exclude_comes_after_include_and_gives_its_pattern_as_the_reason():
    kept, reasons = chosen(("blocks.*",), ("*.q", "blocks.0.*"))
    assert kept == []
    assert reasons == {
        "blocks.0.q": "excluded by 'blocks.0.*'",
        "blocks.0.k": "excluded by 'blocks.0.*'",
        "blocks.1.q": "excluded by '*.q'",
        "head": "matched by no include pattern",
    }


@pytest.mark.parametrize("key", ["include", "exclude"])
def test_a_pattern_that_matches_nothing_is_told(key):
    patterns = {"include": ("*",), "exclude": (), key: ("*", "haed")}
    with pytest.raises(CompressError, match=rf"scheme\.mine\.{key}: the pattern 'haed' matches no layer") as caught:
        select(NAMES, patterns["include"], patterns["exclude"], "scheme.mine")
    assert "did you mean 'head'?" in caught.value.hint


def test_patterns_are_case_sensitive():
    with pytest.raises(CompressError, match="matches no layer"):
        chosen(("HEAD",))


PATTERNS = st.lists(st.sampled_from(["*", "blocks.*", "blocks.0.*", "*.q", "*.k", "head"]), max_size=4).map(tuple)


@given(PATTERNS, PATTERNS)
def test_a_layer_is_chosen_iff_something_includes_and_nothing_excludes_it(include, exclude):
    import fnmatch

    kept, _ = chosen(include, exclude)
    for layer in NAMES:
        included = any(fnmatch.fnmatchcase(layer.name, pattern) for pattern in include)
        excluded = any(fnmatch.fnmatchcase(layer.name, pattern) for pattern in exclude)
        assert (layer.name in kept) == (included and not excluded)

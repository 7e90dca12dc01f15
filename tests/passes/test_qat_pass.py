"""Training with the rounding of the targets: what is simulated, what is learnt, what is given back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import built, exported
from torch import nn
from train_kit import Plain, Scorer, dataset, model_of, rows_of, run

from compress.errors import RecipeError
from compress.passes.base import Context, Task, run_pass
from compress.passes.qat.fake import FakeActivation, FakeWeight
from compress.passes.qat.insert import Inserter, find_sites
from compress.passes.train.network import Network
from compress.recipe import BUILTIN_SCHEMES, QuantScheme
from compress.target import Target

STATIC = BUILTIN_SCHEMES["int8-static"]
ORT = Target(schema=1, name="a", runtime="onnxruntime", cpu="any")
LITERT = Target(schema=1, name="b", runtime="litert")
CTX = {"schemes": {"int8-static": STATIC, "int8-dynamic": BUILTIN_SCHEMES["int8-dynamic"]}, "targets": (ORT,)}


def test_values_are_rounded_to_256_steps_with_zero_among_them():
    fake = FakeActivation(-0.5, 3.5)
    value = torch.linspace(-2, 5, 5001)
    rounded = fake(value).detach()
    steps = torch.unique(rounded)
    assert len(steps) == 256 and 0.0 in steps
    scale = 4.0 / 255
    inside = (value > -0.5) & (value < 3.5)
    assert float((rounded - value)[inside].abs().max()) <= scale / 2 + 1e-6
    assert abs(float(rounded.min()) + 0.5) <= scale / 2 and abs(float(rounded.max()) - 3.5) <= scale / 2
    # Such as one with no width: what was always zero.
    assert float(FakeActivation(0.0, 0.0)(torch.zeros(3)).detach().abs().max()) == 0


def test_gradients_pass_through_and_move_the_bounds():
    fake = FakeActivation(-1.0, 1.0)
    value = torch.tensor([-3.0, 0.3, 5.0], requires_grad=True)
    fake(value).sum().backward()
    assert value.grad.tolist() == pytest.approx([0.0, 1.0, 0.0], abs=1e-5)
    assert abs(float(fake.gain_high.grad)) > 0.5 and abs(float(fake.gain_low.grad)) > 0.5


@pytest.mark.parametrize(("axis", "limit"), [(0, 127), (0, 64), (1, 127), (None, 127)])
def test_weights_are_rounded_like_a_runtime_does(axis, limit):
    weight = torch.randn(6, 9, generator=torch.Generator().manual_seed(0), requires_grad=True)
    rounded = FakeWeight(axis, limit)(weight)
    dims = [place for place in range(2) if place != axis]
    scale = weight.detach().abs().amax(dim=dims, keepdim=True) / limit
    torch.testing.assert_close(rounded.detach() / scale, (weight.detach() / scale).round())
    rounded.sum().backward()
    torch.testing.assert_close(weight.grad, torch.ones(6, 9))


class Net(nn.Module):
    """Convolutions with a clipped activation, one layer read twice, a head."""

    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.two = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.left = nn.Linear(4, 3)
        self.right = nn.Linear(4, 3)

    def forward(self, image):
        hidden = torch.relu(self.norm(self.one(image)))
        pooled = self.two(hidden).mean((2, 3))
        return {"score": self.left(pooled) + self.right(pooled)}


IMAGE = {"image": np.zeros((2, 1, 4, 4), np.float32)}


def folded():
    model = exported(built(Net), IMAGE)
    return run_pass("fold_batch_norm", model, None, Context()).model


def calls(network):
    return {str(node.target): node for node in network.module.graph.nodes if node.op == "call_module"}


def test_what_is_rounded_is_what_the_runtimes_round():
    model = folded()
    only = find_sites(model, STATIC, (ORT,), "x")
    assert [layer.name for layer in only.layers] == ["one", "two", "left", "right"]
    assert only.outputs == {"one", "two"} and only.limit == 64
    both = find_sites(model, STATIC, (ORT, LITERT), "x")
    assert both.outputs == {"one", "two", "left", "right"}
    assert find_sites(model, STATIC, (LITERT,), "x").limit == 127
    # A processor with dot products keeps all eight bits.
    assert find_sites(model, STATIC, (ORT.model_copy(update={"cpu": "cortex-a76"}),), "x").limit == 127
    some = QuantScheme(name="some", dtype="int8", activations="static", exclude=("left",))
    found = find_sites(model, some, (ORT,), "x")
    assert [layer.name for layer in found.layers] == ["one", "two", "right"]
    assert [(skip.where, skip.reason) for skip in found.skipped] == [("left", "excluded by 'left'")]
    with pytest.raises(RecipeError, match="'int8-dynamic' is not static int8"):
        find_sites(model, BUILTIN_SCHEMES["int8-dynamic"], (ORT,), "x")


def test_quantizers_stand_where_values_are_read():
    model = folded()
    sites = find_sites(model, STATIC, (ORT,), "x")
    inserter = Inserter(sites, dict.fromkeys(sites.values, (-2.0, 2.0)))
    network = Network(model, torch.device("cpu"), prepare=inserter)
    # image, behind the first convolution's activation, behind the second, the pooled value that two layers read.
    assert sorted(name for name in calls(network) if "value" in name) == [f"quantize_value_{i}" for i in range(4)]
    assert len([name for name in calls(network) if "weight" in name]) == 4
    relu = next(node for node in network.module.graph.nodes if "relu" in node.name)
    assert [str(user.target)[:14] for user in relu.users] == ["quantize_value"]
    names = sites.values
    assert names[0] == "image" and "relu" in names[1]
    ranges = inserter.ranges()
    assert ranges["image"] == (-2.0, 2.0)
    # What the convolution gives before its activation has the same range.
    assert sites.layers[0].node in ranges and len(ranges) == len(names) + 1
    rows = (torch.randn(3, 1, 4, 4),)
    plain = Network(model, torch.device("cpu"))
    own, other = network(rows)[0]["score"], plain(rows)[0]["score"]
    assert not torch.equal(own, other) and float((own - other).detach().abs().max()) < 0.5


def noisy():
    """One feature is a thousand times larger than the others: plain ranges leave these few steps."""
    data = dataset(rows=1200)
    values = data.reader.inputs["features"].copy()
    values[::200, 3] = 300.0
    return rows_of({"features": values}, dict(data.labels), {
        "train": 0.6, "calibration": 0.1, "validation": 0.15, "test": 0.15})  # fmt: skip


def test_what_rounding_takes_is_learnt_back_and_the_ranges_come_with_it():
    data = noisy()
    model = run("train", model_of(Plain()), data, epochs=8, monitor="loss").model
    ctx = {**CTX, "original": model}
    result = run("qat", model, data, epochs=12, patience=12, learning_rate=0.05, monitor="loss", ctx=ctx)
    score = result.training.scores[0]
    assert score.teacher - score.before > 0.02
    assert score.teacher - score.after < 0.5 * (score.teacher - score.before)
    assert set(result.ranges) == {"features"}
    assert result.ranges["features"][1] < 250
    assert result.model.signature == model.signature
    assert not any("quantize" in str(node.target) for node in result.model.program.graph.nodes)
    assert any(change.where == "ranges" for change in result.changed)


def test_batch_normalisation_is_folded_first():
    data = dataset()
    model = run("train", model_of(Scorer()), data, epochs=4).model
    result = run("qat", model, data, labels=1.0, monitor="loss", ctx={**CTX, "original": model})
    assert not any("batch_norm" in str(node.target) for node in result.model.program.graph.nodes)
    assert result.changed[0].what.startswith("folded into")


def test_it_is_started_only_where_it_is_needed():
    data = dataset()
    model = run("train", model_of(Scorer()), data, epochs=6).model
    result = run("qat", model, data, if_loss_above=0.01, ctx={**CTX, "original": model})
    assert result.model is model and result.ranges == {}
    assert "rounding without training costs" in result.skipped[-1].reason
    needed = run("qat", run("train", model_of(Plain()), noisy(), epochs=8, monitor="loss").model, noisy(),
                 if_loss_above=0.01, learning_rate=0.05, epochs=6, monitor="metric", ctx=CTX)  # fmt: skip
    assert needed.changed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scheme": "int8"}, "scheme: there is no scheme 'int8'"),
        ({"scheme": "int8-dynamic"}, "not static int8"),
        ({"student": {"source": "a.py:build"}}, "the model that is quantized is the one that comes in"),
    ],
)
def test_what_a_recipe_says_wrongly_is_named(options, message):
    with pytest.raises(RecipeError, match=message):
        run("qat", model_of(Plain()), dataset(), ctx=CTX, **options)


def test_the_same_seed_gives_the_same_weights_and_ranges():
    data, model = noisy(), model_of(Plain())
    one, other = (run("qat", model, data, monitor="loss", ctx=CTX) for _ in range(2))
    assert one.model.digest == other.model.digest and dict(one.ranges) == dict(other.ranges)


def test_a_task_with_classes_learns_to_be_rounded():
    task = Task("", "multiclass", "score", "grade", "logit")
    random = np.random.default_rng(0)
    image = random.normal(size=(300, 1, 4, 4)).astype(np.float32)
    grade = (image.mean((1, 2, 3)) * 20).round().clip(-1, 1).astype(np.int64) + 1
    data = rows_of({"image": image}, {"grade": grade}, {"train": 0.6, "calibration": 0.1, "validation": 0.15,
                                                        "test": 0.15})  # fmt: skip
    model = exported(built(Net), IMAGE)
    ctx = {**CTX, "targets": (ORT, LITERT), "original": model}
    result = run("qat", model, data, (task,), labels=1.0, epochs=5, monitor="loss", ctx=ctx)
    assert result.training.scores[-1].after < result.training.scores[-1].before
    assert {"image"} < set(result.ranges)

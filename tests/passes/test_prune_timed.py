"""Goals of time, steps and recovery, on a target whose time is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from prune_cases import CASES
from prune_doubles import CountingMeter, Rows
from prune_kit import exported
from torch import nn

from compress.errors import PassError, RecipeError
from compress.model.cost import cost
from compress.passes.base import Change, Context, PassResult, run_pass
from compress.passes.prune.groups import analyse
from compress.passes.prune.probe import liked_multiple
from compress.passes.prune.prune import Prune


class Wide(nn.Module):
    """A residual block between two convolutions, wide enough for fine steps and small enough to be cut often."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        self.inner = nn.Sequential(nn.Conv2d(32, 64, 1), nn.ReLU(), nn.Conv2d(64, 32, 3, padding=1))
        self.down = nn.Conv2d(32, 96, 3, stride=2)
        self.head = nn.Linear(96, 4)

    def forward(self, image):
        value = self.stem(image)
        return self.head(torch.relu(self.down(value + self.inner(value))).mean((2, 3)))


@pytest.fixture(scope="module")
def wide():
    return exported(Wide(), image=(3, 8, 8))


def residual():
    make, inputs = CASES["residual"]
    return exported(make(), **inputs)


def pruned(model, *targets, data=None, tasks=(), **options):
    measure = {target.target: target for target in targets or (CountingMeter(),)}
    context = Context(options={"round_to": 1, **options}, where="recipe.toml: passes[0]", measure=measure, tasks=tasks)
    return run_pass("prune", model, data, context)


def said(result):
    return {change.where: change.what for change in result.changed}


@pytest.mark.parametrize("allocation", [None, "uniform", "global"])
def test_a_speed_up_is_met_as_measured(wide, allocation):
    # The parts are far too dear, and a fifth of the time is nothing that a cut can save.
    macs = cost(wide).macs
    meter = CountingMeter(constant_ms=macs * 1e-6 / 4, ns=1.0, alone_ms=macs * 1e-6 / 40)
    options = {} if allocation is None else {"allocation": allocation}
    result = pruned(wide, meter, speedup=1.6, **options)
    ratio = meter.ms(result.model) / meter.ms(wide)
    assert ratio == pytest.approx(1 / 1.6, rel=0.05)
    assert f"a speed-up of {1 / ratio:.2f}" in said(result)["latency on counting"]
    groups = [change for change in result.changed if "[" in change.where]
    assert groups and all(f"l2, {allocation or 'cost'}" in change.what for change in groups)


def test_milliseconds_are_those_of_the_target(wide):
    meter = CountingMeter(constant_ms=0.02, ns=20.0)
    wanted = meter.ms(wide) * 0.6
    result = pruned(wide, meter, latency_ms=wanted)
    assert meter.ms(result.model) == pytest.approx(wanted, rel=0.05)
    assert said(result)["latency on counting"].startswith(f"{meter.ms(wide):.3g} -> {meter.ms(result.model):.3g} ms")


def test_cost_keeps_more_than_the_same_share_of_everything(wide):
    meter = CountingMeter(constant_ms=0.0, ns=1.0, alone_ms=1e-6)
    kept = {}
    for allocation in ("uniform", "cost"):
        result = pruned(wide, meter, speedup=1.5, allocation=allocation)
        widths = [change.what.split() for change in result.changed if "[" in change.where]
        kept[allocation] = sum(int(words[2]) - int(words[0]) for words in widths)
    assert kept["cost"] > kept["uniform"]


def test_the_first_target_decides_unless_the_recipe_names_one():
    model = residual()
    one, other = CountingMeter("one", ns=20.0), CountingMeter("other", ns=20.0)
    assert "latency on one" in said(pruned(model, one, other, speedup=1.3))
    assert not other.titles
    assert "latency on other" in said(pruned(model, one, other, speedup=1.3, target="other"))
    with pytest.raises(
        RecipeError, match=r"recipe.toml: passes\[0\]: target: the recipe has no target 'othre'"
    ) as caught:
        pruned(model, one, other, speedup=1.3, target="othre")
    assert "did you mean 'other'" in caught.value.hint


def test_widths_keep_to_what_the_target_likes(wide):
    target = CountingMeter(width_multiple=16)
    for options, multiple in (({}, 16), ({"round_to": 4}, 4)):
        context = Context(options={"ratio": 0.3, **options}, measure={"counting": target})
        result = run_pass("prune", wide, None, context)
        left = [int(change.what.split()[2]) for change in result.changed if " -> " in change.what]
        assert left and all(width % multiple == 0 for width in left)
    assert any(width % 16 for width in left)
    # A goal that is no time measures nothing.
    assert not target.titles


@pytest.mark.parametrize(("block", "found"), [(1, 4), (8, 8), (16, 16), (32, 32), (64, 32)])
@pytest.mark.parametrize("layer", [nn.Conv2d(3, 8, 1), nn.Linear(3, 8)])
def test_the_multiple_that_a_target_likes_is_found_by_timing(block, found, layer):
    shape = (3, 4, 4) if isinstance(layer, nn.Conv2d) else (3,)
    analysis = analyse(exported(nn.Sequential(layer), input=shape))
    multiple, said = liked_multiple(analysis, CountingMeter(block=block))
    assert multiple == found
    assert said.where == "round_to on counting" and said.what.startswith(f"{found}, as measured: a width of 68 takes ")


def test_a_goal_of_time_measures_the_multiple_where_nothing_says_it(wide):
    target = CountingMeter(width_multiple=None, block=16, ns=50.0)
    result = run_pass("prune", wide, None, Context(options={"speedup": 1.4}, measure={"counting": target}))
    assert said(result)["round_to on counting"].startswith("16, as measured")
    left = [int(change.what.split()[2]) for change in result.changed if "[" in change.where]
    assert left and all(width % 16 == 0 for width in left)
    assert target.titles[:2] == ["the model as it came", "widths between multiples of 8, 16 and 32"]


def test_a_goal_that_cannot_be_reached_tells_the_best_as_measured():
    model = residual()
    meter = CountingMeter(constant_ms=0.05, ns=20.0)
    with pytest.raises(
        PassError, match=r"prune.speedup: 1000 cannot be reached on counting; [\d.]+ can, as measured"
    ) as caught:
        pruned(model, meter, speedup=1000.0)
    assert caught.value.exit_code == 2
    with pytest.raises(PassError, match=r"prune.latency_ms: 0.01 cannot be reached on counting; [\d.]+ can"):
        pruned(model, meter, latency_ms=0.01)


def test_a_model_that_is_quick_enough_is_not_cut():
    with pytest.raises(PassError, match="as it came, which is no more than the goal"):
        pruned(residual(), latency_ms=1e6)


def test_widths_that_leave_nothing_nearer_are_told():
    # One step of the only group halves the time: 1.1 times as fast cannot be had.
    meter = CountingMeter(constant_ms=0.0, ns=1e3, alone_ms=1e-6)
    result = pruned(residual(), meter, speedup=1.02, include=["a.*"], exclude=["stem.*"], round_to=4)
    reasons = {skip.where: skip.reason for skip in result.skipped}
    assert "not met within 5 %" in reasons["speedup 1.02 on counting"]
    assert "measured:" in reasons["speedup 1.02 on counting"]


def test_time_needs_a_target():
    with pytest.raises(PassError, match=r"prune\.speedup: there is no target to measure on"):
        run_pass("prune", residual(), None, Context(options={"speedup": 2.0}))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"speedup": 1.0}, r"recipe.toml: passes\[0\]: speedup must be greater than 1; got 1.0"),
        ({"latency_ms": 0}, "latency_ms must be greater than 0"),
        ({"ratio": 1.0}, "ratio must be less than 1"),
        ({"speedup": 2.0, "ratio": 0.5}, "got ratio and speedup"),
        ({"ratio": 0.5, "allocation": "cost"}, "needs a goal that costs something"),
        ({"ratio": 0.5, "ratios": {"a.*": 1.0}}, "ratios"),
        ({"ratio": 0.5, "steps": 0}, "steps"),
        ({"ratio": 0.5, "recover": {"kind": "fold_batch_norm"}}, "recover runs between steps"),
        ({"ratio": 0.5, "steps": 2, "recover": {"kind": "fold_batchnorm"}}, "there is no pass 'fold_batchnorm'"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_done(options, told):
    with pytest.raises(RecipeError, match=told):
        Prune().check(options, "recipe.toml: passes[0]")


def test_ratios_of_layers_the_last_pattern_wins():
    result = pruned(residual(), ratio=0.5, ratios={"*": 0.25, "a.*": 0.75})
    widths = said(result)
    # The group inside the block is one of `a`; the stream of all blocks is one of the others, too.
    assert widths["a.0.weight[0]"].startswith("8 -> 2")
    only = pruned(residual(), ratios={"a.*": 0.5}, exclude=["stem.*"])
    assert [change.where for change in only.changed if "[" in change.where] == ["a.0.weight[0]"]
    reasons = {skip.where: skip.reason for skip in only.skipped}
    assert reasons["down.weight[0]"] == "matched by no pattern of ratios, and there is no other goal"
    whole = pruned(residual(), ratio=0.5, ratios={"a.*": 0.0}, exclude=["stem.*"])
    assert {skip.where: skip.reason for skip in whole.skipped}["a.0.weight[0]"] == "ratios: 'a.*' is 0"
    with pytest.raises(PassError, match=r"prune\.ratios: the pattern 'z\.\*' matches no layer"):
        pruned(residual(), ratios={"z.*": 0.5})


@pytest.mark.parametrize(
    "options", [{"ratio": 0.5}, {"macs": 0.4}, {"speedup": 1.6}, {"ratio": 0.4, "allocation": "global"}]
)
def test_several_steps_reach_the_goal_of_one(wide, options):
    model = wide
    meter = CountingMeter(ns=20.0)
    several = pruned(model, meter, steps=3, **options)
    assert [line for line in several.model.lineage if line.startswith("prune")][-1].endswith("step 3 of 3")
    if "speedup" in options:
        assert meter.ms(several.model) / meter.ms(model) == pytest.approx(1 / 1.6, rel=0.05)
    elif "macs" in options:
        assert cost(several.model).macs <= 0.4 * cost(model).macs
    else:
        widths = [change.what.split() for change in several.changed if "[" in change.where]
        gone = sum(int(words[0]) - int(words[2]) for words in widths)
        assert gone / (32 + 64 + 96) == pytest.approx(options["ratio"], abs=0.03)


def test_importance_is_taken_anew_and_a_pass_runs_between_the_steps(monkeypatch):
    from compress.passes.base import PASSES

    model = residual()
    seen = []

    class Recovering:
        def apply(self, model, data, ctx):
            seen.append((cost(model).macs, dict(ctx.options), ctx.where, len(ctx.measure)))
            return PassResult(model.with_program(model.program, "recovered"), (Change("weights", "recovered"),))

    monkeypatch.setitem(globals(), "Recovering", Recovering)
    monkeypatch.setattr(PASSES, "_builtin", {**PASSES._builtin, "probe": f"{__name__}:Recovering"})
    result = pruned(model, ratio=0.6, steps=3, recover={"kind": "probe", "epochs": 2})
    assert [options for _, options, _, _ in seen] == [{"epochs": 2}] * 2
    assert cost(model).macs > seen[0][0] > seen[1][0] > cost(result.model).macs
    assert seen[0][2] == "recipe.toml: passes[0]: recover" and seen[0][3] == 1
    assert said(result)["probe behind step 2"] == "1 changes"
    assert result.model.lineage.count("recovered") == 2


def test_steps_take_the_statistics_anew_each_time_and_tell_it_once():
    model = residual()
    images = np.random.default_rng(0).normal(size=(20, 3, 16, 16)).astype(np.float32)
    result = pruned(model, data=Rows({"image": images}), ratio=0.5, steps=2)
    assert [change.what for change in result.changed if change.where == "batch normalisation"] == [
        "statistics taken anew from 20 calibration rows"
    ]

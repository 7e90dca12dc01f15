from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import answers, built, engine, exported, normal, sqnr_db, target
from torch import nn
from torch.nn import functional as F

from compress.calibrate import Ranges, calibrate
from compress.errors import InternalError, LoweringError
from compress.recipe import BUILTIN_SCHEMES
from compress.worker.errors import JobError
from compress.worker.session import open_session

STATIC, DYNAMIC = BUILTIN_SCHEMES["int8-static"], BUILTIN_SCHEMES["int8-dynamic"]


def lowered(model):
    return engine("executorch").lower(model)


def quantized(file, scheme, ranges=None):
    return engine("executorch").quantize(file, scheme, ranges, target("executorch"))


def opened(data, folder, threads=1):
    path = folder / "model.pte"
    path.write_bytes(data)
    return open_session("executorch", path, threads)


@pytest.fixture(scope="module")
def two_ways(workshop):
    return workshop.lowered("executorch", "two-ways")


def test_a_file_takes_float_rows_by_the_models_names(workshop, tmp_path):
    rows = workshop.tiny("two-ways").rows(5)
    with opened(workshop.artifact("executorch", "two-ways", STATIC).data, tmp_path) as session:
        assert {name: spec.shape for name, spec in session.inputs.items()} == {"zeta": (1, 8), "alpha": (1, 4)}
        assert {name: spec.shape for name, spec in session.outputs.items()} == {"logit": (1, 5), "default": (1, 5)}
        got = session.run(rows)
    wanted = workshop.tiny("two-ways").model.run(rows)
    assert all(sqnr_db(wanted[name], got[name]) > 25 for name in wanted)


def test_a_file_is_described_by_the_models_names(two_ways, tmp_path):
    from compress.runtimes.executorch.inspect import describe_pte

    path = tmp_path / "model.pte"
    path.write_bytes(two_ways.data)
    info = describe_pte(path)
    assert [item.name for item in info.inputs] == ["zeta", "alpha"]
    assert [item.name for item in info.outputs] == ["logit", "default"]


def test_what_is_left_outside_is_told_with_the_reason(workshop, tmp_path):
    file = workshop.lowered("executorch", "attention")
    with opened(file.data, tmp_path) as session:
        found = {item.operator: item for item in session.placement("float").operators}
    assert found["linear"].accelerated and found["linear"].count == 6
    assert found["bmm"].count == 2 and found["_softmax"].accelerated
    assert not found["embedding"].accelerated and found["embedding"].reason == "XnnpackBackend has no embedding"
    assert "rank 3" in found["mean"].reason
    assert all(item.accelerated or item.reason for item in found.values())
    told = [note for note in file.notes if note.startswith("not on XnnpackBackend: ")]
    assert len(told) == sum(not item.accelerated for item in found.values())
    # The search for rows that are masked altogether is gone with the mask.
    assert not {"where", "any", "logical_not", "eq"} & found.keys()


def test_a_convolutional_network_is_one_part(workshop):
    assert workshop.lowered("executorch", "conv").notes[0].endswith("operators, in 1 part; one row at a time")


class Masked(nn.Module):
    """Attention with a mask in which a row may see nothing at all."""

    def forward(self, q, mask):
        return F.scaled_dot_product_attention(q, q, q, attn_mask=mask[:, None] > 0)


def test_attention_with_a_mask_is_left_as_it_is():
    random = np.random.default_rng(0)
    rows = {"q": normal(2, 4, 8)(random, 6), "mask": (random.random((6, 4, 4)) > 0.5).astype(np.float32)}
    rows["mask"][:, 1] = 0
    model = exported(Masked(), rows)
    assert sqnr_db(model.run(rows)["output"], answers("executorch", lowered(model).data, rows)["output"]) > 80


def test_one_range_changes_what_it_is_the_range_of(workshop):
    """ReLU6 is part of its convolution: what leaves it counts, what is between them does not."""
    file, ranges = workshop.lowered("executorch", "conv"), workshop.ranges("conv")
    placed = {item.layer.name: item for item in file.placed}
    assert placed["stem"].fused and not placed["head"].fused

    def made(value):
        low, high = ranges.values[value]
        return quantized(file, STATIC, Ranges({**ranges.values, value: (low * 2, high * 2)}, ranges.source)).data

    kept = workshop.artifact("executorch", "conv", STATIC).data
    assert made(placed["stem"].layer.output) != kept
    assert made(placed["stem"].layer.node) == kept


@pytest.mark.slow
def test_sums_between_convolutions_are_of_integers(corner):
    made = corner("executorch", "residual")
    part = quantized(made.lowered, STATIC.model_copy(update={"exclude": ("second",)}), made.ranges)
    whole = made.quantized(STATIC)
    # A sum with a float side stays float: another file, and no worse.
    assert part.data != whole.data
    for file in (part, whole):
        got = answers("executorch", file.data, made.rows)
        assert sqnr_db(made.answers["output"], got["output"]) > 25


class Positive(nn.Module):
    """Compares, and chooses between a value and a number: none of it is the backend's."""

    def forward(self, x):
        return torch.where(x > 0.5, x, 0.25)


def test_operators_are_called_by_their_names(tmp_path):
    rows = {"x": normal(3)(np.random.default_rng(0), 8)}
    model = exported(Positive(), rows)
    with opened(lowered(model).data, tmp_path) as session:
        assert np.array_equal(session.run(rows)["output"], model.run(rows)["output"])
        found = {item.operator for item in session.placement("float").operators}
    assert {"where", "scalar_tensor"} <= found and all(name.isidentifier() for name in found)


class Odd(nn.Module):
    """What the backend multiplies in float only."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)
        self.up = nn.ConvTranspose2d(4, 4, 2, stride=2, groups=2)
        self.free = nn.Parameter(torch.randn(4, 3))

    def forward(self, x):
        return self.up(self.conv(x)).mean((2, 3)) @ self.free


def test_layers_without_an_integer_kernel_stay_float_with_the_reason():
    rows = {"x": normal(4, 6, 6)(np.random.default_rng(0), 32)}
    model = exported(built(Odd), rows)
    made = quantized(lowered(model), STATIC, calibrate(model, [rows]))
    reasons = {item.operator: item.reason for item in made.outcomes}
    assert reasons["conv2d"] == ""
    assert "transposed convolution in groups" in reasons["conv_transpose2d"]
    assert "multiplies no integers in a matmul" in reasons["matmul"]
    assert sqnr_db(model.run(rows)["output"], answers("executorch", made.data, rows)["output"]) > 25


def test_a_range_of_next_to_nothing_still_gives_a_file_that_opens():
    rows = {"input": normal(6)(np.random.default_rng(0), 16)}
    model = exported(built(lambda: nn.Linear(6, 3)), rows)
    made = quantized(lowered(model), STATIC, Ranges({"input": (-3.0, 3.0), "linear": (0.0, 1e-9)}, "given"))
    assert np.isfinite(answers("executorch", made.data, rows)["output"]).all()


def test_an_operator_that_cannot_be_converted_is_told():
    class Net(nn.Module):
        def forward(self, x):
            return torch.special.bessel_j0(x)

    with pytest.raises(LoweringError, match=r"ExecuTorch lowering failed: .*bessel_j0") as caught:
        lowered(exported(Net(), {"x": np.zeros((2, 3), np.float32)}))
    assert "leave this target out" in caught.value.hint


def test_quantizing_needs_the_graph(two_ways):
    from dataclasses import replace

    with pytest.raises(InternalError, match="without the graph"):
        quantized(replace(two_ways, graph=None), DYNAMIC)


def test_lowering_and_quantizing_print_nothing(capfd):
    quantized(lowered(exported(nn.Linear(3, 2).eval(), {"input": np.zeros((2, 3), np.float32)})), DYNAMIC)
    assert capfd.readouterr() == ("", "")


def test_programs_beside_each_other_share_one_pool_of_threads(two_ways, workshop, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    rows = workshop.tiny("two-ways").rows(3)
    with opened(two_ways.data, tmp_path) as first:
        with pytest.raises(JobError, match="one pool of threads") as caught:
            opened(two_ways.data, other, threads=2)
        assert "same number of threads" in str(caught.value.hint)
        with opened(two_ways.data, other) as second:
            assert all(np.array_equal(first.run(rows)[name], array) for name, array in second.run(rows).items())
    with opened(two_ways.data, tmp_path, threads=2) as again:
        assert again.run(rows).keys() == {"logit", "default"}


def test_a_prepared_call_outlives_its_session(two_ways, workshop, tmp_path):
    call = opened(two_ways.data, tmp_path).prepare(workshop.tiny("two-ways").rows(1))
    gc.collect()
    held = [bytes(len(two_ways.data)) for _ in range(64)]  # takes the place of what was freed
    for _ in range(20):
        call()
    assert len(held) == 64


@pytest.mark.parametrize("about", ["", "[]", "{", '{"inputs": 3, "taken": 4}', '{"inputs": ["a", "a"], "left": [1]}'])
def test_a_file_that_says_nonsense_of_itself_still_runs(about):
    from compress.worker import executorch_session

    class Module:
        def method_names(self):
            return ["about", "forward"]

        def run_method(self, name, given):
            return [about]

    assert executorch_session._told(executorch_session._read_about(Module())) == ()
    found = executorch_session._read_about(Module()).get("inputs")
    assert executorch_session._names(found, 2, "input") == ["input_0", "input_1"]


PROGRAM = """
import hashlib, sys
from tiny_models import Workshop, engine
from compress.recipe import BUILTIN_SCHEMES
shop = Workshop()
for scheme in ("float32", "int8-static"):
    print(hashlib.sha256(shop.artifact("executorch", "attention", BUILTIN_SCHEMES[scheme]).data).hexdigest())
"""


@pytest.mark.slow
def test_another_process_makes_the_same_bytes():
    root = Path(__file__).parents[2]
    path = os.pathsep.join([str(root), str(root / "tests")])
    made = {
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", PROGRAM],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(made) == 1 and len(made.pop().split()) == 2


def test_the_file_lists_what_it_holds_as_json(two_ways):
    at = two_ways.data.index(b'{"inputs"')
    about, _ = json.JSONDecoder().raw_decode(two_ways.data[at:].decode("utf-8", "replace"))
    assert about == {
        "inputs": ["zeta", "alpha"],
        "outputs": ["logit", "default"],
        "taken": {"add": 1, "linear": 3, "relu": 1, "sigmoid": 1},
        "left": [],
    }

"""What every registered pass must keep. A pass that needs rows or options says so here, once."""

from __future__ import annotations

import numpy as np
import pytest
from labelled_rows import labelled
from tiny_models import TINY
from train_kit import SHARES, rows_of

from compress.errors import PassError
from compress.model.core import Model
from compress.passes.base import PASSES, Context, Task, run_pass
from compress.recipe import BUILTIN_SCHEMES
from compress.target import Target

MODELS = sorted(TINY)


# From labels that are chance: whether an epoch is better is open, and both ends keep the rules.
LEARNS = {"epochs": 1, "batch": 16, "learning_rate": 0.05, "ema": 0.0, "labels": 1.0, "monitor": "loss"}
OPTIONS = {
    "prune": {"ratio": 0.4, "round_to": 1},
    "clip_weights": {"bits": 4},
    "drop_layers": {"every": 2},
    "low_rank": {"ratio": 0.5, "round_to": 1},
    "train": {key: value for key, value in LEARNS.items() if key != "labels"},
    "distill": LEARNS,
    "qat": LEARNS,
}


# What each tiny model is asked, for passes whose labels must tell something.
TASKS = {
    "mlp": Task("", "binary", "score", "label", "logit"),
    "conv": Task("", "multiclass", "output", "label", "logit"),
    "attention": Task("", "multiclass", "logit", "label", "logit"),
    "two-ways": Task("", "multiclass", "logit", "label", "logit"),
}
NEEDS_TELLING_LABELS = {"recalibrate"}


def given(kind, tiny, seed=0):
    """The rows and the context of a pass: drawn labels, or such that the scores are too unsure of themselves."""
    options = OPTIONS.get(kind, {})
    if kind in NEEDS_TELLING_LABELS:
        tasks = (TASKS[tiny.name],)
        rows = labelled(tiny.model, tiny.rows(1500, seed=2), tasks, lambda values: 4 * values)
        return rows, Context(seed=seed, options=options, tasks=tasks)
    random = np.random.default_rng(0)
    output = tiny.model.signature.outputs[0]
    rows = rows_of(
        {
            item.name: random.standard_normal((80, *item.shape)).astype(item.dtype)
            for item in tiny.model.signature.inputs
        },
        {"y": random.integers(0, output.shape[0] if output.shape else 2, 80)},
        SHARES,
    )
    context = Context(
        seed=seed,
        options=options,
        tasks=(Task("", "multiclass" if output.shape else "binary", output.name, "y", "logit"),),
        schemes=BUILTIN_SCHEMES,
        targets=(Target(schema=1, name="x", runtime="onnxruntime"),),
    )
    return rows, context


def applied(kind, tiny, model=None, seed=0):
    data, context = given(kind, tiny, seed)
    return run_pass(kind, model or tiny.model, data, context, allow_no_change=True)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", PASSES.names())
def test_a_pass_keeps_its_input_and_the_signature(workshop, kind, name):
    model = workshop.tiny(name).model
    before = Model(model.program, model.signature, model.lineage).digest
    rows = workshop.tiny(name).rows(3)
    answers = model.run(rows)
    result = applied(kind, workshop.tiny(name))
    assert Model(model.program, model.signature, model.lineage).digest == before
    for output, array in model.run(rows).items():
        np.testing.assert_array_equal(array, answers[output])
    assert result.model.signature == model.signature
    got = result.model.run(rows)
    assert list(got) == list(answers)
    assert {output: array.shape for output, array in got.items()} == {
        output: array.shape for output, array in answers.items()
    }


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", PASSES.names())
def test_a_pass_gives_the_same_for_the_same_seed(workshop, kind, name):
    one, other = (applied(kind, workshop.tiny(name), seed=3) for _ in range(2))
    assert one.model.digest == other.model.digest
    assert one.model.to_bytes() == other.model.to_bytes()
    assert (one.changed, one.skipped) == (other.changed, other.skipped)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", PASSES.names())
def test_a_pass_says_what_it_did(workshop, kind, name):
    model = workshop.tiny(name).model
    result = applied(kind, workshop.tiny(name))
    assert bool(result.changed) == (result.model.digest != model.digest)
    assert all(change.where and change.what for change in result.changed)
    assert all(skip.where and skip.reason for skip in result.skipped)
    steps = len(result.model.lineage) - len(model.lineage)
    assert steps == bool(result.changed)
    if not result.changed:
        with pytest.raises(PassError, match=f"the pass '{kind}' changed nothing"):
            run_pass(kind, model, *given(kind, workshop.tiny(name)))


@pytest.mark.parametrize("kind", PASSES.names())
def test_a_pass_works_behind_another_one_and_behind_an_archive(workshop, tmp_path, kind):
    from compress.model.pt2 import load_pt2

    tiny = workshop.tiny("conv")
    once = applied(kind, tiny).model
    twice = applied(kind, tiny, once).model
    assert twice.signature == tiny.model.signature
    (tmp_path / "model.pt2").write_bytes(tiny.model.to_bytes())
    assert applied(kind, tiny, load_pt2(tmp_path / "model.pt2")).model.digest == once.digest

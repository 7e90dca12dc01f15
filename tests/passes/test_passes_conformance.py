"""What every registered pass must keep. A pass that needs rows or options says so here, once."""

from __future__ import annotations

import numpy as np
import pytest
from labelled_rows import labelled
from tiny_models import TINY

from compress.errors import PassError
from compress.model.core import Model
from compress.passes.base import PASSES, Context, Task, run_pass

MODELS = sorted(TINY)


OPTIONS = {
    "prune": {"ratio": 0.4, "round_to": 1},
    "drop_layers": {"every": 2},
    "low_rank": {"ratio": 0.5, "round_to": 1},
}


# What each tiny model is asked, for passes that need labels.
TASKS = {
    "mlp": Task("", "binary", "score", "label", "logit"),
    "conv": Task("", "multiclass", "output", "label", "logit"),
    "attention": Task("", "multiclass", "logit", "label", "logit"),
    "two-ways": Task("", "multiclass", "logit", "label", "logit"),
}
NEEDS_LABELS = {"recalibrate"}


def given(kind, tiny, seed=0):
    """The rows and the context of a pass; labels are drawn so that the scores are too unsure of themselves."""
    if kind not in NEEDS_LABELS:
        return None, Context(seed=seed, options=OPTIONS.get(kind, {}))
    tasks = (TASKS[tiny.name],)
    rows = labelled(tiny.model, tiny.rows(1500, seed=2), tasks, lambda values: 4 * values)
    return rows, Context(seed=seed, options=OPTIONS.get(kind, {}), tasks=tasks)


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

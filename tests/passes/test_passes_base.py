from __future__ import annotations

import copy
from dataclasses import replace

import pytest
from tiny_models import exported

from compress.errors import CompressError, DataError, InternalError, PassError
from compress.model.edit import edited
from compress.passes.base import PASSES, Change, Context, PassResult, Skip, run_pass

DONE = (Change("up", "halved"),)


class Honest:
    """Halves a weight on a copy."""

    def apply(self, model, data, ctx):
        def halve(module):
            module.up.weight.data.mul_(0.5)

        return PassResult(edited(model, halve, "halve"), DONE)


class InPlace:
    def apply(self, model, data, ctx):
        model.program.state_dict["up.weight"].data.mul_(0.5)
        return PassResult(model, DONE)


class Renaming:
    def apply(self, model, data, ctx):
        output = replace(model.signature.outputs[0], name="other")
        return PassResult(replace(model, signature=replace(model.signature, outputs=(output,))), DONE)


class Idle:
    def apply(self, model, data, ctx):
        return PassResult(model, (), (Skip("up", "too small"), Skip("middle", "too small"), Skip("score", "too late")))


class Silent(Honest):
    def apply(self, model, data, ctx):
        return replace(super().apply(model, data, ctx), changed=())


class Failing:
    def apply(self, model, data, ctx):
        return 1 / 0


class Refusing:
    def apply(self, model, data, ctx):
        raise DataError("labels: there are none", "name one.")


class Asking:
    def apply(self, model, data, ctx):
        assert (data, ctx) == ("rows", Context(seed=5, options={"ratio": 0.5}))
        return Honest().apply(model, data, ctx)


@pytest.fixture
def run(monkeypatch, workshop):
    """Runs a pass class under the registered name `probe`."""
    model = workshop.tiny("mlp").model

    def run(kind, **arguments):
        monkeypatch.setattr(PASSES, "_builtin", {"probe": f"{__name__}:{kind.__name__}"})
        # A private copy: the passes that break the rules must not reach the shared Model.
        private = exported(
            copy.deepcopy(model.program.module()), {"features": workshop.tiny("mlp").rows(2)["features"]}
        )
        return run_pass("probe", private, arguments.pop("data", None), arguments.pop("ctx", Context()), **arguments)

    return run


def test_a_pass_that_keeps_the_rules_is_let_through(run):
    result = run(Honest)
    assert result.changed == DONE
    assert result.model.lineage[-1] == "halve"


def test_a_pass_gets_the_data_and_the_context(run):
    assert run(Asking, data="rows", ctx=Context(seed=5, options={"ratio": 0.5})).changed == DONE


def test_a_pass_that_edits_its_input_is_caught(run):
    with pytest.raises(InternalError, match="the pass 'probe' changed its input Model") as caught:
        run(InPlace)
    assert caught.value.exit_code == 4


def test_a_pass_that_edits_its_input_is_caught_when_the_digest_was_known_before(run, monkeypatch):
    class Looking(InPlace):
        def apply(self, model, data, ctx):
            assert model.digest
            return super().apply(model, data, ctx)

    monkeypatch.setitem(globals(), "Looking", Looking)
    with pytest.raises(InternalError, match="changed its input Model"):
        run(Looking)


def test_a_pass_that_changes_names_is_caught(run):
    with pytest.raises(InternalError, match="the pass 'probe' changed the signature"):
        run(Renaming)


@pytest.mark.parametrize("allow", [False, True])
def test_a_pass_that_changes_something_in_silence_is_caught(run, allow):
    with pytest.raises(InternalError, match="changed the Model and reports no change"):
        run(Silent, allow_no_change=allow)


def test_a_pass_that_changes_nothing_is_an_error_with_its_reasons(run):
    with pytest.raises(PassError, match="the pass 'probe' changed nothing: too late; too small") as caught:
        run(Idle)
    assert "allow_no_change = true" in caught.value.hint
    assert caught.value.exit_code == 2


def test_a_pass_may_change_nothing_where_the_recipe_says_so(run):
    assert [skip.where for skip in run(Idle, allow_no_change=True).skipped] == ["up", "middle", "score"]


def test_a_pass_that_fails_is_named_with_what_came_before_it(run):
    with pytest.raises(PassError, match=r"the pass 'probe' failed after model\.py:build: ZeroDivisionError") as caught:
        run(Failing)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_what_a_pass_tells_the_user_is_passed_on(run):
    with pytest.raises(DataError, match="labels: there are none"):
        run(Refusing)


def test_an_unknown_pass_names_the_known_ones(workshop):
    with pytest.raises(CompressError, match="unknown pass 'fold_batchnorm'") as caught:
        run_pass("fold_batchnorm", workshop.tiny("mlp").model, None, Context())
    assert "did you mean 'fold_batch_norm'?" in caught.value.hint

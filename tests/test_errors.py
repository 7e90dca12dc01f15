from __future__ import annotations

import pytest

from compress import errors
from compress.errors import ApprovalError, BusyError, CompressError, InternalError, did_you_mean


def every_error(kind=CompressError):
    return [kind, *(deeper for inner in kind.__subclasses__() for deeper in every_error(inner))]


def test_the_tree_holds_every_error_of_the_module():
    defined = {item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, Exception)}
    assert defined == set(every_error()) & defined
    assert len(defined) > 8


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_exit_codes_tell_input_from_internal_and_from_a_check_that_failed(kind):
    # Read from the class: an error of another room may take other arguments.
    codes = {InternalError: 4, ApprovalError: 1, BusyError: 3}
    assert kind.exit_code == next((code for base, code in codes.items() if issubclass(kind, base)), 2)


def test_an_error_says_its_hint_on_a_line_of_its_own():
    error = CompressError("recipe.toml: seed must be a valid integer; got 'x'", "write a number.")
    assert str(error).splitlines() == [error.message, f"Hint: {error.hint}"]
    assert str(CompressError("only this")) == "only this"


def test_did_you_mean_names_the_closest_and_all_known():
    assert did_you_mean("int8-sttic", ["int8-static", "float16"]).startswith("did you mean 'int8-static'?")
    assert "float16" in did_you_mean("int8-sttic", ["int8-static", "float16"])


def test_did_you_mean_lists_what_exists_when_nothing_is_close():
    hint = did_you_mean("zebra", ["int8-static", "float16"])
    assert "did you mean" not in hint
    assert hint == "known: float16, int8-static."
    assert did_you_mean("zebra", []) == "nothing is known here."

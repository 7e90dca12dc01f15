"""Files of the corner models, each lowered once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from offered import WITHOUT

if TYPE_CHECKING:
    from corners import Corner


# Tests of what tflite_runtime shares with LiteRT byte for byte: they would say the same twice.
_OF_THE_LOWERING = (
    "test_a_file_says_nothing_of_the_source_code",
    "test_an_excluded_layer_keeps_its_float_weight",
    "test_only_included_layers_are_touched",
    "test_a_look_up_in_a_shared_table_is_exact",
    "test_a_pattern_that_matches_no_layer_is_an_error",
    "test_a_look_up_may_be_named_in_a_pattern",
    "test_static_ranges_are_those_that_are_given",
    "test_one_scale_for_all_channels_is_another_file",
)


# Each file for ExecuTorch is lowered anew from the graph, in seconds: what others show, too, is slow there.
_SLOW = {"encoder", "scalars", "residual", "shapes"}
_SLOW_BUT_FOR_ANSWERS = {"attention", "two-ways"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out schemes that a runtime has not, and what two runtimes share."""
    for item in items:
        given = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        slow = _SLOW if item.name.startswith("test_a_file_answers") else _SLOW | _SLOW_BUT_FOR_ANSWERS
        if given.get("runtime") == "executorch" and given.get("name") in slow:
            item.add_marker("slow")
    left = [item for item in items if isinstance(item, pytest.Function) and _left_out(item)]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]


def _left_out(item: pytest.Function) -> bool:
    given = item.callspec.params if hasattr(item, "callspec") else {}
    runtime, scheme = given.get("runtime"), getattr(given.get("scheme"), "name", None)
    return (runtime, scheme) in WITHOUT or (runtime == "tflite_runtime" and item.originalname in _OF_THE_LOWERING)


@pytest.fixture(scope="session")
def corner() -> Callable[[str, str], Corner]:
    """Gives a corner model lowered for a runtime."""
    from corners import corner
    from tiny_models import converter

    kept = functools.cache(corner)

    @functools.cache
    def given(runtime: str, name: str) -> Corner:
        made = kept(converter(runtime), name)
        return made if made.runtime == runtime else replace(made, runtime=runtime, made={})

    return given

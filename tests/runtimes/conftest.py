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


# ExecuTorch lowers a graph anew for every file, in 2 seconds and more. What other runtimes are asked at every change,
# and here would cost a file of its own, is asked of it with `-m slow`.
_LOWERS_AGAIN = (
    "test_the_same_gives_the_same_bytes",
    "test_only_included_layers_are_touched",
    "test_one_scale_for_all_channels_is_another_file",
    "test_reduced_files_are_smaller_than_float_ones_where_weights_count",
    "test_a_look_up_may_be_named_in_a_pattern",
    "test_other_schemes_need_no_ranges",
    "test_a_model_without_layers_realises_nothing",
)
_LARGE = ("encoder", "scalars", "residual", "shapes")
_QUICK_WHEN_DYNAMIC = ("mlp", "conv", "shared")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out schemes that a runtime has not, and what two runtimes share."""
    for item in items:
        if isinstance(item, pytest.Function) and _costs_a_file(item):
            item.add_marker("slow")
    left = [item for item in items if isinstance(item, pytest.Function) and _left_out(item)]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]


def _costs_a_file(item: pytest.Function) -> bool:
    given = item.callspec.params if hasattr(item, "callspec") else {}
    if given.get("runtime") != "executorch":
        return False
    dynamic = "scheme" in given and given["scheme"].activations == "dynamic"
    again = item.originalname in _LOWERS_AGAIN or given.get("name") in _LARGE
    return again or (dynamic and given.get("name") not in _QUICK_WHEN_DYNAMIC)


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

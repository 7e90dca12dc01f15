"""Files of the corner models, each lowered once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from corners import Corner

# ExecuTorch lowers a graph anew for every file, in 2 seconds and more. What other runtimes are asked at every change,
# and here would cost a file of its own, is asked of it with `-m slow`.
LOWERS_AGAIN = {
    "test_the_same_gives_the_same_bytes",
    "test_only_included_layers_are_touched",
    "test_one_scale_for_all_channels_is_another_file",
    "test_reduced_files_are_smaller_than_float_ones_where_weights_count",
    "test_a_look_up_may_be_named_in_a_pattern",
    "test_other_schemes_need_no_ranges",
    "test_a_model_without_layers_realises_nothing",
}
LARGE = {"encoder", "scalars", "residual", "shapes"}
QUICK_WHEN_DYNAMIC = {"mlp", "conv", "shared"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks as slow what costs ExecuTorch a file that nothing else needs."""
    for item in items:
        given = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        if given.get("runtime") != "executorch":
            continue
        dynamic = "scheme" in given and given["scheme"].activations == "dynamic"
        again = item.originalname in LOWERS_AGAIN or given.get("name") in LARGE
        if again or (dynamic and given.get("name") not in QUICK_WHEN_DYNAMIC):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def corner() -> Callable[[str, str], Corner]:
    """Gives a corner model lowered for a runtime."""
    from corners import corner

    return functools.cache(corner)

"""Files of the corner models, each lowered once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from corners import Corner


@pytest.fixture(scope="session")
def corner() -> Callable[[str, str], Corner]:
    """Gives a corner model lowered for a runtime."""
    from corners import corner
    from tiny_models import converter

    kept = functools.cache(corner)
    return lambda runtime, name: replace(kept(converter(runtime), name), runtime=runtime)

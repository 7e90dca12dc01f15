"""What the tests share. Nothing here imports torch before a test asks for it: most rooms never load it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

# The same examples every time: who changes something else must not meet a new one. HYPOTHESIS_PROFILE=search looks on.
settings.register_profile("same", derandomize=True)
settings.register_profile("search", settings.get_profile("default"))
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

if TYPE_CHECKING:
    from tiny_models import Workshop


@pytest.fixture(scope="session")
def workshop() -> Workshop:
    """Tiny Models, their ranges and their files, each made once."""
    from tiny_models import Workshop

    return Workshop()

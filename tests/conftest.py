"""What the tests share. Nothing here imports torch before a test asks for it: most rooms never load it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tiny_models import Workshop


@pytest.fixture(scope="session")
def workshop() -> Workshop:
    """Tiny Models, their ranges and their files, each made once."""
    from tiny_models import Workshop

    return Workshop()

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

# Two processes of the suite share the cores: threads of torch that spin while they wait stand in each other's way.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

if TYPE_CHECKING:
    from tiny_models import Workshop


def pytest_configure(config: pytest.Config) -> None:
    """Lets the old interpreter's environment lie where the next run finds it."""
    import old_interpreter

    if config.cache is not None:
        old_interpreter.cache = config.cache.mkdir("edge-compress")


@pytest.fixture
def tflite_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes tflite-runtime run in a test, or skips it with the reason."""
    import old_interpreter

    old_interpreter.python()
    monkeypatch.setenv("EDGE_COMPRESS_CACHE", str(old_interpreter.cache))


@pytest.fixture(scope="session")
def workshop() -> Workshop:
    """Tiny Models, their ranges and their files, each made once."""
    from tiny_models import Workshop

    return Workshop()

"""What a long run tells whoever waits for it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives what is happening. The command line shows it; a test may keep it."""

    def step(self, title: str) -> None:
        """A new step begins; the one before has ended."""

    def advance(self, done: int, total: int) -> None:
        """The current step has done `done` of `total` parts."""


class Silent:
    """Shows nothing."""

    def step(self, title: str) -> None:
        """Does nothing."""

    def advance(self, done: int, total: int) -> None:
        """Does nothing."""

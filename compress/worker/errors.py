"""What a worker tells instead of a traceback."""

from __future__ import annotations


class JobError(Exception):
    """A job that cannot be done, worded for the person who asked for it.

    Args:
        message: What is wrong, naming the file, the input and the value.
        hint: The remedy; empty where there is none.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

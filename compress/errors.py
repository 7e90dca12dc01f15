"""The one tree of errors. Each carries what to tell the user and the exit code of the command."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CompressError(Exception):
    """Something the user can act on.

    Args:
        message: What is wrong, naming the file, the key and the value.
        hint: The remedy, as a sentence or a command; empty where there is none.
    """

    exit_code = 2

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nHint: {self.hint}" if self.hint else self.message


class RecipeError(CompressError):
    """A recipe or a target file says something that cannot be."""


class DataError(CompressError):
    """Rows, columns, labels or splits that cannot be used."""


class ModelError(CompressError):
    """A model that cannot be read, exported or described."""


class UnsafeFileError(ModelError):
    """A file that would run code, or claim more than it holds, if it were opened."""


class PassError(CompressError):
    """A pass that failed, changed nothing, or broke its contract."""


class LoweringError(CompressError):
    """A model that a runtime cannot take, or a scheme of which nothing could be realised."""


class MissingPackageError(CompressError):
    """An optional package is not installed; the hint names the extra that brings it."""


class StoreError(CompressError):
    """An output folder or a stored file that cannot be read or written."""


class ApprovalError(StoreError):
    """What may not be approved, or is no longer what was approved."""

    exit_code = 1


class BusyError(StoreError):
    """Another check measures here: nothing was measured."""

    exit_code = 3


class WorkerError(CompressError):
    """A worker process that crashed, hung or could not start. An error of its target, not of the run."""


class InternalError(CompressError):
    """A rule of the program itself was broken."""

    exit_code = 4


def did_you_mean(value: str, known: Iterable[str]) -> str:
    """Returns a hint with the closest known name, or the list of them.

    Args:
        value: What the user wrote.
        known: The names that exist.
    """
    names = sorted(known)
    # Of equally close names, as `x-cpu` and `x-rtx` are to `x`, the first of the alphabet.
    close = sorted(
        difflib.get_close_matches(value, names, n=len(names) or 1, cutoff=0.6),
        key=lambda name: (-difflib.SequenceMatcher(None, name, value).ratio(), name),
    )
    if close:
        return f"did you mean {close[0]!r}? Known: {', '.join(names)}."
    return f"known: {', '.join(names)}." if names else "nothing is known here."

"""Keeps converters from writing over the terminal."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Sends what native code and Python print to a scratch file for as long as it is open.

    Converters write to the file descriptors themselves, so redirecting `sys.stdout` is not enough.
    """
    level = logging.root.manager.disable
    with (
        tempfile.TemporaryFile("w") as scratch,
        warnings.catch_warnings(),
        _kept(1) as out,
        _kept(2) as error,
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            _flush()
            os.dup2(scratch.fileno(), 1)
            os.dup2(scratch.fileno(), 2)
            # Whoever replaced the streams of Python (a test, a notebook) does not write to the descriptors.
            with contextlib.redirect_stdout(scratch), contextlib.redirect_stderr(scratch):
                yield
        finally:
            _flush()
            os.dup2(out, 1)
            os.dup2(error, 2)
            logging.disable(level)


@contextlib.contextmanager
def _kept(descriptor: int) -> Iterator[int]:
    copy = os.dup(descriptor)
    try:
        yield copy
    finally:
        os.close(copy)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()

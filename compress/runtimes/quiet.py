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
    sys.stdout.flush()
    sys.stderr.flush()
    level = logging.root.manager.disable
    saved = [os.dup(1), os.dup(2)]
    with tempfile.TemporaryFile() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            os.dup2(scratch.fileno(), 1)
            os.dup2(scratch.fileno(), 2)
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(saved[0], 1)
            os.dup2(saved[1], 2)
            for descriptor in saved:
                os.close(descriptor)
            logging.disable(level)

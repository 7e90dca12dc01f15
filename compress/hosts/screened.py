"""Files that a runtime would execute when it opens them are screened before a worker, here or elsewhere, gets them."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from compress.model.screen import screened_pt2

# Runtimes whose reader runs what a file says; see `compress.model.screen_pt2`.
RUNTIMES = ("torch",)


@contextmanager
def screened(job: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Gives a job whose artifacts are copies of what passed the screen, and states their sha256.

    Nobody can change them afterwards: the copies lie in a folder of this user alone, and a worker opens only a file
    that has one of the stated hashes. Jobs of other runtimes are given as they are.

    Raises:
        UnsafeFileError: If a file carries code or claims more than it holds.
        ModelError: If it is missing or damaged.
    """
    if job.get("runtime") not in RUNTIMES:
        yield job
        return
    with tempfile.TemporaryDirectory(prefix="edge-compress-") as folder:
        changed, hashes = dict(job), []
        for key in ("artifact", "rival"):
            if job.get(key):
                data = screened_pt2(Path(str(job[key]))).getbuffer()
                copy = Path(folder) / key / Path(str(job[key])).name
                copy.parent.mkdir()
                copy.write_bytes(data)
                changed[key] = str(copy)
                hashes.append(hashlib.sha256(data).hexdigest())
        yield {**changed, "screened": hashes}

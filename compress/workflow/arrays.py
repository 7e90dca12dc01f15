"""Arrays as the result of a finished step."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from compress.store.cache import Cache

Arrays = dict[str, NDArray[np.generic]]


def kept_arrays(cache: Cache, step: str) -> Arrays | None:
    """Returns the arrays of a finished step; None where it has not been done."""
    kept = cache.get(step)
    if kept is None:
        return None
    with np.load(io.BytesIO(cache.require(kept["blobs"]["arrays"])), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def keep_arrays(cache: Cache, step: str, arrays: Mapping[str, NDArray[np.generic]]) -> None:
    """Keeps the arrays of a step for the next run."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    cache.put(step, {}, arrays=buffer.getvalue())

"""Files damaged in a way that a seed decides."""

from __future__ import annotations

import numpy as np

# Behind it, what says that a file is of its kind stays whole.
MARK = 8


def fuzzed(data: bytes, seed: int, flips: int) -> bytes:
    """Returns the bytes with some of them changed, anywhere behind the mark."""
    random = np.random.default_rng(seed)
    changed = bytearray(data)
    for at in random.choice(np.arange(MARK, len(data)), flips, replace=False):
        changed[at] ^= int(random.integers(1, 256))
    return bytes(changed)

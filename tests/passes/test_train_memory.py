"""Memory that a step leaves is kept, and given back when training ends."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from compress.passes.train.memory import kept_memory

# In a process of its own: what the heap of this one looks like depends on the tests before.
FAULTS = """
import resource
import numpy
from compress.passes.train.memory import kept_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        numpy.ones(8_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

with kept_memory():
    faults()
    print(faults())
print(faults())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="this C library has no mallopt")
def test_large_blocks_are_faulted_in_once():
    told = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True, timeout=100)
    kept, anew = map(int, told.stdout.split())
    assert kept < 50 < anew


def test_it_is_closed_after_an_error():
    with pytest.raises(KeyError), kept_memory():
        raise KeyError

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from compress.worker.arrays import read_arrays, write_arrays
from compress.worker.errors import JobError


def test_names_of_models_survive(tmp_path: Path) -> None:
    arrays = {
        "file": np.arange(3),
        "logits/0:1": np.float32([[1.5, np.nan]]),
        "ünder score": np.array(True),
        "half": np.ones((2, 0), np.float16),
    }
    write_arrays(tmp_path / "a.npz", arrays)
    back = read_arrays(tmp_path / "a.npz")
    assert list(back) == list(arrays)
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype
        np.testing.assert_array_equal(back[name], array)


def test_python_objects_are_neither_written_nor_read(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="Python objects"):
        write_arrays(tmp_path / "a.npz", {"x": np.array([{}])})
    assert not (tmp_path / "a.npz").exists()
    np.savez(tmp_path / "b.npz", x=np.array([{}]))
    with pytest.raises(JobError, match=r"b\.npz"):
        read_arrays(tmp_path / "b.npz")


@pytest.mark.parametrize("content", [None, b"", b"not a zip", b"PK\x03\x04broken"])
def test_a_broken_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "c.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(JobError, match=r"c\.npz"):
        read_arrays(path)


def test_a_single_array_is_not_taken_for_named_ones(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    with path.open("wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(JobError, match=r"d\.npz"):
        read_arrays(path)

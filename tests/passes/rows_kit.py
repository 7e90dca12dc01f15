"""Rows that a pass may read, and the proof that what it makes is a Model like any other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import tiny_models
from numpy.typing import NDArray

from compress.data.base import Dataset
from compress.data.memory import MemoryReader
from compress.model.core import Model
from compress.model.cost import cost
from compress.model.pt2 import load_pt2
from compress.runtimes.litert.export import export as export_litert
from compress.runtimes.onnxruntime.export import export as export_onnx

Arrays = Mapping[str, NDArray[Any]]


def dataset(inputs: Arrays, **parts: int) -> Dataset:
    """Rows as a dataset, dealt in their order: `calibration=70, validation=10`; all to calibration without."""
    rows = len(next(iter(inputs.values())))
    dealt = parts or {"calibration": rows}
    ends = np.cumsum([0, *dealt.values()])
    splits = {name: np.arange(start, end) for name, start, end in zip(dealt, ends[:-1], ends[1:], strict=True)}
    every = {name: splits.get(name, np.empty(0, np.int64)) for name in ("train", "calibration", "validation", "test")}
    return Dataset("rows", np.arange(rows).astype(str), MemoryReader(inputs), {}, {}, every)


def check_like_any_other(model: Model, given: Arrays, tmp_path: Path, *, litert: bool = True) -> None:
    """Saved and loaded with its ties, exported to both runtimes, with an open batch: the answers stay."""
    wanted = model.run(given)
    (tmp_path / "m.pt2").write_bytes(model.to_bytes())
    again = load_pt2(tmp_path / "m.pt2")
    assert cost(again).parameters == cost(model).parameters
    assert (again.digest, again.signature) == (model.digest, model.signature)
    for output, values in again.run(given).items():
        np.testing.assert_allclose(values, wanted[output], atol=1e-6)
    scale = max(float(np.abs(values).max()) for values in wanted.values())
    session = onnxruntime.InferenceSession(export_onnx(model).data)
    for count in (1, len(next(iter(given.values())))):
        fed = {name: values[:count] for name, values in given.items()}
        found = dict(zip([item.name for item in session.get_outputs()], session.run(None, fed), strict=True))
        for output, values in wanted.items():
            np.testing.assert_allclose(found[output], values[:count], atol=1e-4 * scale)
    if litert:
        found = tiny_models.answers("litert", export_litert(model).data, dict(given))
        for output, values in wanted.items():
            np.testing.assert_allclose(found[output], values, atol=1e-4 * scale)

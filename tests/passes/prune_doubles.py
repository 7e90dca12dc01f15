"""What a pass is handed by a workflow, made of arrays and of arithmetic: rows with labels, and a meter that counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compress.model.core import Model
from compress.model.cost import cost
from compress.passes.base import Timing


class Rows:
    """Calibration rows, as a pass asks a dataset for them."""

    def __init__(self, inputs, labels=None):
        self.inputs = inputs
        self.labels = labels or {}

    def sample(self, split, rows, seed):
        assert split == "calibration"
        return np.arange(min(rows, len(next(iter(self.inputs.values())))))

    def batches_of(self, rows, size):
        for start in range(0, len(rows), size):
            yield {name: values[rows[start : start + size]] for name, values in self.inputs.items()}

    def label(self, name):
        return self.labels[name]


class CountingMeter:
    """A target whose time is known: a constant, and some nanoseconds for each multiply-add.

    What it says of parts is too much by `alone_ms` each, as where a part pays for being called. Of what `probe` times,
    widths cost as much as the next multiple of `block`.
    """

    def __init__(self, target="counting", constant_ms=0.05, ns=2.0, alone_ms=0.01, width_multiple=1, block=1):
        self.target = target
        self.width_multiple = width_multiple
        self.titles: list[str] = []
        self.counts: list[int] = []
        self._constant_ms, self._ns, self._alone_ms, self._block = constant_ms, ns, alone_ms, block

    def ms(self, model: Model) -> float:
        if model.lineage == ("probe",):
            width = -(-next(iter(model.program.state_dict.values())).shape[0] // self._block) * self._block
            return 1e-3 * (width * width + 32 * width)
        constant = self._alone_ms if model.lineage == ("part",) else self._constant_ms
        return constant + cost(model).macs * self._ns * 1e-6

    def race(self, title: str, pairs: Sequence[tuple[Model, Model]], processes: int) -> list[Timing]:
        self.titles.append(title)
        self.counts.append(len(pairs))
        found = []
        for one, other in pairs:
            ratio = self.ms(other) / self.ms(one)
            found.append(Timing(self.ms(one), self.ms(other), ratio, ratio * 0.99, ratio * 1.01, processes))
        return found

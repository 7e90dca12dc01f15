"""Activation ranges: one streaming calibrator on the graph, consumed by every runtime's quantizer."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.export.graph_signature import InputKind

from compress.errors import DataError, InternalError
from compress.model.core import Model, state
from compress.model.layers import NORMALIZED


@dataclass(frozen=True)
class Ranges:
    """Smallest and largest value of every float activation of a graph, by the name of its value.

    `source` says how they were found (`min-max over 512 rows`).
    """

    values: Mapping[str, tuple[float, float]]
    source: str

    def of(self, name: str) -> tuple[float, float]:
        """Returns the range of a value, widened to contain zero: zero must be exact in integer arithmetic.

        A value that was always zero gets `(0, 1)`: a range without width has no step to count in.

        Raises:
            InternalError: If the value was not observed.
        """
        if name not in self.values:
            raise InternalError(
                f"no range was observed for the value {name!r}", "calibrate the same graph that is lowered."
            )
        low, high = self.values[name]
        return min(low, 0.0), max(high, 0.0) if low or high else 1.0

    @property
    def digest(self) -> str:
        """sha256 over the names and the bits of the ranges."""
        # Adding zero turns -0.0 into 0.0: which of them is met first depends on the batches.
        text = "\n".join(
            f"{name} {(low + 0.0).hex()} {(high + 0.0).hex()}" for name, (low, high) in sorted(self.values.items())
        )
        return hashlib.sha256(text.encode()).hexdigest()


class MinMax:
    """Running minimum and maximum. Two numbers of state, however many rows pass; NaN once seen stays."""

    def __init__(self) -> None:
        self.low = math.inf
        self.high = -math.inf

    def update(self, value: torch.Tensor) -> None:
        """Takes in one batch of a value."""
        low, high = (float(bound) for bound in torch.aminmax(value))
        # Python's min and max drop a NaN or keep it depending on the order of their arguments.
        self.low = math.nan if math.isnan(low) or math.isnan(self.low) else min(self.low, low)
        self.high = math.nan if math.isnan(high) or math.isnan(self.high) else max(self.high, high)


class _Watch(torch.fx.Interpreter):
    """Runs the lifted graph and shows each float value to its observer, then forgets the value.

    A layer normalisation is seen twice, also before its own scale and shift: converters fold these into the layers
    behind, which then read that value.
    """

    def __init__(self, model: Model) -> None:
        super().__init__(model.program.graph_module)
        self.observers: dict[str, MinMax] = {}

    def run_node(self, n: torch.fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, torch.Tensor) and value.is_floating_point() and value.numel():
            self._observe(n.name, value)
            if n.op == "call_function" and str(n.target) == "aten.layer_norm.default" and n.args[2:3] != (None,):
                before, shape = self.fetch_args_kwargs_from_env(n)[0][:2]
                epsilon = n.args[4] if len(n.args) > 4 and isinstance(n.args[4], float) else 1e-5
                self._observe(n.name + NORMALIZED, torch.nn.functional.layer_norm(before, shape, eps=epsilon))
        return value

    def _observe(self, name: str, value: torch.Tensor) -> None:
        self.observers.setdefault(name, MinMax()).update(value)


def calibrate(model: Model, batches: Iterable[Mapping[str, NDArray[np.generic]]]) -> Ranges:
    """Streams rows through the graph and returns the range of every float value.

    Peak memory is that of one batch, whatever the number of rows.

    Args:
        model: The graph that will be lowered.
        batches: Input name to `[rows, *shape]`, one batch at a time.

    Raises:
        DataError: If there are no rows, or a row gives values that are not finite.
    """
    watch = _Watch(model)
    held = _held_arguments(model)
    rows = 0
    with torch.no_grad():
        for batch in batches:
            user = iter(model.arguments(batch))
            rows += len(next(iter(batch.values())))
            watch.run(*(next(user) if value is None else value for value in held))
    if not rows:
        raise DataError("calibration: there are no rows", "give data.split.calibration a larger share.")
    broken = [
        name for name, seen in watch.observers.items() if not math.isfinite(seen.low) or not math.isfinite(seen.high)
    ]
    inputs = {item.name for item in model.signature.inputs}
    broken = [name for name in broken if name not in inputs]
    finite = {
        name: (seen.low, seen.high)
        for name, seen in watch.observers.items()
        if math.isfinite(seen.low) and math.isfinite(seen.high)
    }
    needed = _read_by_layers(model)
    hit = [name for name in broken if name in needed]
    if hit:
        raise DataError(
            f"calibration: the value {hit[0]!r} of the graph is NaN or infinite on calibration rows",
            "rows with missing values? Set data.missing to a number, or let the model replace NaN.",
        )
    return Ranges(finite, f"min-max over {rows} rows")


def _held_arguments(model: Model) -> list[torch.Tensor | None]:
    """What fills each placeholder of the lifted graph: a held tensor, or None where a user's input goes."""
    tensors = state(model.program)
    result: list[torch.Tensor | None] = []
    for specification in model.program.graph_signature.input_specs:
        if specification.kind is InputKind.USER_INPUT:
            result.append(None)
        else:
            result.append(tensors[str(specification.target)])
    return result


def _read_by_layers(model: Model) -> set[str]:
    from compress.model.layers import layers

    found = layers(model)
    return {layer.input for layer in found} | {layer.output for layer in found}

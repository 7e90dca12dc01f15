"""Rows through the graph, one batch at a time; every float value is shown to its observer and forgotten."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from compress.calibrate.method import Method
from compress.calibrate.observers import MinMax, Observer
from compress.calibrate.ranges import Ranges
from compress.errors import DataError
from compress.model.core import Model
from compress.model.layers import NORMALIZED, layers
from compress.model.watch import in_parts, watch

MIN_MAX = Method()


def calibrate(model: Model, batches: Iterable[Mapping[str, NDArray[np.generic]]], method: Method = MIN_MAX) -> Ranges:
    """Streams rows through the graph and returns the range of every float value.

    Peak memory is that of one batch and of one observer a value, whatever the number of rows; a batch whose values
    would be large passes in parts. Values that no layer touches have their minimum and maximum by any method: no
    quantizer asks for them.

    A layer normalisation is seen twice, also before its own scale and shift (`NAME.normalized`): converters fold
    these into the layers behind, which then read that value.

    Args:
        model: The graph that will be lowered.
        batches: Input name to `[rows, *shape]`, one batch at a time.
        method: How a range is found.

    Raises:
        DataError: If there are no rows, or a row gives values that are not finite.
    """
    near = _near_layers(model)
    observers: dict[str, Observer] = {}
    rows = 0

    def see(name: str, value: NDArray[Any], count: int) -> None:
        if name not in observers:
            observers[name] = method.observer() if name in near else MinMax()
        observers[name].update(value, count)

    for batch in in_parts(model, batches):
        count = len(next(iter(batch.values())))
        rows += count
        watch(model, batch, _showing(see, count))
    if not rows:
        raise DataError("calibration: there are no rows", "give data.split.calibration a larger share.")
    broken = [name for name, observer in observers.items() if not observer.finite]
    inputs = {item.name for item in model.signature.inputs}
    hit = [name for name in broken if name in near and name not in inputs]
    if hit:
        raise DataError(
            f"calibration: the value {hit[0]!r} of the graph is NaN or infinite on calibration rows",
            "rows with missing values? Set data.missing to a number, or let the model replace NaN.",
        )
    found = {name: observer.bounds() for name, observer in observers.items() if observer.finite}
    return Ranges(found, f"{method} over {rows} rows")


def _showing(see: Callable[[str, NDArray[Any], int], None], rows: int) -> Callable[[torch.fx.Node, Any, Any], None]:
    """What looks at each node's value of a batch."""

    def look(node: torch.fx.Node, value: Any, arguments: tuple[Any, ...]) -> None:
        if not isinstance(value, torch.Tensor) or not value.is_floating_point() or not value.numel():
            return
        see(node.name, _array(value), rows)
        if str(node.target) == "aten.layer_norm.default" and arguments[2:3] != (None,):
            before, shape = arguments[:2]
            epsilon = arguments[4] if len(arguments) > 4 and isinstance(arguments[4], float) else 1e-5
            see(node.name + NORMALIZED, _array(torch.nn.functional.layer_norm(before, shape, eps=epsilon)), rows)

    return look


def _array(value: torch.Tensor) -> NDArray[Any]:
    # NumPy has no bfloat16.
    return value.float().numpy() if value.dtype == torch.bfloat16 else value.numpy()


def _near_layers(model: Model) -> set[str]:
    """The values that a quantizer may ask for: what goes into a layer, leaves it, and leaves its activation."""
    found = layers(model)
    read = {layer.input for layer in found}
    return read | {name + NORMALIZED for name in read} | {n for layer in found for n in (layer.node, layer.output)}

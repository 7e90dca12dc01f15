"""A graph run on a batch of rows while somebody looks at every value, which is then forgotten."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.export.graph_signature import InputKind

from compress.model.core import Model, state

# The C library hands larger blocks back to the system at once, and each call would fault them in anew: for MobileNetV2
# on 224 x 224, 16 rows at a time took 2.2 times as long as 3.
_LARGEST_VALUE_BYTES = 16 << 20
Batch = Mapping[str, NDArray[np.generic]]
# Is shown a node, its value and the values of its arguments.
Look = Callable[[torch.fx.Node, Any, tuple[Any, ...]], None]


def watch(model: Model, batch: Batch, look: Look) -> None:
    """Runs the lifted graph and shows inputs and every call's value; a value lives until its last reader has run.

    Args:
        model: Whose graph runs. Nodes have the names of the graph's values.
        batch: Input name to `[rows, *shape]`.
        look: What is shown; it must not keep a tensor, or memory grows.
    """
    user = iter(model.arguments(batch))
    with torch.no_grad():
        _Watch(model, look).run(*(next(user) if value is None else value for value in held_arguments(model)))


def in_parts(model: Model, batches: Iterable[Batch]) -> Iterator[Batch]:
    """Deals batches to parts of which no value of the graph is larger than 16 MiB, but for that of a single row.

    Args:
        model: Whose graph they will pass.
        batches: Input name to `[rows, *shape]`; the first row of the first one passes to see how large values are.
    """
    size = 0
    for batch in batches:
        size = size or max(1, _LARGEST_VALUE_BYTES // _largest_value(model, batch))
        for start in range(0, len(next(iter(batch.values()))), size):
            yield {name: array[start : start + size] for name, array in batch.items()}


def _largest_value(model: Model, batch: Batch) -> int:
    """Bytes of the largest value that the first row of a batch makes."""
    largest = 1

    def look(node: torch.fx.Node, value: Any, arguments: tuple[Any, ...]) -> None:
        nonlocal largest
        if isinstance(value, torch.Tensor):
            largest = max(largest, value.nbytes)

    watch(model, {name: array[:1] for name, array in batch.items()}, look)
    return largest


def held_arguments(model: Model) -> list[torch.Tensor | None]:
    """Returns what fills each placeholder of the lifted graph: a held tensor, or None where a user's input goes."""
    tensors = state(model.program)
    return [
        None if item.kind is InputKind.USER_INPUT else tensors[str(item.target)]
        for item in model.program.graph_signature.input_specs
    ]


class _Watch(torch.fx.Interpreter):
    def __init__(self, model: Model, look: Look) -> None:
        super().__init__(model.program.graph_module)
        self._look = look
        specifications = model.program.graph_signature.input_specs
        self._held = {getattr(item.arg, "name", "") for item in specifications if item.kind is not InputKind.USER_INPUT}

    def run_node(self, n: torch.fx.Node) -> Any:
        value = super().run_node(n)
        if n.op == "call_function" or (n.op == "placeholder" and n.name not in self._held):
            arguments = self.fetch_args_kwargs_from_env(n)[0] if n.op == "call_function" else ()
            self._look(n, value, arguments)
        return value

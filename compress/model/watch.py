"""A graph run on a batch of rows while somebody looks at every value, which is then forgotten."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.export.graph_signature import InputKind

from compress.model.core import Model, state

# Is shown a node, its value and the values of its arguments.
Look = Callable[[torch.fx.Node, Any, tuple[Any, ...]], None]


def watch(model: Model, batch: Mapping[str, NDArray[np.generic]], look: Look) -> None:
    """Runs the lifted graph and shows inputs and every call's value; a value lives until its last reader has run.

    Args:
        model: Whose graph runs. Nodes have the names of the graph's values.
        batch: Input name to `[rows, *shape]`.
        look: What is shown; it must not keep a tensor, or memory grows.
    """
    user = iter(model.arguments(batch))
    with torch.no_grad():
        _Watch(model, look).run(*(next(user) if value is None else value for value in held_arguments(model)))


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

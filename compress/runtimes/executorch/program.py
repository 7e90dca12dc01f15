"""From a graph module to a `.pte`: what the backend took, what it left and why, and where each weight went."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule, Node

from compress.errors import CompressError, LoweringError
from compress.model.core import Model
from compress.model.layers import MULTIPLYING, Layer
from compress.runtimes.base import cause_of

BACKEND = "XnnpackBackend"
# The method beside `forward` that gives what a `.pte` has no other place for, as JSON: see `Lowering.about`.
ABOUT = "about"
_WHY = "executorch.backends.xnnpack.partition"
# Operators that compute nothing: how a program holds its parts together, and where numbers change their type.
_GLUE = ("getitem", "executorch_call_delegate", "quantize_", "dequantize_", "choose_qparams", "sym_size")


@dataclass(frozen=True)
class Left:
    """Operators of one kind that no backend took, and why."""

    operator: str
    count: int
    reason: str


@dataclass(frozen=True)
class Lowering:
    """A graph in the dialect of ExecuTorch, its parts handed to the backend.

    Attributes:
        manager: ExecuTorch's own object; `data` makes the file out of it.
        parts: For each part that the backend took, in the order in which they run, the full names of its weights.
        outside: Full names of the weights that other operators read, each with the operator.
        taken: Operator -> how many of it are inside the parts.
        left: What is outside of them.
        refused: Full name of a weight -> why the backend refused the operator that multiplies it.
    """

    manager: Any
    parts: tuple[frozenset[str], ...]
    outside: Mapping[str, str]
    taken: Mapping[str, int]
    left: tuple[Left, ...]
    refused: Mapping[str, str]

    def about(self, model: Model) -> str:
        """Returns the JSON that the file carries: real names, and what the backend took and left."""
        return json.dumps(
            {
                "inputs": [item.name for item in model.signature.inputs],
                "outputs": [item.name for item in model.signature.outputs],
                "taken": dict(sorted(self.taken.items())),
                "left": [[item.operator, item.count, item.reason] for item in self.left],
            }
        )

    def data(self, model: Model) -> bytes:
        """Returns the file."""
        from executorch.exir import EdgeProgramManager

        named = EdgeProgramManager(
            self.manager.exported_program(), {ABOUT: self.about(model)}, self.manager.compile_config
        )
        return bytes(named.to_executorch().buffer)


def to_edge(module: GraphModule, model: Model) -> Lowering:
    """Lowers a graph module with the Model's signature, one row at a time, to the XNNPACK backend.

    Raises:
        LoweringError: If ExecuTorch cannot take an operator.
    """
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    with torch.no_grad(), _reasons() as refused:
        program = torch.export.export(module, model.example(rows=1), strict=False)
        manager = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    return _read(manager, refused)


@contextmanager
def failing(what: str) -> Iterator[None]:
    """Turns whatever ExecuTorch raises into an error that names the operator."""
    try:
        yield
    except CompressError:
        raise
    except Exception as error:
        raise LoweringError(
            f"{what}: {cause_of(error)}", "replace that operator in the model, or leave this target out."
        ) from error


def _read(manager: Any, refused: Mapping[str, str]) -> Lowering:
    program = manager.exported_program()
    held = _held(program)
    parts: list[frozenset[str]] = []
    taken: Counter[str] = Counter()
    left: Counter[tuple[str, str]] = Counter()
    outside: dict[str, str] = {}
    why: dict[str, str] = {}
    for node in program.graph.nodes:
        if node.op != "call_function":
            continue
        if node.target is torch.ops.higher_order.executorch_call_delegate:
            inside = getattr(program.graph_module, str(node.args[0].target)).original_module
            parts.append(frozenset(_held(inside).values()))
            taken.update(_name(item) for item in inside.graph.nodes if _computes(item))
            continue
        for name in _weights(node, held):
            outside.setdefault(name, _name(node))
            why.setdefault(name, refused.get(node.name, ""))
        if _computes(node):
            left[_name(node), refused.get(node.name) or f"{BACKEND} has no {_name(node)}"] += 1
    rest = tuple(Left(name, count, reason) for (name, reason), count in sorted(left.items()))
    return Lowering(manager, tuple(parts), outside, taken, rest, why)


def _weights(node: Node, held: Mapping[str, str]) -> Iterator[str]:
    """Full names of what a node reads, also through what widens integers."""
    for given in node.all_input_nodes:
        if given.name in held:
            yield held[given.name]
        elif "dequantize_" in str(given.target):
            yield from _weights(given, held)


def _held(program: Any) -> dict[str, str]:
    signature = program.graph_signature
    return {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }


def _computes(node: Node) -> bool:
    return node.op == "call_function" and not any(word in str(node.target) for word in _GLUE)


def _name(node: Node) -> str:
    """`aten::mean` of whichever overload and dialect is `mean`."""
    schema = getattr(node.target, "_schema", None)
    full = schema.name if schema is not None else getattr(node.target, "__name__", "operator")
    return str(full).rpartition("::")[2]


class _Listener(logging.Handler):
    """Keeps the first reason for each node that the partitioner refuses."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.found: dict[str, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        node, reason = getattr(record.msg, "node", None), getattr(record.msg, "reason", "")
        if node is not None and reason:
            self.found.setdefault(str(node), " ".join(str(reason).split())[:200])


@contextmanager
def _reasons() -> Iterator[dict[str, str]]:
    """Gives node -> why the partitioner refused it: it says so only to its log, at its lowest level."""
    log, listener = logging.getLogger(_WHY), _Listener()
    level, spread, disabled = log.level, log.propagate, logging.root.manager.disable
    log.addHandler(listener)
    log.setLevel(logging.DEBUG)
    log.propagate = False
    logging.disable(logging.NOTSET)
    try:
        yield listener.found
    finally:
        logging.disable(disabled)
        log.propagate = spread
        log.setLevel(level)
        log.removeHandler(listener)


def place(lowering: Lowering, reads: Sequence[tuple[Layer, str]]) -> list[str]:
    """Returns, for each layer and the full name of its weight, the part or the operator that has it; "" where none has.

    Layers are in the order in which they run, and so are the parts. The backend looks up no table.
    """
    used: Counter[tuple[str, bool]] = Counter()
    found = []
    for layer, name in reads:
        multiplies = layer.operator in MULTIPLYING
        homes = [f"{BACKEND}.{index}" for index, names in enumerate(lowering.parts) if name in names and multiplies]
        if name in lowering.outside:
            homes.append(lowering.outside[name])
        found.append(homes[min(used[name, multiplies], len(homes) - 1)] if homes else "")
        used[name, multiplies] += 1
    return found

"""The graph as a torch module: its forward runs the nodes one after another, a trace of it is the graph in torch."""

from __future__ import annotations

import inspect
import keyword
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch

from compress.errors import CompressError, ModelError
from compress.model.onnx_import.batch import Batch
from compress.model.onnx_import.call import Call
from compress.model.onnx_import.errors import MixesRows, NotImportable, UnsupportedOperatorsError
from compress.model.onnx_import.fold import Draft
from compress.model.onnx_import.graph import Node
from compress.model.onnx_import.names import Weight
from compress.model.onnx_import.table import BRANCH, INTERNAL, OPERATORS, refusal
from compress.model.onnx_import.values import MAX_NUMBERS, Host, Value, content, host_of, to_tensor

_MAX_ARGUMENT = 100


class OnnxModule(torch.nn.Module):
    """Runs a graph. Weights are parameters and buffers under their dotted names.

    Args:
        draft: The graph.
        weights: Which of its constants are tensors; the others stand in the graph as numbers.
        inputs: Names of the values that are fed, in order.
        outputs: Names of the values that are returned.
        opset: Version of the standard operators.
        fixed_batch: The batch size that the file is made for, None where it is open.
        where: The file, for messages.
    """

    def __init__(
        self,
        draft: Draft,
        weights: Sequence[Weight],
        inputs: Sequence[str],
        outputs: Sequence[str],
        opset: int,
        fixed_batch: int | None,
        where: str,
    ) -> None:
        super().__init__()
        self._nodes = draft.nodes
        self._constants = {name: content(tensor) for name, tensor in draft.constants.items()}
        self._names = {weight.value: weight.name for weight in weights}
        self._numbers = _numbers(draft, self._names)
        self._inputs, self._outputs = tuple(inputs), tuple(outputs)
        self._opset, self._fixed_batch, self.where = opset, fixed_batch, where
        for weight in {weight.name: weight for weight in weights}.values():
            _register(self, weight, draft.constants[weight.value])
        # A trace takes the names of the graph's inputs from forward's signature.
        self.forward = _named(self._run, argument_names(inputs))

    def _run(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        values: dict[str, Value] = dict(zip(self._inputs, tensors, strict=True))
        self._run_nodes(self._nodes, values, Batch(self._fixed_batch, tensors[0].shape[0]))
        return tuple(to_tensor(self._read(name, values)) for name in self._outputs)

    def _run_nodes(self, nodes: Sequence[Node], values: dict[str, Value], batch: Batch) -> None:
        for node in nodes:
            try:
                results = (
                    self._branch(node, values, batch) if node.operator == BRANCH else self._call(node, values, batch)
                )
            except NotImportable as error:
                if isinstance(error, MixesRows) and batch.fixed is not None:
                    raise ModelError(f"the node {node.name!r} ({_shown(node)}): {error}") from error
                raise UnsupportedOperatorsError(self.where, [(f"{_shown(node)} ({error})", node.name)]) from error
            except CompressError:
                raise
            except Exception as error:
                first = next(iter(str(error).splitlines()), "")
                raise ModelError(
                    f"{self.where}: the node {node.name!r} ({_shown(node)}) cannot be computed: "
                    f"{type(error).__name__}: {first[:200]}",
                    "check that the file runs in ONNX Runtime; if it does, this form of the operator is unknown here.",
                ) from error
            values.update({name: result for name, result in zip(node.outputs, results, strict=False) if name})

    def _call(self, node: Node, values: Mapping[str, Value], batch: Batch) -> Sequence[Value]:
        # Nodes of a branch have not been judged before.
        reason = refusal(node) if node.operator not in INTERNAL else None
        if reason == "":
            raise UnsupportedOperatorsError(self.where, [(node.operator, node.name)])
        if reason is not None:
            raise NotImportable(reason)
        inputs = [self._read(name, values) if name else None for name in node.inputs]
        result = OPERATORS[node.operator](Call(node, inputs, self._opset, self._constants, batch))
        return result if isinstance(result, tuple) else (result,)

    def _branch(self, node: Node, values: dict[str, Value], batch: Batch) -> Sequence[Value]:
        """Runs the branch of an `If` that shapes or constants choose."""
        if not node.inputs or not node.inputs[0]:
            raise NotImportable("it has no condition")
        condition = self._read(node.inputs[0], values)
        if not isinstance(condition, Host) or condition.array.size != 1:
            raise NotImportable("its condition comes from data")
        block = node.attributes["then_branch" if bool(condition.array.flat[0]) else "else_branch"]
        self._run_nodes(block.nodes, values, batch)
        return [self._read(name, values) for name in block.outputs]

    def _read(self, name: str, values: Mapping[str, Value]) -> Value:
        if name in values:
            return values[name]
        if name in self._numbers:
            return self._numbers[name]
        # Asked for by name each time: a trace puts its own tensors in the place of parameters and buffers.
        owner, _, leaf = self._names[name].rpartition(".")
        tensor: torch.Tensor = getattr(self.get_submodule(owner), leaf)
        return tensor


def _shown(node: Node) -> str:
    """Returns a node's operator as the file names it."""
    return INTERNAL.get(node.operator, node.operator)


def argument_names(names: Sequence[str]) -> list[str]:
    """Returns Python names for inputs, each once: those of the file where they can be."""
    result: list[str] = []
    for name in names:
        base = re.sub(r"\W", "_", name, flags=re.ASCII)[:_MAX_ARGUMENT]
        usable = base.isidentifier() and base[0] != "_" and base != "self" and not keyword.iskeyword(base)
        base = base if usable else f"input_{base}"
        free, number = base, 1
        while free in result:
            number += 1
            free = f"{base}_{number}"
        result.append(free)
    return result


def _numbers(draft: Draft, held: Collection[str]) -> dict[str, Host]:
    return {
        name: host_of(tensor)
        for name, tensor in draft.constants.items()
        if name not in held and tensor.numel() <= MAX_NUMBERS
    }


def _register(root: torch.nn.Module, weight: Weight, tensor: torch.Tensor) -> None:
    *path, leaf = weight.name.split(".")
    owner = root
    for part in path:
        if part not in owner._modules:
            owner.add_module(part, torch.nn.Module())
        owner = owner.get_submodule(part)
    if weight.is_parameter:
        owner.register_parameter(leaf, torch.nn.Parameter(tensor))
    else:
        owner.register_buffer(leaf, tensor)


def _named(function: Any, names: Sequence[str]) -> Any:
    def forward(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        result: tuple[torch.Tensor, ...] = function(*tensors)
        return result

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    forward.__signature__ = inspect.Signature([inspect.Parameter(name, kind) for name in names])  # type: ignore[attr-defined]
    return forward
